"""The stack's folder, ports and variables."""

import socket
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamsocial.environment import Environment
from streamsocial.stack import Stack, StackError, ports
from streamsocial.stack.state import State, StateDir, write_private

OTHERS = {
    "KAFKA_BOOTSTRAP_SERVERS": "broker.example:9092",
    "DATABASE_URL": "postgresql://me@db.example/mine",
    "REDIS_URL": "redis://cache.example/0",
}


def _listen() -> socket.socket:
    server = socket.socket()
    server.bind((ports.LOOPBACK, 0))
    server.listen()
    return server


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with _listen() as server:
        assert not ports.is_free(server.getsockname()[1])


def test_the_usual_port_is_chosen_where_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    assert State().choose_port("kafka", usual=True) == 9092


def test_another_port_is_chosen_where_the_usual_one_is_taken_and_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != 9092)
    state = State()
    chosen = state.choose_port("kafka", usual=True)
    assert chosen in ports.FALLBACK_PORTS
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    assert state.choose_port("kafka", usual=True) == chosen


def test_two_services_never_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    state = State(ports={"controller": 9092})
    assert state.choose_port("kafka", usual=True) != 9092


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(OSError, match="No free port"):
        ports.choose([9092], ())


def test_a_private_file_is_replaced_whole_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "env"
    write_private(path, "A=1\n")
    write_private(path, "A=2\n")
    assert path.read_text() == "A=2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["env"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "env"
    write_private(path, "A=1\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, "A=2\n")
    assert path.read_text() == "A=1\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["env"]


def test_planning_writes_a_private_env_file_and_starts_nothing(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", environ={}, usual_ports=False)
    values = stack.plan()
    assert set(values) == {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL", "SECRET_KEY"}
    assert stat.S_IMODE(stack.directory.env_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(stack.directory.root.stat().st_mode) == 0o700
    assert {service.state for service in stack.status().services} == {"stopped"}
    assert not stack.status().ok


def test_a_second_plan_keeps_ports_passwords_and_key(tmp_path: Path) -> None:
    first = Stack(tmp_path / "stack", environ={}, usual_ports=False).plan()
    assert Stack(tmp_path / "stack", environ={}, usual_ports=False).plan() == first


def test_settings_read_what_was_planned_and_the_environment_wins(tmp_path: Path) -> None:
    values = Stack(tmp_path / "stack", environ={}, usual_ports=False).plan()
    folder = {"STACK_DIR": str(tmp_path / "stack")}
    assert Environment(folder).text("DATABASE_URL") == values["DATABASE_URL"]
    assert Environment({**folder, **OTHERS}).text("DATABASE_URL") == OTHERS["DATABASE_URL"]


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_service_whose_variable_is_set_is_the_users(tmp_path: Path, name: str) -> None:
    stack = Stack(tmp_path / "stack", environ={name: OTHERS[name]}, usual_ports=False)
    assert stack.plan()[name] == OTHERS[name]
    states = [service.state for service in stack.status().services]
    assert states.count("yours") == 1
    # The file keeps the stack's own value, for the day on which the variable is not set.
    assert OTHERS[name] not in stack.directory.env_file.read_text()


def test_nothing_is_started_where_every_service_is_the_users(tmp_path: Path) -> None:
    status = Stack(tmp_path / "stack", environ=OTHERS, usual_ports=False).up()
    assert status.ok
    assert status.started == ()
    assert {service.state for service in status.services} == {"yours"}


def test_an_empty_variable_is_not_the_users(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", environ={"REDIS_URL": ""}, usual_ports=False)
    assert stack.status()["valkey"].state == "stopped"


def test_a_folder_with_somebody_elses_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    stack = Stack(tmp_path, environ={}, usual_ports=False)
    with pytest.raises(StackError, match="not the stack's"):
        stack.plan()
    stack.directory.wipe()
    assert (tmp_path / "thesis.txt").exists()


def test_wiping_deletes_what_the_stack_made(tmp_path: Path) -> None:
    directory = StateDir(tmp_path / "stack")
    directory.create()
    (directory.root / "kafka").mkdir()
    (directory.root / "kafka" / "log").write_text("x")
    (directory.root / "outside").symlink_to(tmp_path)
    directory.wipe()
    assert not (directory.root / "kafka").exists()
    assert tmp_path.exists()
    assert directory.exists()


def test_a_damaged_state_file_says_what_to_do(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", environ={}, usual_ports=False)
    stack.plan()
    (stack.directory.root / "state.json").write_text("{")
    with pytest.raises(StackError, match="stack up --wipe"):
        stack.plan()


def test_a_full_disk_is_told_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {name: value for name, value in OTHERS.items() if name != "REDIS_URL"}
    stack = Stack(tmp_path / "stack", environ=theirs, usual_ports=False)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1024))
    with pytest.raises(StackError, match=r"Cannot start Valkey.*256 MiB"):
        stack.up()
    assert stack.status()["valkey"].state == "stopped"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"ports": "x"}',
        b'{"ports": {"kafka": "9092"}}',
        b'{"ports": {"kafka": 70000}}',
        b'{"secrets": {"postgres": 5}}',
        b'{"other": {}}',
        b'{"ports": {}\0}',
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_state_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    directory = StateDir(tmp_path)
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(StackError, match="stack up --wipe"):
        directory.load()


@pytest.mark.parametrize("content", [b'\xef\xbb\xbf{"ports": {"kafka": 9092}}\r\n', b'{"ports":\r{"kafka": 9092}}\r'])
def test_a_state_that_an_editor_has_saved_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    assert StateDir(tmp_path).load().ports == {"kafka": 9092}
