"""The periodic loops of the application: how often each runs, and how long one run may take. Pure."""

from dataclasses import dataclass

#: A loop is late after so many of its intervals, but not before LATE_SECONDS: a busy machine is not a finding.
LATE_INTERVALS = 3
LATE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Loop:
    """Periodic work that one process at a time does."""

    name: str
    interval_seconds: float
    #: Another process may take over a run that has not ended by then: the first one has died, or hangs.
    longest_seconds: float
    #: What does not happen while it is late.
    without: str
    #: Runs for each group; the others serve the whole database.
    of_group: bool = True

    @property
    def late_seconds(self) -> float:
        """The age of the last run from which on the loop is late."""
        return max(LATE_SECONDS, LATE_INTERVALS * self.interval_seconds)


@dataclass(frozen=True, slots=True)
class LastRun:
    """When a loop last ran. Ages are the database's."""

    name: str
    #: Since the end of its last run without an error.
    age_seconds: float
    #: Whether a process runs it now.
    running: bool = False
    duration_seconds: float | None = None
    last_error: str = ""


SUPERVISE = Loop("supervise", 2.0, 30.0, "Consumer slots that end are not restarted.")
RECOVER = Loop("recover", 1.0, 10.0, "Dead workers are not fenced, failed offsets not replayed, incidents not updated.")
NOTIFY = Loop("notify", 2.0, 300.0, "Alerts are not sent.", of_group=False)
MONITOR = Loop("monitor", 1.0, 10.0, "Lag is sampled by the workers alone, and no snapshots are broadcast.")
FOLD = Loop("fold", 1.0, 30.0, "Counts stay exact, but deltas pile up and reads get slower.", of_group=False)
VERIFY = Loop("verify", 10.0, 300.0, "The ledger invariants are not checked.")
COMPARE_STORES = Loop("compare-stores", 5.0, 60.0, "The drift of other offset stores is not measured.")
THIN = Loop("thin", 60.0, 300.0, "Lag samples pile up.", of_group=False)
PURGE = Loop("purge", 3600.0, 1800.0, "Old rows are not deleted.", of_group=False)

LOOPS = {loop.name: loop for loop in (SUPERVISE, RECOVER, NOTIFY, MONITOR, FOLD, VERIFY, COMPARE_STORES, THIN, PURGE)}
