"""Alerts: written with the incident, sent once, signed, not too often; to receivers that are really there."""

import email
import email.policy
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from django.db import connection
from django.utils import timezone

from offsets.models import DatabaseTime, Incident, JournalEntry, Notification
from offsets.monitoring import notifications
from tests.support.page_rows import GROUP

SECRET = "a secret of the test"


class Receiver:
    """An HTTP server that keeps what it was sent, and answers what it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.hangs = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((dict(self.headers), body))
                if outer.hangs.is_set():
                    time.sleep(2)
                status = outer.statuses.pop(0) if outer.statuses else 204
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{outer.url}elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Tests speak for themselves."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    found = Receiver()
    settings.ALERT_WEBHOOK_URL = f"{found.url}hook?token=hidden"
    settings.ALERT_WEBHOOK_SECRET = SECRET
    yield found
    found.close()


def incident(subject: str = "w-1", **fields: Any) -> Incident:
    defaults = {
        "kind": "worker_dead",
        "summary": "w-1 sends no heartbeat.",
        "began_at": timezone.now(),
    }
    row = Incident.objects.create(group_id=GROUP, subject=subject, **(defaults | fields))
    row.refresh_from_db()
    return row


def told(row: Incident, event: str = "opened") -> Notification:
    """Its message, which is due at once."""
    notifications.enqueue(row, event)
    Notification.objects.filter(incident=row, attempts=0, status="pending").update(next_attempt_at=DatabaseTime())
    return Notification.objects.get(incident=row, event=event)


def make_due() -> None:
    Notification.objects.update(next_attempt_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.django_db
def test_a_webhook_is_signed_and_says_what_happened(receiver: Receiver) -> None:
    row = incident(ranges=[{"topic": "t", "partition": 0, "kind": "unread", "start": 5, "end": 9}])
    message = told(row)
    assert notifications.send_due() == 1
    ((headers, body),) = receiver.requests
    said = json.loads(body)
    assert (said["event"], said["group"], said["incident"]["subject"]) == ("opened", GROUP, "w-1")
    assert said["incident"]["ranges"] == row.ranges
    assert headers["Idempotency-Key"] == f"streamsocial-{message.pk}"
    stamp = headers["X-StreamSocial-Timestamp"]
    assert abs(int(stamp) - time.time()) < 60
    assert headers["X-StreamSocial-Signature"] == notifications.signature(SECRET, stamp, body)
    assert headers["X-StreamSocial-Signature"] != notifications.signature("another", stamp, body)
    message.refresh_from_db()
    assert (message.status, message.attempts) == ("sent", 1)


@pytest.mark.django_db
@pytest.mark.parametrize(("lasted", "sent"), [(4.0, 0), (6.0, 2)])
def test_it_tells_nothing_that_healed_within_one_interval(receiver: Receiver, lasted: float, sent: int) -> None:
    row = incident()
    notifications.enqueue(row, "opened")
    assert 4 < (Notification.objects.get().next_attempt_at - row.opened_at).total_seconds() < 6
    assert notifications.send_due() == 0, "not yet"

    row.closed_at = row.opened_at + timedelta(seconds=lasted)
    notifications.enqueue(row, "closed")

    assert notifications.send_due() == sent
    assert [json.loads(body)["event"] for _, body in receiver.requests] == ["opened", "closed"][:sent]


@pytest.mark.django_db
def test_what_was_over_before_it_could_be_written_is_told_by_how_long_it_lasted(receiver: Receiver) -> None:
    """As an outage of the database: opened and closed in one transaction."""
    for subject, seconds in (("short", 4), ("long", 40)):
        row = incident(subject, began_at=timezone.now() - timedelta(seconds=seconds))
        notifications.enqueue(row, "opened")
        row.closed_at = timezone.now()
        notifications.enqueue(row, "closed", past=True)

    assert notifications.send_due() == 2
    assert {json.loads(body)["incident"]["subject"] for _, body in receiver.requests} == {"long"}


@pytest.mark.django_db
def test_what_was_told_is_told_to_be_over_although_it_was_short(receiver: Receiver) -> None:
    row = incident()
    told(row)
    assert notifications.send_due() == 1
    row.closed_at = row.opened_at + timedelta(seconds=1)

    notifications.enqueue(row, "closed")

    assert notifications.send_due() == 1
    assert [json.loads(body)["event"] for _, body in receiver.requests] == ["opened", "closed"]


@pytest.mark.django_db
def test_it_tells_each_thing_once(receiver: Receiver) -> None:
    row = incident()
    for _ in range(3):
        told(row)
    assert notifications.send_due() == 1
    make_due()
    assert notifications.send_due() == 0
    assert len(receiver.requests) == 1


@pytest.mark.django_db
def test_it_tries_again_after_a_failure_and_not_before_its_time(receiver: Receiver) -> None:
    receiver.statuses = [500, 429]
    message = told(incident())
    assert notifications.send_due() == 0
    assert notifications.send_due() == 0, "not due again yet"
    assert len(receiver.requests) == 1
    for _ in range(2):
        make_due()
        notifications.send_due()
    message.refresh_from_db()
    assert (message.status, message.attempts, message.last_error) == ("sent", 3, "")
    assert len({headers["Idempotency-Key"] for headers, _ in receiver.requests}) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("status", [301, 400, 410])
def test_what_will_never_be_taken_is_given_up_and_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    message = told(incident())
    notifications.send_due()
    message.refresh_from_db()
    assert message.status == "failed"
    assert str(status) in message.last_error
    assert "hidden" not in message.last_error, "the address may hold a token"
    assert len(receiver.requests) == 1
    assert JournalEntry.objects.filter(kind="alert_failed").count() == 1


@pytest.mark.django_db
def test_it_gives_up_after_its_attempts(receiver: Receiver, settings: Any) -> None:
    settings.NOTIFY_MAX_ATTEMPTS = 2
    settings.ALERT_WEBHOOK_URL = "http://127.0.0.1:1/"
    message = told(incident())
    for _ in range(3):
        make_due()
        notifications.send_due()
    message.refresh_from_db()
    assert (message.status, message.attempts) == ("failed", 2)
    assert "127.0.0.1" in message.last_error


@pytest.mark.django_db
def test_the_end_is_told_to_those_who_heard_of_the_beginning(receiver: Receiver, settings: Any) -> None:
    row, unheard = incident(), incident("w-2")
    told(row)
    notifications.enqueue(row, "closed")
    notifications.enqueue(unheard, "closed")
    assert notifications.send_due() == 2
    assert [json.loads(body)["event"] for _, body in receiver.requests] == ["opened", "closed"]


@pytest.mark.django_db
def test_the_same_thing_again_at_once_is_not_told(receiver: Receiver, settings: Any) -> None:
    first = incident()
    told(first)
    notifications.send_due()
    Incident.objects.update(closed_at=timezone.now())
    again = told(incident())
    assert again.status == "suppressed"
    notifications.enqueue(again.incident, "closed")
    assert not Notification.objects.filter(event="closed").exists()
    assert told(incident("w-other")).status == "pending", "another subject is another thing"
    settings.NOTIFY_QUIET_SECONDS = 0
    Incident.objects.update(closed_at=timezone.now())
    assert told(incident()).status == "pending"


@pytest.mark.django_db
def test_too_many_are_suppressed_and_the_next_one_says_how_many(receiver: Receiver, settings: Any) -> None:
    settings.NOTIFY_MAX_PER_HOUR = 2
    rows = [told(incident(f"w-{number}")) for number in range(5)]
    assert notifications.send_due() == 2
    for row in rows:
        row.refresh_from_db()
    assert [row.status for row in rows] == ["sent", "sent", "suppressed", "suppressed", "suppressed"]
    Notification.objects.filter(status="sent").update(sent_at=timezone.now() - timedelta(hours=2))
    told(incident("w-later"))
    assert notifications.send_due() == 1
    assert json.loads(receiver.requests[-1][1])["suppressed"] == 3


@pytest.mark.django_db(transaction=True)
def test_two_senders_send_each_message_once(receiver: Receiver) -> None:
    for number in range(12):
        told(incident(f"w-{number}"))

    def send(_: int) -> int:
        try:
            return notifications.send_due()
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(send, range(3))) == 12
    assert len({headers["Idempotency-Key"] for headers, _ in receiver.requests}) == len(receiver.requests) == 12


@pytest.mark.django_db(transaction=True)
def test_a_receiver_that_hangs_holds_no_transaction(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "TIMEOUT_SECONDS", 1.0)
    receiver.hangs.set()
    message = told(incident())

    def send() -> None:
        notifications.send_due()
        connection.close()

    sender = threading.Thread(target=send)
    sender.start()
    deadline = time.monotonic() + 10
    while not receiver.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid()"
            " AND datname = current_database() AND backend_type = 'client backend'"
        )
        assert cursor.fetchone()[0] == 0
        cursor.execute("SELECT 1 FROM offsets_notification FOR UPDATE NOWAIT")
    sender.join(10)
    message.refresh_from_db()
    assert message.status == "pending"
    assert "Timeout" in message.last_error


@pytest.mark.django_db
def test_nothing_secret_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    receiver.statuses = [500]
    told(incident())
    notifications.send_due()
    make_due()
    notifications.send_due()
    assert len(receiver.requests) == 2
    assert SECRET not in caplog.text
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("offsets"))
    assert "hidden" not in ours


@pytest.mark.django_db
def test_an_e_mail_reaches_a_real_server(settings: Any) -> None:
    received = []

    class Keep:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            received.append(envelope)
            return "250 kept"

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(Keep(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", port, 5
        settings.ALERT_EMAIL_TO, settings.ALERT_EMAIL_FROM = ["night@example.org"], "counts@example.org"
        told(incident("w-1\r\nBcc: everybody@example.org"))
        assert notifications.send_due() == 1
    finally:
        controller.stop()
    (envelope,) = received
    assert envelope.rcpt_tos == ["night@example.org"]
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert message["Subject"] == f"[{GROUP}] CRITICAL worker_dead w-1 Bcc: everybody@example.org: opened"
    assert message["Bcc"] is None
    assert "sends no heartbeat" in message.get_content()


@pytest.mark.parametrize(
    ("url", "secret", "to", "host", "word"),
    [
        ("https://example.org/x", "", [], "", "ALERT_WEBHOOK_SECRET"),
        ("ftp://example.org/x", "s", [], "", "http or https"),
        ("http:///x", "s", [], "", "http or https"),
        ("", "", ["a@example.org"], "", "EMAIL_HOST"),
    ],
)
def test_a_setup_that_cannot_send_is_refused(url: str, secret: str, to: list[str], host: str, word: str) -> None:
    assert word in notifications.refused_setup(url, secret, to, host)


def test_a_setup_that_can_is_not() -> None:
    assert notifications.refused_setup("https://example.org/x", "s", ["a@example.org"], "mail") == ""
    assert notifications.refused_setup("", "", [], "") == ""


def test_pauses_double_up_to_a_quarter_of_an_hour() -> None:
    assert [notifications.pause_seconds(n, 0.0) for n in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert notifications.pause_seconds(50, 0.0) == 900.0
    assert 2.0 <= notifications.pause_seconds(1, 0.99) < 2.5
