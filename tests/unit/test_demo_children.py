"""The demo's processes: restarted when they die, and all of them gone when the demo is."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from streamsocial.demo.children import Child, Children
from streamsocial.demo.interruption import Interrupted, Interruption
from streamsocial.demo.steps import StepFailed, run_step
from streamsocial.environment import BASE_DIR
from streamsocial.stack.processes import Identity
from tests.support.processes import wait_for

SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
#: Starts a process that outlives it and writes down its id.
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}])
open(sys.argv[1], "w").write(str(child.pid))
{SLEEP}
"""


class Scene:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.impatient = False
        self.children = Children(folder / "demo.json", dict(os.environ), self.said.append, lambda: self.impatient)

    def start(self, name: str, code: str, stop_seconds: float = 15.0) -> Child:
        arguments = [sys.executable, "-c", code, str(self.folder / f"{name}.pid")]
        child = Child(name, arguments, self.folder / f"{name}.log", stop_seconds)
        self.children.start(child)
        return child

    def started(self, name: str, code: str, stop_seconds: float = 15.0) -> Child:
        child = self.start(name, code, stop_seconds)
        wait_for(f"{name} is ready", lambda: "ready" in child.log.read_text(), 20)
        return child

    def watched(self, what: str, look: Callable[[], object]) -> None:
        def watch() -> object:
            self.children.watch()
            return look()

        wait_for(what, watch, 20)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.impatient = True
    made.children.stop()


def test_a_child_that_dies_is_restarted_and_the_user_is_told(scene: Scene) -> None:
    child = scene.started("web", SLEEP)
    first = child.process
    assert first is not None
    first.kill()

    scene.watched("it runs again", lambda: child.process is not first)

    assert child.identity is not None
    assert child.identity.is_alive()
    assert scene.said == [f"web was killed by SIGKILL; restarting in 1 s. Log: {child.log}"]


def test_a_child_that_dies_young_again_and_again_waits_longer_each_time(scene: Scene) -> None:
    child = scene.start("web", "import sys; sys.exit(3)")
    delays = []
    for _ in range(6):
        scene.watched("it ends", lambda: child.restart_at)
        delays.append(child.delay)
        child.restart_at = 0.0  # as if the delay were over
        scene.children.watch()

    assert delays == [2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert "exited with status 3; restarting in 15 s" in scene.said[-1]


def test_what_a_dead_child_had_started_does_not_run_beside_its_successor(scene: Scene) -> None:
    child = scene.started("slots", PARENT)
    grandchild = Identity.of(int((scene.folder / "slots.pid").read_text()))
    assert grandchild is not None
    assert child.process is not None
    child.process.kill()

    scene.watched("its death is seen", lambda: child.restart_at)

    assert grandchild.wait_gone(10)


def test_children_are_ended_last_started_first_and_nothing_of_them_is_left(scene: Scene) -> None:
    children = [scene.started(name, code) for name, code in (("web", SLEEP), ("slots", PARENT), ("beat", SLEEP))]
    grandchild = Identity.of(int((scene.folder / "slots.pid").read_text()))
    assert grandchild is not None

    scene.children.stop()

    assert scene.said == ["Stopping beat …", "Stopping slots …", "Stopping web …"]
    assert not [child for child in children if child.identity and child.identity.is_alive()]
    assert grandchild.wait_gone(10)
    assert not (scene.folder / "demo.json").exists()


@pytest.mark.parametrize("impatient", [False, True])
def test_a_child_that_does_not_end_is_killed_after_its_time_or_when_the_user_asks_again(
    scene: Scene, *, impatient: bool
) -> None:
    child = scene.started("slots", STUBBORN, stop_seconds=600 if impatient else 0.2)
    scene.impatient = impatient

    scene.children.stop()

    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL
    assert scene.said[-1] == "slots did not stop in time; killing it."


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_end_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from streamsocial.demo.children import Child, Children\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "children = Children(folder / 'demo.json', dict(os.environ), print)\n"
        f"children.start(Child('web', [sys.executable, '-c', {SLEEP!r}], folder / 'web.log'))\n"
        "time.sleep(600)\n"
    )
    demo = subprocess.Popen([sys.executable, "-c", code], cwd=BASE_DIR)
    try:
        log = tmp_path / "web.log"
        record = tmp_path / "demo.json"
        wait_for("the child is ready", lambda: log.exists() and "ready" in log.read_text() and record.exists(), 20)
        (entry,) = json.loads(record.read_text())
    finally:
        demo.kill()
        demo.wait(10)
    assert Identity(entry["pid"], entry["created"]).wait_gone(10)


