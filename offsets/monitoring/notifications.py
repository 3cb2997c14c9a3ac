"""Alerts about incidents: a signed webhook and e-mail, once each and rate limited; the only writer of its rows.

A message is a row, written with the incident and sent later by `send_due`: no network call in a transaction, and
nothing is lost with a process that dies. Delivery is at least once; `Idempotency-Key` lets a receiver drop a repeat.
"""

import hashlib
import hmac
import json
import logging
from datetime import datetime, timedelta
from random import random
from typing import Any
from urllib.parse import urlsplit

import urllib3
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection
from django.db.models import Value
from urllib3.exceptions import HTTPError

from offsets import journal
from offsets.models import DatabaseTime, Incident, Notification
from offsets.monitoring.webhook_pools import pool_for
from offsets.text import describe_error

logger = logging.getLogger(__name__)

WEBHOOK = "webhook"
EMAIL = "email"
TIMEOUT_SECONDS = 5.0
#: How long a claimed message belongs to its sender before another one takes it: longer than any sending takes.
CLAIM_SECONDS = 60
#: The first pause after a failure; each one doubles it.
FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 900.0
#: Responses that a retry does not change.
_PERMANENT = frozenset(range(400, 500)) - {408, 425, 429}


class SendError(Exception):
    """A message was not accepted; `permanent`: a retry is pointless."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


def channels() -> list[str]:
    """The configured channels."""
    found = [WEBHOOK] if settings.ALERT_WEBHOOK_URL else []
    return found + ([EMAIL] if settings.ALERT_EMAIL_TO else [])


def refused_setup(
    url: str, secret: str, email_to: list[str], email_host: str, *, starttls: bool = False, implicit_tls: bool = False
) -> str:
    """Why this configuration cannot send alerts; empty when it can. Pure."""
    if url:
        try:
            parts = urlsplit(url)
        except ValueError:
            return "ALERT_WEBHOOK_URL is not a valid URL."
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return "ALERT_WEBHOOK_URL must be an http or https URL."
        if not secret:
            return "ALERT_WEBHOOK_URL requires ALERT_WEBHOOK_SECRET, which signs the messages."
    if starttls and implicit_tls:
        return "EMAIL_USE_TLS (STARTTLS) and EMAIL_USE_SSL (TLS from the start) exclude each other. Set one of them."
    if email_to and not email_host:
        return "ALERT_EMAIL_TO requires EMAIL_HOST, the SMTP server."
    return ""


# --- Queueing -------------------------------------------------------------------------------------


def enqueue(incident: Incident, event: str, *, past: bool = False) -> None:
    """Queue the message that the incident was `opened` or `closed`, in the transaction that does it.

    Once for each channel. `closed` goes to the channels that `opened` went to. An incident that reopens within
    NOTIFY_QUIET_SECONDS of the last message about the same cause is suppressed, and so is one that lasts no longer
    than NOTIFY_AFTER_SECONDS: it heals before anybody could do something. A `past` one was over before it could be
    written, so it counts from when it began.
    """
    if event == "closed":
        _release_or_suppress(incident, incident.began_at if past else incident.opened_at)
    for channel in channels():
        with connection.cursor() as cursor:
            if event == "opened":
                cursor.execute(
                    "INSERT INTO offsets_notification (incident_id, event, channel, status, attempts, next_attempt_at,"
                    " last_error, created_at) SELECT %(incident)s, 'opened', %(channel)s, CASE WHEN EXISTS ("
                    "SELECT 1 FROM offsets_notification n JOIN offsets_incident i ON i.id = n.incident_id"
                    " WHERE n.channel = %(channel)s AND n.event = 'opened' AND n.status IN ('sent', 'pending')"
                    " AND i.group_id = %(group)s AND i.kind = %(kind)s AND i.subject = %(subject)s"
                    " AND i.id <> %(incident)s"
                    " AND coalesce(n.sent_at, n.created_at)"
                    " BETWEEN clock_timestamp() - make_interval(secs => %(quiet)s) AND clock_timestamp())"
                    " THEN 'suppressed' ELSE 'pending' END, 0,"
                    " clock_timestamp() + make_interval(secs => %(after)s), '', clock_timestamp()"
                    " ON CONFLICT (incident_id, event, channel) DO NOTHING",
                    {
                        "incident": incident.pk,
                        "channel": channel,
                        "group": incident.group_id,
                        "kind": incident.kind,
                        "subject": incident.subject,
                        "quiet": settings.NOTIFY_QUIET_SECONDS,
                        "after": settings.NOTIFY_AFTER_SECONDS,
                    },
                )
            else:
                cursor.execute(
                    "INSERT INTO offsets_notification (incident_id, event, channel, status, attempts, next_attempt_at,"
                    " last_error, created_at) SELECT incident_id, %s, channel, 'pending', 0, clock_timestamp(), '',"
                    " clock_timestamp() FROM offsets_notification WHERE incident_id = %s AND channel = %s"
                    " AND event = 'opened' AND status <> 'suppressed'"
                    " ON CONFLICT (incident_id, event, channel) DO NOTHING",
                    [event, incident.pk, channel],
                )


def _release_or_suppress(incident: Incident, since: datetime) -> None:
    """What has not been sent when the incident closes goes out now, or never."""
    unsent = Notification.objects.filter(incident=incident, event="opened", status=Notification.Status.PENDING)
    unsent = unsent.filter(attempts=0)
    if incident.closed_at and (incident.closed_at - since).total_seconds() < settings.NOTIFY_AFTER_SECONDS:
        unsent.update(status=Notification.Status.SUPPRESSED)
    else:
        unsent.update(next_attempt_at=DatabaseTime())


# --- Sending --------------------------------------------------------------------------------------


def send_due(limit: int = 20) -> int:
    """Send what is due, oldest first. Returns how many were accepted by their receivers."""
    return sum(_send(Notification.objects.select_related("incident").get(pk=pk)) for pk in _claim(limit))


def _claim(limit: int) -> list[int]:
    """Take messages for this process, in a statement of its own: two senders never take the same one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_notification SET attempts = attempts + 1,"
            " next_attempt_at = clock_timestamp() + make_interval(secs => %s) WHERE id IN ("
            "SELECT id FROM offsets_notification WHERE status = 'pending' AND (next_attempt_at <= clock_timestamp()"
            # Further away than any pause: from before the clock was set back.
            " OR next_attempt_at > clock_timestamp() + make_interval(secs => %s))"
            " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id",
            [CLAIM_SECONDS, 2 * LONGEST_PAUSE_SECONDS, limit],
        )
        return sorted(row[0] for row in cursor.fetchall())


