"""Incidents, their timelines, and the alerts about them."""

from django.db import models
from django.db.models import Q

from offsets.models.base import DatabaseTime
from offsets.models.checkpoints import PartitionCheckpoint


class Incident(models.Model):
    """A problem, from the first bad tick until it is resolved. Written by `offsets.monitoring.incidents`."""

    class Severity(models.TextChoices):
        WARNING = "warning"
        CRITICAL = "critical"

    group_id = models.CharField(max_length=255)
    kind = models.CharField(max_length=30)
    #: A partition, a worker, or a service.
    subject = models.CharField(max_length=300)
    severity = models.CharField(max_length=10, choices=Severity.choices, default=Severity.CRITICAL)
    checkpoint = models.ForeignKey(
        PartitionCheckpoint, null=True, blank=True, on_delete=models.SET_NULL, related_name="incidents"
    )
    worker_id = models.CharField(max_length=40, blank=True, default="")
    #: The cause in one sentence, and what to do.
    summary = models.TextField()
    #: [{"topic", "partition", "kind", "start", "end"}, …]
    ranges = models.JSONField(default=list)
    #: A stack trace or an error message.
    evidence = models.TextField(blank=True, default="")
    #: When it began, by the database's clock: the last heartbeat, the last commit.
    began_at = models.DateTimeField()
    opened_at = models.DateTimeField(db_default=DatabaseTime())
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["group_id", "kind", "subject"],
                condition=Q(closed_at__isnull=True),
                name="incident_open_once",
            )
        ]
        indexes = [models.Index(fields=["group_id", "-id"], name="incident_recent")]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"


class IncidentEvent(models.Model):
    """One step in an incident's timeline. Written by `offsets.monitoring.incidents`."""

    class Source(models.TextChoices):
        MANAGER = "manager"
        OPERATOR = "operator"

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(db_default=DatabaseTime())
    source = models.CharField(max_length=10, choices=Source.choices, default=Source.MANAGER)
    text = models.TextField()

    def __str__(self) -> str:
        return self.text


class Notification(models.Model):
    """A message about an incident, to be sent once to one channel. Written by `offsets.monitoring.notifications`."""

    class Status(models.TextChoices):
        PENDING = "pending"
        SENT = "sent"
        FAILED = "failed"
        #: Not sent, because the limit was reached: counted in the next one.
        SUPPRESSED = "suppressed"

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="notifications")
    #: "opened" or "closed".
    event = models.CharField(max_length=10)
    #: "webhook" or "email".
    channel = models.CharField(max_length=10)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    attempts = models.IntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=DatabaseTime())
    sent_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=DatabaseTime())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["incident", "event", "channel"], name="notification_once"),
        ]
        indexes = [models.Index(fields=["next_attempt_at"], condition=Q(status="pending"), name="notification_due")]

    def __str__(self) -> str:
        return f"{self.channel}: {self.incident_id} {self.event}"
