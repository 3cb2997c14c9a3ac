"""Rows of the offset ledger. Read them anywhere; each table has exactly one writing module (named below)."""

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import ArrayField, BigIntegerRangeField, RangeOperators
from django.db import models
from django.db.models import F, Func, Q, Value

from offsets.types import DeadLetterStatus, DesiredState, EpochCause, HaltReason, RangeKind, Semantics


class DatabaseTime(Func):
    """`clock_timestamp()`: the only clock by which processes judge each other."""

    function = "clock_timestamp"
    arity = 0
    output_field = models.DateTimeField()


def _choices(kind: type) -> list[tuple[str, str]]:
    return [(member.value, member.value.replace("_", " ") or "none") for member in kind]  # type: ignore[attr-defined]


class Worker(models.Model):
    """A process that consumes. Written by `offsets.workers`."""

    class State(models.TextChoices):
        RUNNING = "running"
        STOPPING = "stopping"
        STOPPED = "stopped"

    worker_id = models.CharField(primary_key=True, max_length=40)
    group_id = models.CharField(max_length=255)
    hostname = models.CharField(max_length=255)
    process_id = models.IntegerField()
    #: "slot:<group>:<n>" for a Celery slot, "" for a foreground worker.
    slot = models.CharField(max_length=255, blank=True, default="")
    #: Celery node that runs the slot: its shutdown signal reaches only the parent process.
    node = models.CharField(max_length=255, blank=True, default="")
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    stop_requested = models.BooleanField(default=False)
    started_at = models.DateTimeField(db_default=DatabaseTime())
    heartbeat_at = models.DateTimeField(db_default=DatabaseTime())
    stopped_at = models.DateTimeField(null=True, blank=True)
    records = models.BigIntegerField(default=0)
    events_per_second = models.FloatField(null=True, blank=True)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    batch_in_hand = models.IntegerField(default=0)
    fenced_commits = models.IntegerField(default=0)
    last_error = models.TextField(blank=True, default="")
    #: What a thread of it is busy with, and for how long; empty while all of them wait for work.
    stage = models.CharField(max_length=300, blank=True, default="")
    stage_seconds = models.FloatField(null=True, blank=True)
    #: Where its threads stand, while a stage takes longer than WORKER_STUCK_SECONDS.
    stack = models.TextField(blank=True, default="")
    #: Its partitions were taken from it: it drops what it has in hand, and ends.
    evicted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["group_id", "state"], name="worker_group_state")]

    def __str__(self) -> str:
        return self.worker_id


class PartitionCheckpoint(models.Model):
    """Where one group stands in one partition, who may move it, and under which epoch.

    Written by `offsets.ledger` alone. Invariants and rules: docs/explanation/architecture.md.
    """

    group_id = models.CharField(max_length=255)
    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    topic_id = models.CharField(max_length=64)
    baseline_offset = models.BigIntegerField()
    baseline_kind = models.CharField(max_length=10)
    next_offset = models.BigIntegerField()
    #: Exceeds `next_offset` only after a backward seek.
    ledger_end = models.BigIntegerField()
    epoch = models.BigIntegerField(default=0)
    epoch_cause = models.CharField(max_length=10, choices=_choices(EpochCause), default=EpochCause.CREATED)
    owner = models.ForeignKey(Worker, null=True, blank=True, on_delete=models.SET_NULL, related_name="checkpoints")
    claimed_at = models.DateTimeField(null=True, blank=True)
    desired_state = models.CharField(max_length=10, choices=_choices(DesiredState), default=DesiredState.RUNNING)
    halt_reason = models.CharField(max_length=20, choices=_choices(HaltReason), blank=True, default=HaltReason.NONE)
    halt_detail = models.TextField(blank=True, default="")
    halted_at = models.DateTimeField(null=True, blank=True)
    #: Identifies the last committed transaction: how a worker learns the fate of a COMMIT it saw break off.
    last_batch_id = models.UUIDField(null=True, blank=True)
    committed_at = models.DateTimeField(null=True, blank=True)
    #: The range that grows in place with each commit. No database constraint: ranges refer back here.
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
    #: What the last claim promised, and the store it commits to.
    semantics = models.CharField(max_length=20, choices=_choices(Semantics), default=Semantics.EXACTLY_ONCE)
    store = models.CharField(max_length=20, blank=True, default="")
    #: Raised to make the owner send its offset to the mirrors again.
    mirror_requests = models.IntegerField(default=0)
    last_action = models.ForeignKey(
        "OperatorAction", null=True, blank=True, on_delete=models.DO_NOTHING, related_name="+"
    )
    retired_at = models.DateTimeField(null=True, blank=True)
    retired_reason = models.CharField(max_length=20, blank=True, default="")
    created_at = models.DateTimeField(db_default=DatabaseTime())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["group_id", "topic", "partition"],
                condition=Q(retired_at__isnull=True),
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
        return f"{self.group_id} {self.topic}-{self.partition}"


