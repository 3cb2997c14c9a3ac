"""The ledger: where each group stands in each partition, and the outcome of every offset."""

from typing import Self

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, BigIntegerRangeField, RangeOperators
from django.db import models
from django.db.models import F, Func, Q, Value

from offsets.models.base import DatabaseTime, choices
from offsets.models.processes import Worker
from offsets.types import RETIRED, DeadLetterStatus, DesiredState, EpochCause, HaltReason, RangeKind, Semantics


class CheckpointQuerySet(models.QuerySet["PartitionCheckpoint"]):
    def live(self, group_id: str) -> Self:
        """The checkpoints of a group that are not retired: one a partition."""
        return self.filter(group_id=group_id, retired_at__isnull=True)

    def begun(self, group_id: str) -> Self:
        """The live checkpoints, and those that an operator retired: one a partition, too."""
        return self.filter(Q(retired_at__isnull=True) | Q(retired_reason=RETIRED), group_id=group_id)


class PartitionCheckpoint(models.Model):
    """The next offset of one group in one partition, its owner, and its epoch.

    Written by `offsets.ledger` alone. Invariants and rules: docs/explanation/architecture.md.
    """

    group_id = models.CharField(max_length=255)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    topic_id = models.CharField(max_length=64)
    baseline_offset = models.BigIntegerField()
    #: earliest, latest, group, grown or rebuild; `earliest?` and `latest?` while the offset waits for a leader.
    baseline_kind = models.CharField(max_length=10)
    next_offset = models.BigIntegerField()
    #: Exceeds `next_offset` only after a backward seek.
    ledger_end = models.BigIntegerField()
    epoch = models.BigIntegerField(default=0)
    epoch_cause = models.CharField(max_length=10, choices=choices(EpochCause), default=EpochCause.CREATED)
    owner = models.ForeignKey(Worker, null=True, blank=True, on_delete=models.SET_NULL, related_name="checkpoints")
    claimed_at = models.DateTimeField(null=True, blank=True)
    desired_state = models.CharField(max_length=10, choices=choices(DesiredState), default=DesiredState.RUNNING)
    halt_reason = models.CharField(max_length=20, choices=choices(HaltReason), blank=True, default=HaltReason.NONE)
    halt_detail = models.TextField(blank=True, default="")
    halted_at = models.DateTimeField(null=True, blank=True)
    #: The last committed transaction: by it a worker learns the outcome of a COMMIT whose answer was lost.
    last_batch_id = models.UUIDField(null=True, blank=True)
    committed_at = models.DateTimeField(null=True, blank=True)
    #: The range that grows in place with each commit. Written and not read any more; dropping the column needs a
    #: migration. No database constraint: ranges refer back here.
    tip_range = models.ForeignKey(
        "LedgerRange",
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_constraint=False,
    )
    leader_epoch = models.IntegerField(null=True, blank=True)
    dimensions = ArrayField(models.CharField(max_length=40), default=list)
    #: Records counted more than once; only at-least-once can raise it.
    duplicates = models.BigIntegerField(default=0)
    #: The epoch begun by the last action that moved `next_offset`; a stored offset of an older epoch is overruled.
    moved_epoch = models.BigIntegerField(default=0)
    #: The processing semantics of the last claim, and the store it commits to.
    semantics = models.CharField(max_length=20, choices=choices(Semantics), default=Semantics.EXACTLY_ONCE)
    store = models.CharField(max_length=20, blank=True, default="")
    #: Raised to make the owner send its offset to the mirrors again.
    mirror_requests = models.IntegerField(default=0)
    last_action = models.ForeignKey(
        "OperatorAction", null=True, blank=True, on_delete=models.DO_NOTHING, related_name="+"
    )
    retired_at = models.DateTimeField(null=True, blank=True)
    #: `retired`: by an operator. Otherwise another row has replaced it, which counts the same events after `rebuilt`.
    retired_reason = models.CharField(max_length=20, blank=True, default="")
    #: Since when its counts and ranges are being deleted.
    purged_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=DatabaseTime())

    objects = CheckpointQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["group_id", "topic", "partition"],
                # A retired one, too: its partition must never begin again at the baseline.
                condition=Q(retired_at__isnull=True) | Q(retired_reason=RETIRED),
                name="checkpoint_one_live",
            ),
            models.CheckConstraint(
                condition=Q(baseline_offset__gte=0)
                & Q(next_offset__gte=F("baseline_offset"))
                & Q(ledger_end__gte=F("next_offset")),
                name="checkpoint_offsets_ordered",
            ),
        ]
        permissions = [("operate_partitions", "Can pause, resume and recover partitions")]

    def __str__(self) -> str:
        return f"{self.group_id} {self.name}"

    @property
    def name(self) -> str:
        """`topic-partition`, as in logs and on the page."""
        return f"{self.topic}-{self.partition}"