def _send(message: Notification) -> bool:
    if _too_many(message):
        Notification.objects.filter(pk=message.pk).update(status=Notification.Status.SUPPRESSED)
        return False
    suppressed = _suppressed_since_last(message)
    try:
        _SENDERS[message.channel](message, suppressed)
    except SendError as error:
        _failed(message, str(error), permanent=error.permanent)
        return False
    Notification.objects.filter(pk=message.pk).update(
        status=Notification.Status.SENT, sent_at=DatabaseTime(), last_error=""
    )
    return True


def _too_many(message: Notification) -> bool:
    """Whether the channel has reached NOTIFY_MAX_PER_HOUR."""
    sent = Notification.objects.filter(
        channel=message.channel, incident__group_id=message.incident.group_id, status=Notification.Status.SENT
    )
    hour = sent.filter(sent_at__range=(DatabaseTime() - Value(timedelta(hours=1)), DatabaseTime()))
    return hour.count() >= settings.NOTIFY_MAX_PER_HOUR


def _suppressed_since_last(message: Notification) -> int:
    """How many were suppressed since the last one that was sent; the next message says so."""
    rows = Notification.objects.filter(channel=message.channel, incident__group_id=message.incident.group_id)
    last = rows.filter(status=Notification.Status.SENT).order_by("-pk").values_list("pk", flat=True).first()
    return rows.filter(status=Notification.Status.SUPPRESSED, pk__gt=last or 0, pk__lt=message.pk).count()


def _failed(message: Notification, error: str, *, permanent: bool) -> None:
    """Schedule a retry, or give up and record that in the journal."""
    gave_up = permanent or message.attempts >= settings.NOTIFY_MAX_ATTEMPTS
    logger.warning("Sending the %s for incident %d failed: %s", message.channel, message.incident_id, error)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_notification SET status = %s, last_error = %s,"
            " next_attempt_at = clock_timestamp() + make_interval(secs => %s) WHERE id = %s",
            [
                Notification.Status.FAILED if gave_up else Notification.Status.PENDING,
                error[:2000],
                pause_seconds(message.attempts, random()),  # noqa: S311 - a spread, no secret
                message.pk,
            ],
        )
    if gave_up:
        journal.record(
            message.incident.group_id,
            "alert_failed",
            f"The {message.channel} for incident {message.incident_id} was not delivered after {message.attempts} "
            f"attempts: {error}",
            level="error",
        )


