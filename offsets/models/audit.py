"""Actions of operators, and the journal."""

from django.db import models

from offsets.models.base import DatabaseTime
from offsets.models.checkpoints import PartitionCheckpoint


class OperatorAction(models.Model):
    """The audit row of an action that was applied or refused. Written by `offsets.actions.audit`."""

    class Outcome(models.TextChoices):
        APPLIED = "applied"
        REFUSED = "refused"

    kind = models.CharField(max_length=20)
    checkpoint = models.ForeignKey(
        PartitionCheckpoint,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="actions",
    )
    #: Names, not keys: the row must outlive users and partitions.
    username = models.CharField(max_length=150)
    target = models.CharField(max_length=600)
    source = models.CharField(max_length=10)
    #: Shared by the actions that were applied together, in one transaction.
    change_id = models.UUIDField(null=True, blank=True, db_index=True)
    undoes = models.OneToOneField("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="undone_by")
    reason = models.TextField()
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    detail = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=DatabaseTime(), db_index=True)

    def __str__(self) -> str:
        return f"{self.kind} {self.target} ({self.outcome})"


class JournalEntry(models.Model):
    """An event of a partition or a worker: what the page shows as its log.

    Written by `offsets.journal`. Kept for a week.
    """

    class Level(models.TextChoices):
        INFO = "info"
        WARNING = "warning"
        ERROR = "error"

    group_id = models.CharField(max_length=255)
    level = models.CharField(max_length=10, choices=Level.choices, default=Level.INFO)
    #: claimed, released, fenced, halted, paused, resumed, worker_started, worker_stopped, worker_dead …
    kind = models.CharField(max_length=30)
    worker_id = models.CharField(max_length=40, blank=True, default="")
    topic = models.CharField(max_length=249, blank=True, default="")
    partition = models.IntegerField(null=True, blank=True)
    message = models.TextField()
    created_at = models.DateTimeField(db_default=DatabaseTime(), db_index=True)

    class Meta:
        verbose_name_plural = "journal entries"
        indexes = [models.Index(fields=["group_id", "-id"], name="journal_recent")]

    def __str__(self) -> str:
        return self.message
