"""A real Chromium on the real page: Daphne in a process of its own, this run's PostgreSQL and Valkey behind it."""

import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from scripts.screenshot import chromium, find_chromium, wait_until_live
from streamsocial.stack import frontend
from tests.support.dashboard_page import make_partition, sampling
from tests.support.page_rows import make_user, make_worker
from tests.support.processes import Background, resume, stopped, wait_for

#: Generous, because the machine may be busy; what is expected comes as soon as it comes.
PATIENCE_MS = 20_000


@pytest.fixture(scope="session", autouse=True)
def chart_library() -> None:
    """The page's one library, as a newcomer's clone does not have it yet."""
    frontend.ensure()


class Server:
    """The web server, which can be stopped in its tracks and let go on, or ended and started again."""

    def __init__(self, env: dict[str, str], log: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        #: Where browsers find the page; a test that puts a proxy in between changes it.
        self.url = f"http://127.0.0.1:{self.port}/"
        patient = {"DASHBOARD_INTERVAL_MS": "500", "HEARTBEAT_TIMEOUT_SECONDS": "90"}
        self._env, self._log, self._options = {**env, **patient}, log, options
        self._process: Background | None = None

    def start(self) -> None:
        if self._process is None:
            address = ("-b", "127.0.0.1", "-p", str(self.port))
            command = [sys.executable, "-m", "daphne", *address, *self._options, "streamsocial.asgi:application"]
            self._process = Background.program(command, self._env, self._log)
        wait_for("the web server to answer", self._answers)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def stop(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        pid = self._process.pid
        wait_for("the web server to stand still", lambda: stopped(pid))

    def go_on(self) -> None:
        if self._process is not None:
            resume(self._process.pid)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.process.poll() is None, self._process.output()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture(scope="session")
def _servers(django_db_setup: None) -> Iterator[list[Server]]:
    """One for all tests, ended before the database is dropped under it."""
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.end()


@pytest.fixture
def server(
    _servers: list[Server], service_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    if not _servers:
        _servers.append(Server(service_env, tmp_path_factory.mktemp("web") / "web.log"))
    [server] = _servers
    server.start()
    yield server
    server.go_on()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("No Chromium was found; set CHROMIUM.")
    expect.set_options(timeout=PATIENCE_MS)
    with pytest.MonkeyPatch.context() as patch:
        # Playwright keeps an event loop in this thread, which is idle whenever a test touches the database.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with chromium(executable) as browser:
            yield browser


class Visits:
    """Opens pages for users, and remembers what the browser complained about."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self.server = server
        self.complaints: list[str] = []
        #: From then on the lag stands still.
        self.end_sampling: Callable[[], None] = lambda: None

    def page(self, **context: Any) -> Page:
        options = {"viewport": {"width": 1440, "height": 900}, "timezone_id": "UTC", **context}
        made = self._browser.new_context(**options)
        made.set_default_timeout(PATIENCE_MS)
        self._contexts.append(made)
        page = made.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def let_in(self, page: Page, user: User) -> None:
        """With a session as the form would give it, without hashing a password each time."""
        client = Client()
        client.force_login(user)
        name = settings.SESSION_COOKIE_NAME
        page.context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": self.server.url}])
        page.goto(self.server.url)

    def log_in(self, page: Page, user: User) -> Page:
        self.let_in(page, user)
        wait_until_live(page)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def visits(transactional_db: None, server: Server, browser: Browser) -> Iterator[Visits]:
    """Fails a test in which the browser reported an error: a script's, or a breach of the content policy."""
    visits = Visits(browser, server)
    with sampling() as visits.end_sampling:
        yield visits
    # Closed before the database is emptied: an open page keeps the server reading it.
    visits.close()
    assert visits.complaints == []


@pytest.fixture
def operator(visits: Visits) -> Callable[..., Page]:
    """Log in as somebody who may act, and wait until the page is live."""

    def open_page(**context: Any) -> Page:
        return visits.log_in(visits.page(**context), make_user("olga", "operator"))

    return open_page


@pytest.fixture
def group(transactional_db):
    """Three partitions: two keep up, one is paused far behind. Tests with a real topic have a group of their own."""
    worker = make_worker("w-7f2a91bc", silent_for=-60, events_per_second=1234.5, memory_bytes=412 * 2**20, records=5000)
    paused = make_partition(2, owner=worker, next_offset=790_000, log_end=801_118, desired_state="paused", epoch=14)
    return {
        "worker": worker,
        "paused": paused,
        "first": make_partition(0, owner=worker),
        "second": make_partition(1, owner=worker, next_offset=2000, log_end=2000),
    }
