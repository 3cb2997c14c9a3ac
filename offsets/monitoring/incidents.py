"""Incidents: opened at the first bad tick, closed when resolved; the only writer of their rows."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Value

from offsets import journal
from offsets.models import DatabaseTime, Incident, IncidentEvent
from offsets.monitoring import notifications
from offsets.monitoring.findings import Finding
from offsets.text import duration

#: Ranges that an incident names; the ledger has the rest.
MAX_RANGES = 100


def open_incidents(group_id: str) -> list[Incident]:
    return list(Incident.objects.filter(group_id=group_id, closed_at__isnull=True).order_by("pk"))


def reconcile(group_id: str, found: Sequence[Finding]) -> tuple[list[Incident], list[Incident]]:
    """Open incidents for new findings, update ongoing ones, close resolved ones. In the manager's transaction.

    Returns the opened and the closed ones.
    """
    known = {(incident.kind, incident.subject): incident for incident in open_incidents(group_id)}
    opened = [_open(group_id, finding) for finding in found if finding.key not in known]
    for finding in found:
        if finding.key in known:
            _update(known[finding.key], finding)
    wrong = {finding.key for finding in found}
    closed = [incident for key, incident in known.items() if key not in wrong]
    for incident in closed:
        _close(incident)
    return opened, closed


def _open(group_id: str, finding: Finding) -> Incident:
    incident = Incident.objects.create(
        group_id=group_id,
        kind=finding.kind,
        subject=finding.subject[:300],
        severity=_severity(finding),
        checkpoint_id=finding.checkpoint_id,
        worker_id=finding.worker_id,
        summary=_text(finding.summary),
        ranges=[affected.as_json() for affected in finding.ranges[:MAX_RANGES]],
        evidence=_text(finding.evidence),
        began_at=finding.began_at,
    )
    incident.refresh_from_db()
    note(incident, f"Detected: {incident.summary}")
    _announce(incident, "opened")
    return incident


def _update(incident: Incident, finding: Finding) -> None:
    """Update the cause. Evidence is kept once it was seen: a stack trace must outlive its thread."""
    severity, ranges = _severity(finding), [affected.as_json() for affected in finding.ranges[:MAX_RANGES]]
    summary = _text(finding.summary)
    evidence = _text(finding.evidence) or incident.evidence
    if (incident.severity, incident.ranges, incident.summary, incident.evidence) == (
        *(severity, ranges, summary, evidence),
    ):
        return
    if severity != incident.severity:
        note(incident, f"Now {severity}: {summary}")
    Incident.objects.filter(pk=incident.pk).update(severity=severity, ranges=ranges, summary=summary, evidence=evidence)


def _close(incident: Incident) -> None:
    Incident.objects.filter(pk=incident.pk, closed_at__isnull=True).update(closed_at=DatabaseTime())
    incident.refresh_from_db()
    note(incident, f"Recovered after {duration(seconds_to_recover(incident) or 0.0)}.")
    _announce(incident, "closed")


def covers(group_id: str, finding: Finding) -> bool:
    """Whether a closed incident of this kind lasted until after the finding began."""
    closed = Incident.objects.filter(group_id=group_id, kind=finding.kind, subject=finding.subject)
    return closed.filter(closed_at__gt=finding.began_at).exists()


def record_past(
    group_id: str, finding: Finding, opened_at: datetime, *, text: str, closed_at: datetime | None = None
) -> Incident:
    """Record what could not be written while it lasted: an unavailable database, a leader that died."""
    incident = _open(group_id, finding)
    Incident.objects.filter(pk=incident.pk).update(opened_at=opened_at)
    note(incident, text)
    Incident.objects.filter(pk=incident.pk).update(closed_at=closed_at or DatabaseTime())
    incident.refresh_from_db()
    _announce(incident, "closed")
    return incident


def note(incident: Incident, text: str, source: str = IncidentEvent.Source.MANAGER) -> None:
    """Add a step to the timeline."""
    IncidentEvent.objects.create(incident=incident, text=_text(text), source=source)


def note_action(
    group_id: str, text: str, *, checkpoint_ids: Iterable[int] = (), worker_id: str = "", automatic: bool = False
) -> None:
    """Add an action of an operator, or of the manager itself, to the open incidents that it concerns."""
    wanted = set(checkpoint_ids)
    source = IncidentEvent.Source.MANAGER if automatic else IncidentEvent.Source.OPERATOR
    for incident in open_incidents(group_id):
        if incident.checkpoint_id in wanted or (worker_id and incident.worker_id == worker_id):
            note(incident, text, source)


def purge(days: int) -> int:
    """Delete incidents, with their notifications, that were closed more than `days` ago. Returns how many."""
    old = Incident.objects.filter(closed_at__lt=DatabaseTime() - Value(timedelta(days=days)))
    return int(old.delete()[1].get("offsets.Incident", 0))


def _announce(incident: Incident, event: str) -> None:
    level = "error" if event == "opened" and incident.severity == Incident.Severity.CRITICAL else "warning"
    journal.record(
        incident.group_id,
        f"incident_{event}",
        f"Incident {incident.pk} {event} ({incident.kind} {incident.subject}): {incident.summary}",
        level="info" if event == "closed" else level,
        worker_id=incident.worker_id,
    )
    notifications.enqueue(incident, event)


def _severity(finding: Finding) -> str:
    return Incident.Severity.CRITICAL if finding.critical else Incident.Severity.WARNING


def _text(text: str) -> str:
    """PostgreSQL text refuses NUL, and an error may quote a record."""
    return text.replace("\x00", "\\0")


def seconds_to_detect(incident: Incident) -> float:
    return max(0.0, (incident.opened_at - incident.began_at).total_seconds())


def seconds_to_recover(incident: Incident) -> float | None:
    return None if incident.closed_at is None else (incident.closed_at - incident.opened_at).total_seconds()


def as_json(incident: Incident) -> dict[str, Any]:
    """A whole incident: its ranges, evidence, timeline and notifications."""
    return {
        "id": incident.pk,
        "kind": incident.kind,
        "subject": incident.subject,
        "severity": incident.severity,
        "summary": incident.summary,
        "ranges": incident.ranges,
        "evidence": incident.evidence,
        "began_at": incident.began_at,
        "opened_at": incident.opened_at,
        "closed_at": incident.closed_at,
        "detect_seconds": seconds_to_detect(incident),
        "recover_seconds": seconds_to_recover(incident),
        "timeline": list(incident.events.order_by("pk").values("at", "source", "text")),
        "notifications": list(incident.notifications.order_by("pk").values("channel", "event", "status", "sent_at")),
    }