class LedgerRange(models.Model):
    """What became of the offsets `[start, end)` of one checkpoint. Written by `offsets.ledger` alone."""

    checkpoint = models.ForeignKey(PartitionCheckpoint, on_delete=models.CASCADE, related_name="ranges", db_index=False)
    offsets = BigIntegerRangeField()
    kind = models.CharField(max_length=10, choices=_choices(RangeKind))
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
    #: JSON, a list of [name, base64 | null]: bytes, because a name may hold NUL, which PostgreSQL text refuses.
    headers = models.BinaryField(default=b"[]")
    record_timestamp = models.DateTimeField(null=True, blank=True)
    status = models.CharField(max_length=10, choices=_choices(DeadLetterStatus), default=DeadLetterStatus.PENDING)
    created_at = models.DateTimeField(db_default=DatabaseTime())
    resolved_at = models.DateTimeField(null=True, blank=True)
    #: What counted or discarded it.
    action = models.ForeignKey("OperatorAction", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["checkpoint", "offset"], name="dead_letter_once")]
        indexes = [models.Index(fields=["status", "-created_at"], name="dead_letter_status")]

    def __str__(self) -> str:
        return f"{self.error_code} at offset {self.offset}"


class Lease(models.Model):
    """A right held by one process for a bounded time. Written by `offsets.leases`.

    Rows rather than advisory locks: those break under transaction pooling and never expire for a stopped holder.
    """

    name = models.CharField(primary_key=True, max_length=255)
    holder = models.CharField(max_length=255, blank=True, default="")
    epoch = models.BigIntegerField(default=0)
    expires_at = models.DateTimeField(db_default=DatabaseTime())

    def __str__(self) -> str:
        return self.name


class OperatorAction(models.Model):
    """The audit row of something a person did or tried to do. Written by `offsets.actions.audit`."""

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


class LagSample(models.Model):
    """Log bounds and next offset of one partition at one moment. Written by `offsets.monitoring.lag_samples`.

    One a second for five minutes, then the first of each minute for a day.
    """

    checkpoint = models.ForeignKey(
        PartitionCheckpoint, on_delete=models.CASCADE, related_name="lag_samples", db_index=False
    )
    sampled_at = models.DateTimeField(db_default=DatabaseTime())
    log_start_offset = models.BigIntegerField()
    log_end_offset = models.BigIntegerField()
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


class JournalEntry(models.Model):
    """Something that happened to a partition or a worker, in words: what the page shows as its log.

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


class InvariantReport(models.Model):
    """The last check of I1 to I6 for a group. Written by `offsets.monitoring.invariants`."""

    group_id = models.CharField(primary_key=True, max_length=255)
    ok = models.BooleanField()
    #: {"I1": {"ok": bool, "detail": str}, …}
    invariants = models.JSONField()
    duration_ms = models.IntegerField()
    checked_at = models.DateTimeField(db_default=DatabaseTime())

    def __str__(self) -> str:
        return f"{self.group_id}: {'ok' if self.ok else 'violated'}"


class PartitionHealth(models.Model):
    """What the recovery manager last found of a partition. Written by
    `offsets.recovery.assessments`.
    """

    checkpoint = models.OneToOneField(
        PartitionCheckpoint, on_delete=models.CASCADE, primary_key=True, related_name="health"
    )
    status = models.CharField(max_length=20)
    detail = models.TextField()
    #: Since when it has this status.
    since = models.DateTimeField(db_default=DatabaseTime())
    #: Until it has caught up, at the rate of the last minute; null where it does not.
    eta_seconds = models.FloatField(null=True, blank=True)
    assessed_at = models.DateTimeField(db_default=DatabaseTime())

    class Meta:
        verbose_name_plural = "partition health"

    def __str__(self) -> str:
        return f"{self.checkpoint_id}: {self.status}"


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
    #: Begun by the recovery manager, for failed ranges that are due.
    automatic = models.BooleanField(default=False)
    username = models.CharField(max_length=150)
    reason = models.TextField()
    action = models.ForeignKey(OperatorAction, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    #: Throttle; null: as fast as it goes.
    records_per_second = models.IntegerField(null=True, blank=True)
    cancel_requested = models.BooleanField(default=False)
    #: How often it was begun: more than once after a crash.
    starts = models.IntegerField(default=0)
    total_offsets = models.BigIntegerField(default=0)
    done_offsets = models.BigIntegerField(default=0)
    counted = models.BigIntegerField(default=0)
    #: Records read, and left out because the ledger has them.
    deduplicated = models.BigIntegerField(default=0)
    dead_letters = models.BigIntegerField(default=0)
    #: Offsets that Kafka does not have any more.
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
        #: Kafka does not have all of it any more.
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


class Incident(models.Model):
    """A problem, from the first bad tick until it is resolved. Written by `offsets.monitoring.incidents`."""

    class Severity(models.TextChoices):
        WARNING = "warning"
        CRITICAL = "critical"

    group_id = models.CharField(max_length=255)
    kind = models.CharField(max_length=30)
    #: What it happened to: a partition, a worker, a service.
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
    #: A stack trace, an error message: what was seen.
    evidence = models.TextField(blank=True, default="")
    #: When it began, as far as the database's clock tells: the last heartbeat, the last commit.
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
        #: Not sent, because too many were: counted in the next one.
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
