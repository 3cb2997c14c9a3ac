"""Alerts over TLS and through a proxy, to servers that are really there. No database: the messages are not saved."""

import base64
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from pytest_django import Settings

from offsets.models import Incident, Notification
from offsets.monitoring import notifications, webhook_pools
from offsets.monitoring.notifications import SendError, refused_setup
from tests.support.certificates import server_context


@pytest.fixture
def message() -> Notification:
    now = datetime.now(UTC)
    incident = Incident(pk=7, group_id="g", kind="worker_dead", subject="w-1", summary="x", began_at=now, opened_at=now)
    return Notification(pk=3, incident=incident, event="opened", channel="email")


@pytest.fixture(autouse=True)
def _database_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_database_now", lambda: ("2026-11-27T12:00:00+00:00", "1795780800"))


# --- E-mail ---------------------------------------------------------------------------------------


class _Mailbox:
    def __init__(self) -> None:
        self.received: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.received.append(envelope)
        return "250 kept"


class _QuietController(Controller):
    def factory(self) -> SMTP:
        return SMTP(self.handler, enable_SMTPUTF8=True)


@pytest.fixture
def mailbox(tmp_path: Path, settings: Settings) -> Iterator[_Mailbox]:
    """A mail server that speaks TLS from the first byte."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    box = _Mailbox()
    controller = _QuietController(box, hostname="127.0.0.1", port=port, ssl_context=server_context(tmp_path))
    controller.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", port, 5
    settings.ALERT_EMAIL_TO, settings.EMAIL_USE_SSL = ["night@example.org"], True
    yield box
    controller.stop()


def test_an_e_mail_is_sent_by_implicit_tls(
    mailbox: _Mailbox, message: Notification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    notifications._mail(message, 0)
    (envelope,) = mailbox.received
    assert envelope.rcpt_tos == ["night@example.org"]


def test_a_mail_server_with_an_unknown_certificate_gets_nothing(mailbox: _Mailbox, message: Notification) -> None:
    with pytest.raises(SendError, match="certificate verify failed"):
        notifications._mail(message, 0)
    assert mailbox.received == []


def test_starttls_and_implicit_tls_exclude_each_other() -> None:
    assert "exclude each other" in refused_setup("", "", [], "mail", starttls=True, implicit_tls=True)
    assert refused_setup("", "", [], "mail", implicit_tls=True) == ""


# --- The webhook ----------------------------------------------------------------------------------


class _Receiver:
    """An HTTPS server that counts what it was sent."""

    def __init__(self, folder: Path) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = server_context(folder).wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_port


class _Proxy:
    """An HTTP proxy that answers CONNECT, and keeps what it was asked."""

    def __init__(self, status: int = 200) -> None:
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                outer.asked.append((self.path, self.headers.get("Proxy-Authorization")))
                self.send_response(status)
                self.end_headers()
                if status != 200:
                    return
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port)), timeout=10) as far:
                    back = threading.Thread(target=_copy, args=(far, self.connection), daemon=True)
                    back.start()
                    _copy(self.connection, far)
                    back.join(10)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}"


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        """One side has closed: nothing more to copy."""


@pytest.fixture
def receiver(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Receiver]:
    found = _Receiver(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    settings.ALERT_WEBHOOK_URL = f"https://127.0.0.1:{found.port}/hook?token=hidden"
    settings.ALERT_WEBHOOK_SECRET = "a secret of the test"
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def proxy(settings: Settings) -> Iterator[_Proxy]:
    found = _Proxy()
    settings.HTTPS_PROXY = f"http://user:p%40ss@{found.address}"
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_a_webhook_goes_through_the_proxy_with_its_login(
    receiver: _Receiver, proxy: _Proxy, message: Notification
) -> None:
    notifications._post(message, 0)
    login = base64.b64encode(b"user:p@ss").decode()
    assert proxy.asked == [(f"127.0.0.1:{receiver.port}", f"Basic {login}")]
    assert len(receiver.bodies) == 1


def test_a_host_of_no_proxy_is_reached_directly(
    receiver: _Receiver, proxy: _Proxy, message: Notification, settings: Settings
) -> None:
    settings.NO_PROXY = ["127.0.0.1"]
    notifications._post(message, 0)
    assert proxy.asked == []
    assert len(receiver.bodies) == 1


def test_a_certificate_is_checked_through_a_proxy_too(
    receiver: _Receiver, proxy: _Proxy, message: Notification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(SendError, match="SSLError from 127"):
        notifications._post(message, 0)
    assert receiver.bodies == []


def test_a_proxy_that_refuses_is_a_failed_attempt_without_secrets(
    receiver: _Receiver, message: Notification, settings: Settings
) -> None:
    refusing = _Proxy(status=407)
    settings.HTTPS_PROXY = f"http://user:hidden@{refusing.address}"
    try:
        with pytest.raises(SendError) as failed:
            notifications._post(message, 0)
    finally:
        refusing.server.shutdown()
        refusing.server.server_close()
    assert str(failed.value) == "ProxyError from 127.0.0.1"
    assert not failed.value.permanent


@pytest.mark.parametrize(
    ("url", "excluded", "expected"),
    [
        ("https://hooks.example.org/x", [], "http://p:1"),
        ("http://hooks.example.org/x", [], "http://q:2"),
        ("https://hooks.example.org/x", ["example.org"], ""),
        ("https://hooks.example.org/x", [".example.org"], ""),
        ("https://user:pass@hooks.example.org:8443/x", ["hooks.example.org:8443"], ""),
        ("https://hooks.example.org/x", ["ample.org", "10.0.0.0/8"], "http://p:1"),
        ("https://hooks.example.org/x", ["*"], ""),
    ],
)
def test_which_proxy(settings: Settings, url: str, excluded: list[str], expected: str) -> None:
    settings.HTTPS_PROXY, settings.HTTP_PROXY, settings.NO_PROXY = "http://p:1", "q:2", excluded
    assert webhook_pools.proxy_for(url) == expected