class LedgerRange(models.Model):
    """The outcome of the offsets `[start, end)` of one checkpoint. Written by `offsets.ledger` alone."""

    checkpoint = models.ForeignKey(PartitionCheckpoint, on_delete=models.CASCADE, related_name="ranges", db_index=False)
    offsets = BigIntegerRangeField()
    kind = models.CharField(max_length=10, choices=choices(RangeKind))
    records = models.BigIntegerField(default=0)
    failed_records = models.BigIntegerField(default=0)
    epoch = models.BigIntegerField()
    batch_id = models.UUIDField(null=True, blank=True)
    detail = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=DatabaseTime())
    #: Of failed ranges: how often a replay has tried them, and when the next one may; null: not by itself.
    attempts = models.IntegerField(db_default=0)
    retry_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # I2. int8range of the id makes plain GiST do, without the btree_gist extension.
            ExclusionConstraint(
                name="ledger_ranges_disjoint",
                expressions=[
                    (
                        Func(
                            F("checkpoint"),
                            F("checkpoint"),
                            Value("[]"),
                            function="int8range",
                            output_field=BigIntegerRangeField(),
                        ),
                        RangeOperators.OVERLAPS,
                    ),
                    ("offsets", RangeOperators.OVERLAPS),
                ],
            ),
            models.CheckConstraint(
                condition=Q(offsets__isempty=False) & Q(offsets__lower_inf=False) & Q(offsets__upper_inf=False),
                name="ledger_range_finite",
            ),
            models.CheckConstraint(
                condition=Q(records__gte=0) & Q(failed_records__gte=0),
                name="ledger_range_counts_positive",
            ),
        ]
        indexes = [
            models.Index(F("checkpoint"), Func(F("offsets"), function="lower"), name="ledger_range_lower"),
            models.Index(fields=["checkpoint"], condition=~Q(kind="processed"), name="ledger_range_unusual"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} [{self.offsets.lower}, {self.offsets.upper})"


class DeadLetter(models.Model):
    """A record that could not be counted, whole: it can be inspected and requeued. Written by `offsets.ledger`."""

    checkpoint = models.ForeignKey(
        PartitionCheckpoint, on_delete=models.CASCADE, related_name="dead_letters", db_index=False
    )
    offset = models.BigIntegerField()
    error_code = models.CharField(max_length=40)
    error_detail = models.TextField()
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    #: Of the record's value, of which less may be kept; null for one without a value, and where all is kept.
    value_bytes = models.IntegerField(null=True, blank=True)
    #: JSON, a list of [name, base64 | null]: bytes, because a name may hold NUL, which PostgreSQL text refuses.
    headers = models.BinaryField(default=b"[]")
    record_timestamp = models.DateTimeField(null=True, blank=True)
    status = models.CharField(max_length=10, choices=choices(DeadLetterStatus), default=DeadLetterStatus.PENDING)
    created_at = models.DateTimeField(db_default=DatabaseTime())
    resolved_at = models.DateTimeField(null=True, blank=True)
    #: What counted or discarded it.
    action = models.ForeignKey("OperatorAction", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["checkpoint", "offset"], name="dead_letter_once")]
        indexes = [models.Index(fields=["status", "-created_at"], name="dead_letter_status")]

    def __str__(self) -> str:
        return f"{self.error_code} at offset {self.offset}"

    @property
    def kept_bytes(self) -> int:
        return len(self.value or b"")

    @property
    def is_whole(self) -> bool:
        """Whether all of its value is kept: otherwise it cannot be counted."""
        return self.value_bytes is None or self.kept_bytes == self.value_bytes
