"""What was last measured or checked."""

from django.db import models

from offsets.models.base import DatabaseTime
from offsets.models.checkpoints import PartitionCheckpoint


class LagSample(models.Model):
    """Log bounds and next offset of one partition at one moment. Written by `offsets.monitoring.lag_samples`.

    One a second for five minutes, then the first of each minute for a day.
    """

    checkpoint = models.ForeignKey(
        PartitionCheckpoint, on_delete=models.CASCADE, related_name="lag_samples", db_index=False
    )
    sampled_at = models.DateTimeField(db_default=DatabaseTime())
    log_start_offset = models.BigIntegerField()
    #: What a read_committed reader can reach.
    log_end_offset = models.BigIntegerField()
    #: The end with the records of open transactions; null where it was not asked, because the log end moved.
    high_watermark = models.BigIntegerField(null=True, blank=True)
    next_offset = models.BigIntegerField()

    class Meta:
        indexes = [
            models.Index(fields=["checkpoint", "-sampled_at"], name="lag_sample_recent"),
            models.Index(fields=["sampled_at"], name="lag_sample_age"),
        ]

    def __str__(self) -> str:
        return f"{self.checkpoint_id} at {self.sampled_at:%H:%M:%S}"


class StoreOffset(models.Model):
    """What an offset store other than the ledger held for a partition when it was last asked. Written by
    `offsets.stores.drift`.
    """

    checkpoint = models.ForeignKey(PartitionCheckpoint, on_delete=models.CASCADE, related_name="store_offsets")
    store = models.CharField(max_length=20)
    #: None when the store held nothing for the partition.
    next_offset = models.BigIntegerField(null=True, blank=True)
    epoch = models.BigIntegerField(null=True, blank=True)
    #: The ledger's next offset, read just before; drift is the difference.
    ledger_next_offset = models.BigIntegerField()
    seen_at = models.DateTimeField(db_default=DatabaseTime())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["checkpoint", "store"], name="store_offset_once")]

    def __str__(self) -> str:
        return f"{self.store}: {self.next_offset}"


class InvariantReport(models.Model):
    """The state of I1 to I6 for a group, checked in turn. Written by `offsets.monitoring.invariant_turns`."""

    group_id = models.CharField(primary_key=True, max_length=255)
    ok = models.BooleanField()
    #: {"I1": {"ok": bool, "detail": str}, …}
    invariants = models.JSONField()
    duration_ms = models.IntegerField()
    checked_at = models.DateTimeField(db_default=DatabaseTime())
    #: Every checkpoint was checked in full after this moment; null before that.
    complete_since = models.DateTimeField(null=True, blank=True)
    #: How far the round of checkpoints has come, and what each one broke when it was last checked.
    progress = models.JSONField(db_default={})

    def __str__(self) -> str:
        return f"{self.group_id}: {'ok' if self.ok else 'violated'}"


class PartitionHealth(models.Model):
    """The last verdict of the recovery manager on a partition. Written by `offsets.recovery.assessments`."""

    checkpoint = models.OneToOneField(
        PartitionCheckpoint, on_delete=models.CASCADE, primary_key=True, related_name="health"
    )
    status = models.CharField(max_length=20)
    detail = models.TextField()
    #: The detail without its numbers: the page fills in those of its own snapshot. See `offsets.monitoring.numbers`.
    template = models.TextField(default="", blank=True)
    #: Since when it has this status.
    since = models.DateTimeField(db_default=DatabaseTime())
    #: Until it has caught up, at the rate of the last minute; null where it does not.
    eta_seconds = models.FloatField(null=True, blank=True)
    assessed_at = models.DateTimeField(db_default=DatabaseTime())

    class Meta:
        verbose_name_plural = "partition health"

    def __str__(self) -> str:
        return f"{self.checkpoint_id}: {self.status}"
