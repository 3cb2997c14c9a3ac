"""`manage.py demo` as a newcomer runs it: ready, counting, and gone without a trace."""

import http.cookiejar
import json
import os
import re
import signal
import stat
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from offsets.models import Worker
from streamsocial.environment import SERVICE_VARIABLES
from streamsocial.stack import Stack
from tests.support.processes import Background, background, manage, manage_json, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(400)]

READY_SECONDS = 150


@dataclass
class Demo:
    process: Background
    env: dict[str, str]
    folder: Path

    def is_ready(self) -> bool:
        assert self.process.process.poll() is None, self.process.output()
        return "Press Ctrl-C to stop." in self.process.output()

    @property
    def url(self) -> str:
        found = re.search(r"Dashboard: (http://127\.0\.0\.1:\d+/)", self.process.output())
        assert found is not None, self.process.output()
        return found[1]

    def password(self, name: str) -> str:
        found = re.search(rf"^  {name} +(\S+)$", self.process.output(), re.MULTILINE)
        assert found is not None, self.process.output()
        return found[1]

    def family(self) -> list[psutil.Process]:
        """All processes that came from the demo, services that it started excepted: those are nobody's children."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@pytest.fixture
def demo_env(service_env: dict[str, str], run_folder: Path) -> dict[str, str]:
    """Services that are the user's: those of this run; a folder, topic and queues of its own."""
    name = f"demo-{uuid.uuid4().hex[:8]}"
    return {
        **service_env,
        "STACK_DIR": str(run_folder / name),
        "ENGAGEMENT_TOPIC": name,
        "ENGAGEMENT_GROUP": name,
        "CELERY_QUEUE_SUFFIX": f"-{name}",
    }


StartDemo = Callable[..., AbstractContextManager[Demo]]


@pytest.fixture
def start(tmp_path: Path) -> StartDemo:
    running: list[Background] = []

    @contextmanager
    def one(env: dict[str, str], *arguments: str) -> Iterator[Demo]:
        log = tmp_path / f"demo-{len(running)}.log"
        with background(env, log, "demo", "--rate", "300", *arguments) as process:
            running.append(process)
            family: list[psutil.Process] = []
            try:
                yield Demo(process, env, Path(env["STACK_DIR"]))
            finally:
                if process.process.poll() is None:
                    family = psutil.Process(process.pid).children(recursive=True)
                process.end(60)
                for child in family:
                    if child.is_running():
                        child.kill()

    return one


def test_it_is_ready_with_logins_and_counted_events_and_ends_with_ctrl_c(
    start: StartDemo, demo_env: dict[str, str], stack: Stack
) -> None:
    with start(demo_env) as demo:
        wait_for("it is ready", demo.is_ready, READY_SECONDS)
        assert re.search(r"[1-9][\d,]* events counted so far", demo.process.output())
        logins = demo.folder / "demo-logins"
        assert stat.S_IMODE(logins.stat().st_mode) == 0o600
        for name, password in json.loads(logins.read_text()).items():
            assert demo.password(name) == password
            assert _signs_in(demo.url, name, password)
        assert not _signs_in(demo.url, "admin", "wrong")

        second = manage(demo_env, "demo")
        assert second.returncode == 2
        assert f"is already running (process {demo.process.pid})" in second.stderr

        _web(demo).kill()
        wait_for(
            "the page is back", lambda: "web was killed by SIGKILL" in demo.process.output() and _answers(demo.url)
        )

        family = demo.family()
        assert len(family) >= 10, "page, generator, beat, and two Celery parents with their pools"
        demo.send(signal.SIGINT)
        assert demo.process.process.wait(60) == 0, demo.process.output()
        assert not [child for child in family if child.is_running()]
    assert "killing it" not in demo.process.output()
    assert stack.status().ok, "services that it did not start stay up"
    assert not Worker.objects.exclude(state="stopped").exists()
    verified = manage_json(demo_env, "verify_offsets", "--group", demo_env["ENGAGEMENT_GROUP"])
    assert verified["ok"], verified


def test_it_takes_its_processes_with_it_when_it_is_killed(start: StartDemo, demo_env: dict[str, str]) -> None:
    with start(demo_env, "--no-generator") as demo:
        wait_for("it is ready", demo.is_ready, READY_SECONDS)
        logins = (demo.folder / "demo-logins").read_text()
        family = demo.family()
        demo.send(signal.SIGKILL)
        wait_for("nothing of it is left", lambda: not [child for child in family if child.is_running()])
    with start(demo_env, "--no-generator") as demo:
        wait_for("the next one starts", demo.is_ready, READY_SECONDS)
        assert (demo.folder / "demo-logins").read_text() == logins, "logins are kept"
        demo.send(signal.SIGTERM)
        assert demo.process.process.wait(60) == 0, demo.process.output()


def test_it_stops_the_services_that_it_started_and_no_others(start: StartDemo, demo_env: dict[str, str]) -> None:
    env = {name: value for name, value in demo_env.items() if name not in SERVICE_VARIABLES}
    own = Stack(Path(env["STACK_DIR"]), environ={}, usual_ports=False)
    own.plan()
    own.start_service("valkey")
    with start(env, "--no-generator") as demo:
        wait_for("it is ready", demo.is_ready, READY_SECONDS)
        assert own.status().ok
        demo.send(signal.SIGTERM)
        assert demo.process.process.wait(90) == 0, demo.process.output()
    assert {service.name: service.state for service in own.status().services} == {
        "kafka": "stopped",
        "postgres": "stopped",
        "valkey": "running",
    }
    own.down(immediate=True)


def test_it_can_be_broken_off_while_services_start(start: StartDemo, demo_env: dict[str, str]) -> None:
    env = {name: value for name, value in demo_env.items() if name not in SERVICE_VARIABLES}
    own = Stack(Path(env["STACK_DIR"]), environ={}, usual_ports=False)
    own.plan()
    with start(env) as demo:
        wait_for("a service is up", lambda: " is up on " in demo.process.output())
        demo.send(signal.SIGINT)
        assert demo.process.process.wait(60) == 0, demo.process.output()
    assert "Stopped before it was ready." in demo.process.output()
    assert "Traceback" not in demo.process.output()
    assert {service.state for service in own.status().services} == {"stopped"}


def _web(demo: Demo) -> psutil.Process:
    return next(child for child in demo.family() if "daphne" in child.cmdline())


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "healthz", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _signs_in(url: str, name: str, password: str) -> bool:
    """Through the login form, as a browser would; whether the dashboard opens."""
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    with browser.open(url + "accounts/login/", timeout=10) as page:
        token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', page.read())
    assert token is not None
    form = {"csrfmiddlewaretoken": token[1].decode(), "username": name, "password": password}
    with browser.open(url + "accounts/login/", urllib.parse.urlencode(form).encode(), timeout=10) as response:
        return bool(response.url == url)