def pause_seconds(attempts: int, jitter: float) -> float:
    """Doubling with each attempt, at most a quarter of an hour; `jitter` in [0, 1) adds up to a quarter. Pure."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** max(0, attempts - 1)) * (1 + jitter / 4)


# --- Webhook --------------------------------------------------------------------------------------


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What `X-StreamSocial-Signature` holds: HMAC-SHA256 over the timestamp, a dot and the body. Pure."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def payload(message: Notification, suppressed: int, now: str) -> dict[str, Any]:
    incident = message.incident
    return {
        "id": message.pk,
        "event": message.event,
        "sent_at": now,
        "group": incident.group_id,
        "incident": {
            "id": incident.pk,
            "kind": incident.kind,
            "subject": incident.subject,
            "severity": incident.severity,
            "summary": incident.summary,
            "ranges": incident.ranges,
            "began_at": incident.began_at.isoformat(),
            "opened_at": incident.opened_at.isoformat(),
            "closed_at": incident.closed_at.isoformat() if incident.closed_at else None,
        },
        "suppressed": suppressed,
    }


def _database_now() -> tuple[str, str]:
    """The moment as ISO 8601 and as whole seconds since the epoch."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp(), extract(epoch FROM clock_timestamp())::bigint")
        moment, seconds = cursor.fetchone()
    return moment.isoformat(), str(seconds)


def _post(message: Notification, suppressed: int) -> None:
    now, timestamp = _database_now()
    body = json.dumps(payload(message, suppressed, now)).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "streamsocial-engagement-analytics",
        "Idempotency-Key": f"streamsocial-{message.pk}",
        "X-StreamSocial-Timestamp": timestamp,
        "X-StreamSocial-Signature": signature(settings.ALERT_WEBHOOK_SECRET, timestamp, body),
    }
    timeout = urllib3.Timeout(connect=TIMEOUT_SECONDS, read=TIMEOUT_SECONDS)
    try:
        with pool_for(settings.ALERT_WEBHOOK_URL) as pool:
            answer = pool.request(
                "POST",
                settings.ALERT_WEBHOOK_URL,
                body=body,
                headers=headers,
                timeout=timeout,
                redirect=False,
                # The body is not read: only the status matters, and it could be endless.
                preload_content=False,
            )
            status = answer.status
            answer.release_conn()
    except (HTTPError, OSError) as error:
        # Not the error's own text: it contains the URL, which may contain a token.
        raise SendError(f"{type(error).__name__} from {_host()}") from error
    if not 200 <= status < 300:
        raise SendError(f"HTTP status {status} from {_host()}", permanent=status in _PERMANENT or 300 <= status < 400)


def _host() -> str:
    return urlsplit(settings.ALERT_WEBHOOK_URL).hostname or "nowhere"


# --- E-mail ---------------------------------------------------------------------------------------


def subject(message: Notification) -> str:
    """One line, whatever the incident's text contains."""
    incident = message.incident
    text = f"[{incident.group_id}] {incident.severity.upper()} {incident.kind} {incident.subject}: {message.event}"
    return " ".join(text.split())[:200]


def text_of(message: Notification, suppressed: int) -> str:
    incident = message.incident
    lines = [
        incident.summary,
        "",
        f"Incident {incident.pk} of group {incident.group_id}",
        f"Began:    {incident.began_at.isoformat()}",
        f"Detected: {incident.opened_at.isoformat()}",
    ]
    if incident.closed_at:
        lines.append(f"Closed:   {incident.closed_at.isoformat()}")
    lines += [
        f"{affected['topic']}-{affected['partition']} [{affected['start']}, {affected['end']}) {affected['kind']}"
        for affected in incident.ranges
    ]
    if suppressed:
        lines += ["", f"{suppressed} more messages were suppressed since the last one: there were too many."]
    return "\n".join(lines) + "\n"


def _mail(message: Notification, suppressed: int) -> None:
    email = EmailMessage(
        subject(message),
        text_of(message, suppressed),
        settings.ALERT_EMAIL_FROM,
        settings.ALERT_EMAIL_TO,
        headers={"X-StreamSocial-Notification": str(message.pk)},
    )
    try:
        email.send()
    except OSError as error:  # smtplib's errors are, too
        raise SendError(describe_error(error)) from error
    except ValueError as error:  # an invalid address or header; a retry does not help
        raise SendError(describe_error(error), permanent=True) from error


_SENDERS = {WEBHOOK: _post, EMAIL: _mail}