def test_leftovers_of_a_killed_demo_are_ended_and_a_stranger_with_the_same_id_is_not(scene: Scene) -> None:
    code = [sys.executable, "-c", SLEEP]
    left, stranger = (subprocess.Popen(code, stdout=subprocess.DEVNULL, start_new_session=True) for _ in range(2))
    try:
        created = psutil.Process(left.pid).create_time()
        entries = [{"pid": left.pid, "created": created}, {"pid": stranger.pid, "created": created - 1000}]
        (scene.folder / "demo.json").write_text(json.dumps(entries))

        scene.children.clean_leftovers()

        assert left.wait(10) == 0  # not pid_exists(): that still sees it until it is waited for
        assert stranger.poll() is None
        assert scene.said == ["Stopping leftover processes of a killed demo: 1 …"]
        assert not (scene.folder / "demo.json").exists()
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait(10)


@pytest.mark.parametrize("damaged", ["", "{", "[1]", '[{"pid": 1}]', "null"])
def test_a_damaged_record_of_leftovers_stops_nothing(scene: Scene, damaged: str) -> None:
    (scene.folder / "demo.json").write_text(damaged)

    scene.children.clean_leftovers()

    assert scene.said == []


def test_a_log_that_grew_large_is_put_aside(scene: Scene) -> None:
    log = scene.folder / "web.log"
    with log.open("wb") as file:
        file.truncate(11 * 1024 * 1024)

    scene.started("web", SLEEP)

    assert log.stat().st_size < 100
    assert (scene.folder / "web.old.log").stat().st_size == 11 * 1024 * 1024


# --- Steps and signals ----------------------------------------------------------------------------------------


def test_a_step_gives_what_its_command_printed() -> None:
    command = [sys.executable, "-c", "import sys; print(sys.stdin.read()[::-1])"]

    assert run_step("it", command, os.environ, Interruption(), seconds=20, stdin="abc").strip() == "cba"


def test_a_step_that_fails_says_why() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such topic')"]

    with pytest.raises(StepFailed, match=r"^`it` failed:\nno such topic$"):
        run_step("`it`", command, os.environ, Interruption(), seconds=20)


@pytest.mark.parametrize(("breaks_off", "seconds", "raised"), [(True, 600, Interrupted), (False, 0.5, StepFailed)])
def test_a_step_that_is_broken_off_or_takes_too_long_is_gone_with_all_it_started(
    tmp_path: Path, *, breaks_off: bool, seconds: float, raised: type[Exception]
) -> None:
    interruption = Interruption()
    written = tmp_path / "pid"

    def ask() -> None:
        wait_for("it runs", written.exists)
        interruption.note(signal.SIGINT)

    asker = threading.Thread(target=ask)
    if breaks_off:
        asker.start()

    with pytest.raises(raised):
        run_step("it", [sys.executable, "-c", PARENT, str(written)], os.environ, interruption, seconds=seconds)

    if breaks_off:
        asker.join(20)
        identity = Identity.of(int(written.read_text()))
        assert identity is None or identity.wait_gone(10)


def test_a_second_signal_means_hurry() -> None:
    interruption = Interruption()
    assert not interruption.wait(0)

    interruption.note(signal.SIGTERM)
    assert interruption.wait(0)
    assert not interruption.impatient

    interruption.note(signal.SIGINT)
    assert interruption.impatient
