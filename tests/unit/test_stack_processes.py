"""A process of ours is known again; another's is never mistaken for it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsocial.stack import processes
from streamsocial.stack.processes import Identity, Record, find, spawn

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Identity]:
    identity = spawn([sys.executable, "-c", SLEEP, str(tmp_path)], tmp_path / "log", dict(os.environ))
    yield identity
    identity.kill_now()


def test_a_spawned_process_is_alive_until_it_is_killed(sleeper: Identity) -> None:
    assert sleeper.is_alive()
    sleeper.kill_now()
    assert not sleeper.is_alive()


def test_a_spawned_process_has_a_session_of_its_own(sleeper: Identity) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid


def test_what_a_process_prints_goes_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    assert spawn([sys.executable, "-c", code], log, dict(os.environ)).wait_gone(10)
    assert sorted(log.read_text().split()) == ["err", "out"]


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn([str(tmp_path / "absent")], tmp_path / "log", {})


def test_a_later_process_with_the_same_id_is_another_one(sleeper: Identity) -> None:
    recycled = Identity(sleeper.pid, sleeper.created - 3600)
    assert not recycled.is_alive()
    recycled.send(signal.SIGKILL)
    assert sleeper.is_alive()


def test_a_record_finds_the_process_in_another_command(sleeper: Identity, tmp_path: Path) -> None:
    Record(tmp_path / "process.json", "nowhere").write(sleeper)
    assert Record(tmp_path / "process.json", "nowhere").running() == sleeper


def test_a_record_of_a_dead_process_finds_nothing(sleeper: Identity, tmp_path: Path) -> None:
    record = Record(tmp_path / "process.json", "nowhere")
    record.write(sleeper)
    sleeper.kill_now()
    assert record.running() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_record_finds_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "process.json").write_text(text)
    assert Record(tmp_path / "process.json", "nowhere").running() is None


def test_a_process_whose_starter_died_before_writing_is_found_by_its_command_line(
    sleeper: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find(str(tmp_path)) is None, "an editor or a shell is no service"
    monkeypatch.setattr(processes, "_PROGRAMS", frozenset({Path(sys.executable).name}))
    assert find(str(tmp_path)) == sleeper
    record = Record(tmp_path / "process.json", str(tmp_path))
    assert record.running() == sleeper
    assert (tmp_path / "process.json").exists()
