"""Replays and their ranges."""

from django.db import models
from django.db.models import F, Q

from offsets.models.audit import OperatorAction
from offsets.models.base import DatabaseTime
from offsets.models.checkpoints import PartitionCheckpoint


class Replay(models.Model):
    """Ranges that are read again beside live consumption, to count what was not counted.

    Written by `offsets.replays.rows`.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    group_id = models.CharField(max_length=255)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    #: Started by the recovery manager, for failed ranges that are due.
    automatic = models.BooleanField(default=False)
    username = models.CharField(max_length=150)
    reason = models.TextField()
    action = models.ForeignKey(OperatorAction, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    #: Throttle; null: as fast as it goes.
    records_per_second = models.IntegerField(null=True, blank=True)
    cancel_requested = models.BooleanField(default=False)
    #: How often it was started: more than once after a crash.
    starts = models.IntegerField(default=0)
    total_offsets = models.BigIntegerField(default=0)
    done_offsets = models.BigIntegerField(default=0)
    counted = models.BigIntegerField(default=0)
    #: Records read, and left out because the ledger has them.
    deduplicated = models.BigIntegerField(default=0)
    dead_letters = models.BigIntegerField(default=0)
    #: Offsets that Kafka has deleted.
    expired_offsets = models.BigIntegerField(default=0)
    detail = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=DatabaseTime())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["group_id", "-id"], name="replay_recent")]

    def __str__(self) -> str:
        return f"replay {self.pk} ({self.status})"


class ReplayRange(models.Model):
    """Offsets `[start, end)` of a replay; `position` is how far it has come. Written by `offsets.replays.rows`."""

    class State(models.TextChoices):
        WAITING = "waiting"
        DONE = "done"
        #: Kafka has deleted some of it.
        EXPIRED = "expired"
        #: It cannot be applied (any more): the detail says why.
        REFUSED = "refused"

    replay = models.ForeignKey(Replay, on_delete=models.CASCADE, related_name="ranges")
    checkpoint = models.ForeignKey(PartitionCheckpoint, on_delete=models.CASCADE, related_name="+")
    start = models.BigIntegerField()
    end = models.BigIntegerField()
    position = models.BigIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    detail = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(start__lt=F("end")) & Q(position__gte=F("start")) & Q(position__lte=F("end")),
                name="replay_range_ordered",
            )
        ]

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"
