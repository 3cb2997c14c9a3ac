"""Workers, and leases: rights that one process holds at a time."""

from django.db import models

from offsets.models.base import DatabaseTime


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
    #: Its partitions were taken from it: it drops its uncommitted batches, and ends.
    evicted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["group_id", "state"], name="worker_group_state")]

    def __str__(self) -> str:
        return self.worker_id


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


class LoopRun(models.Model):
    """The last run of a periodic loop, and the right to run it. Written by `offsets.ticks`.

    Times are the database's. One row for each loop and group, or for each loop that serves all groups.
    """

    #: "<name>" or "<name>:<group>".
    key = models.CharField(primary_key=True, max_length=300)
    name = models.CharField(max_length=40)
    group_id = models.CharField(max_length=255, blank=True, default="")
    #: The process that runs it now; empty between two runs.
    holder = models.CharField(max_length=255, blank=True, default="")
    #: Until then no other process runs it. Null between two runs.
    busy_until = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(db_default=DatabaseTime())
    #: The end of the last run without an error; the first start before that.
    finished_at = models.DateTimeField(db_default=DatabaseTime())
    duration_seconds = models.FloatField(null=True, blank=True)
    #: Why the last run failed; empty when it did not.
    last_error = models.TextField(blank=True, default="")

    def __str__(self) -> str:
        return self.key
