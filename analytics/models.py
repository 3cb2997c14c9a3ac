"""Metric rows, keyed by checkpoint first. Written by `analytics.metrics_store` alone."""

from django.db import models

from offsets.models import DatabaseTime, PartitionCheckpoint


class Dimension(models.IntegerChoices):
    """A dimension of the counts. Stored as a small integer; settings and checkpoints use the name."""

    CONTENT = 1, "content"
    USER = 2, "user"


class Counts(models.Model):
    views = models.BigIntegerField(default=0)
    likes = models.BigIntegerField(default=0)
    comments = models.BigIntegerField(default=0)
    shares = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class EntityCounts(Counts):
    """Counts of one entity in one checkpoint."""

    # No foreign key in the database: its check would slow down the hot path, and retired checkpoints are purged later.
    checkpoint = models.ForeignKey(
        PartitionCheckpoint,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    dimension = models.SmallIntegerField(choices=Dimension.choices)
    entity_id = models.BigIntegerField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.get_dimension_display()} {self.entity_id}"


class EngagementDelta(EntityCounts):
    """Counts of one commit, not yet folded into their totals. Append-only until folded; no index but the key."""


class EngagementTotal(EntityCounts):
    """Folded counts of one entity in one checkpoint. An entity's total is the sum over checkpoints, plus deltas."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["checkpoint", "dimension", "entity_id"], name="engagement_total_once")
        ]
        indexes = [models.Index(fields=["dimension", "entity_id"], name="engagement_total_entity")]


class EngagementMinute(Counts):
    """Counts of one checkpoint in one minute of event time. The carry row (epoch 0) holds purged minutes (I4)."""

    checkpoint = models.ForeignKey(
        PartitionCheckpoint,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    minute = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["checkpoint", "minute"], name="engagement_minute_once")]
        indexes = [models.Index(fields=["minute"], name="engagement_minute_time")]

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}"


class ImplausibleTime(models.Model):
    """How many counted events of one checkpoint have a time, or a record with a time, that cannot be right."""

    checkpoint = models.ForeignKey(
        PartitionCheckpoint,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    #: event (its `occurred_at`) or record (Kafka's timestamp).
    source = models.CharField(max_length=10)
    #: The likely unit: seconds, microseconds, nanoseconds or unknown.
    unit = models.CharField(max_length=15)
    events = models.BigIntegerField()
    first_seen_at = models.DateTimeField(db_default=DatabaseTime())
    last_seen_at = models.DateTimeField(db_default=DatabaseTime())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["checkpoint", "source", "unit"], name="implausible_time_once")]

    def __str__(self) -> str:
        return f"{self.events} {self.source} {self.unit}"
