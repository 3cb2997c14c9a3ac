"""Judgements of `doctor`: from facts to OK, warning or error. Pure."""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from offsets.cluster_facts import BrokerLimits, TopicFacts
from offsets.loops import LastRun, Loop
from offsets.monitoring.late_loops import LateLoop
from offsets.text import counted, duration


class Level(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One row of the report."""

    level: Level
    subject: str
    message: str
    advice: str = ""


def ok(subject: str, message: str) -> Diagnosis:
    return Diagnosis(Level.OK, subject, message)


def warning(subject: str, message: str, advice: str = "") -> Diagnosis:
    return Diagnosis(Level.WARNING, subject, message, advice)


def error(subject: str, message: str, advice: str = "") -> Diagnosis:
    return Diagnosis(Level.ERROR, subject, message, advice)


def exit_status(rows: Iterable[Diagnosis]) -> int:
    """0: all OK; 1: warnings; 2: errors."""
    levels = {row.level for row in rows}
    return 2 if Level.ERROR in levels else 1 if Level.WARNING in levels else 0


# --- Clocks ---------------------------------------------------------------------------------------

CLOCK_WARNING_SECONDS = 1.0
CLOCK_ERROR_SECONDS = 10.0


def judge_clock(service: str, difference_seconds: float, round_trip_seconds: float) -> Diagnosis:
    """The service's clock against this host's; the time of the question is not held against it."""
    apart = max(0.0, abs(difference_seconds) - round_trip_seconds / 2)
    subject = f"clock of {service}"
    if apart <= CLOCK_WARNING_SECONDS:
        return ok(subject, "agrees with this host to the second")
    text = f"{duration(apart)} {'ahead of' if difference_seconds > 0 else 'behind'} this host"
    advice = "Synchronise the clocks of all hosts with NTP."
    return (error if apart > CLOCK_ERROR_SECONDS else warning)(subject, text, advice)


# --- PostgreSQL -----------------------------------------------------------------------------------

#: A fold, a purge and a check of the invariants may take this long.
SHORTEST_STATEMENT_MS = 60_000
#: The share of the server's connections from which it is called full.
CONNECTIONS_FULL = 0.9


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """Settings of a database session, in milliseconds where they are times; 0 is no limit."""

    statement_timeout_ms: int = 0
    idle_session_timeout_ms: int = 0
    transaction_timeout_ms: int = 0
    idle_in_transaction_ms: int = 0
    wanted_idle_in_transaction_ms: int = 0
    #: The process id that the connection was given is not the backend's: a pooler is between.
    behind_pooler: bool = False
    encrypted: bool = False
    local: bool = True
    connections: int = 0
    max_connections: int = 100
    unapplied_migrations: int = 0


def judge_session(facts: SessionFacts) -> list[Diagnosis]:
    """Timeouts, pooler, encryption, free connections and migrations of the database's sessions."""
    return [*_timeouts(facts), _pooler(facts), _database_tls(facts), _connections(facts), _migrations(facts)]


def _timeouts(facts: SessionFacts) -> list[Diagnosis]:
    subject = "database timeouts"
    rows = []
    for name, value in (
        ("statement_timeout", facts.statement_timeout_ms),
        ("transaction_timeout", facts.transaction_timeout_ms),
    ):
        if 0 < value < SHORTEST_STATEMENT_MS:
            rows.append(
                warning(
                    subject,
                    f"{name} is {duration(value / 1000)}: it ends folds, purges and checks that take longer",
                    f"ALTER ROLE … SET {name} = 0, or at least {SHORTEST_STATEMENT_MS // 1000}s.",
                )
            )
    if facts.idle_session_timeout_ms:
        rows.append(
            warning(
                subject,
                f"idle_session_timeout is {duration(facts.idle_session_timeout_ms / 1000)}: it ends waiting workers' "
                "sessions, which then reconnect",
                "ALTER ROLE … SET idle_session_timeout = 0.",
            )
        )
    if facts.idle_in_transaction_ms != facts.wanted_idle_in_transaction_ms:
        rows.append(
            warning(
                subject,
                f"idle_in_transaction_session_timeout is {facts.idle_in_transaction_ms} ms, not "
                f"IDLE_IN_TRANSACTION_TIMEOUT_MS ({facts.wanted_idle_in_transaction_ms}): a suspended process may hold "
                "its locks for longer",
                "Set it on the role: ALTER ROLE … SET idle_in_transaction_session_timeout = …",
            )
        )
    return rows or [ok(subject, f"idle in transaction {duration(facts.idle_in_transaction_ms / 1000)}, no others")]


def _pooler(facts: SessionFacts) -> Diagnosis:
    subject = "database pooler"
    if facts.behind_pooler:
        return warning(
            subject,
            "a pooler such as PgBouncer is between this host and PostgreSQL",
            "Use pool_mode = session, or connect workers to PostgreSQL itself.",
        )
    return ok(subject, "none")


def _database_tls(facts: SessionFacts) -> Diagnosis:
    return judge_tls("database TLS", encrypted=facts.encrypted, local=facts.local, variable="DATABASE_URL (?sslmode=…)")


def judge_tls(subject: str, *, encrypted: bool, local: bool, variable: str) -> Diagnosis:
    """A connection to another host should be encrypted."""
    if encrypted:
        return ok(subject, "encrypted")
    if local:
        return ok(subject, "not encrypted, on this host")
    return warning(subject, "not encrypted, to another host", f"Turn TLS on in {variable}.")


def _connections(facts: SessionFacts) -> Diagnosis:
    text = f"{facts.connections} of {facts.max_connections} in use"
    if facts.connections >= CONNECTIONS_FULL * facts.max_connections:
        return warning("database connections", text, "Raise max_connections, or end programs that hold connections.")
    return ok("database connections", text)


def _migrations(facts: SessionFacts) -> Diagnosis:
    if facts.unapplied_migrations:
        text = f"{counted(facts.unapplied_migrations, 'migration')} not applied"
        return error("database schema", text, "Run `manage.py migrate`.")
    return ok("database schema", "all migrations applied")


# --- Kafka ----------------------------------------------------------------------------------------


def judge_group_limits(limits: BrokerLimits, group_protocol: str, session_ms: int) -> Diagnosis:
    """Whether the broker accepts our members."""
    subject = "Kafka group limits"
    if group_protocol != "classic":
        protocols = limits.rebalance_protocols
        if protocols is not None and "consumer" not in protocols.split(","):
            return error(
                subject,
                f"the broker's group.coordinator.rebalance.protocols is {protocols}, without consumer",
                "Set GROUP_PROTOCOL=classic, or upgrade the broker to 4.0 or later.",
            )
        return ok(subject, "the broker supports the consumer protocol")
    low, high = limits.group_min_session_ms, limits.group_max_session_ms
    if (low is not None and session_ms < low) or (high is not None and session_ms > high):
        return error(
            subject,
            f"the broker accepts session timeouts from {low} to {high} ms; SESSION_TIMEOUT_MS is {session_ms}",
            "Set SESSION_TIMEOUT_MS within these limits.",
        )
    if low is None or high is None:
        return warning(subject, "the broker's limits cannot be read", "Grant DESCRIBE_CONFIGS on the cluster.")
    return ok(subject, f"session timeout {session_ms} ms is within {low} to {high} ms")


def judge_topic(topic: TopicFacts, event_max_bytes: int) -> list[Diagnosis]:
    """Whether a topic exists and can be read, and its largest message against ours."""
    subject = f"topic {topic.name}"
    if not topic.partitions:
        advice = f"Create it with `manage.py ensure_topic {topic.name}`, or set ENGAGEMENT_TOPIC to another."
        return [error(subject, "does not exist", advice)]
    rows = []
    if topic.without_leader:
        text = f"no leader for {_partitions(topic.without_leader)}: they cannot be read"
        rows.append(error(subject, text, "Start the brokers that hold their replicas."))
    if topic.under_replicated:
        text = f"replicas out of sync for {_partitions(topic.under_replicated)}"
        rows.append(warning(subject, text, "Check the brokers that hold their replicas."))
    if topic.max_message_bytes is not None and topic.max_message_bytes < event_max_bytes:
        text = f"max.message.bytes is {topic.max_message_bytes:,}, below EVENT_MAX_BYTES ({event_max_bytes:,})"
        rows.append(warning(subject, text, "Producers of larger events are refused; lower EVENT_MAX_BYTES to match."))
    keeps = f", keeps records {duration(topic.retention_seconds)}" if topic.retention_seconds is not None else ""
    return rows or [ok(subject, f"{counted(topic.partitions, 'partition')}{keeps}")]


def _partitions(numbers: Sequence[int]) -> str:
    listed = ", ".join(str(number) for number in numbers[:5])
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"partition{'' if len(numbers) == 1 else 's'} {listed}{more}"


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """A partition's next offset next to its log; `old_below`: records below it are deleted soon."""

    name: str
    next_offset: int
    log_start: int
    log_end: int
    old_below: int = 0


def judge_retention(group_id: str, partitions: Sequence[PartitionLag], warn_seconds: float) -> Diagnosis:
    """Whether Kafka deletes, or has deleted, records before they are counted."""
    subject = "retention and lag"
    lost = [p for p in partitions if p.next_offset < p.log_start]
    at_risk = [p for p in partitions if p.next_offset < min(p.old_below, p.log_end)]
    if lost:
        offsets = sum(p.log_start - p.next_offset for p in lost)
        text = f"{counted(offsets, 'offset')} deleted before they were counted, in {_names(lost)}"
        return error(subject, text, "See docs/how-to/troubleshooting.md#halted.")
    if at_risk:
        text = f"Kafka deletes uncounted records within {duration(warn_seconds)} in {_names(at_risk)}"
        return error(subject, text, "Raise the topic's retention.ms now, then add workers.")
    lag = sum(max(0, p.log_end - p.next_offset) for p in partitions)
    if not partitions:
        return ok(subject, f"group {group_id} has not claimed a partition yet")
    return ok(subject, f"{counted(lag, 'record')} to count, none about to be deleted")


def _names(partitions: Sequence[PartitionLag]) -> str:
    more = f" and {len(partitions) - 3} more" if len(partitions) > 3 else ""
    return ", ".join(p.name for p in partitions[:3]) + more


# --- Redis, Celery, loops, disks ------------------------------------------------------------------

#: Policies under which Redis drops messages of Celery when its memory is full.
_EVICTING = ("allkeys-lru", "allkeys-lfu", "allkeys-random")
QUEUE_LONG = 100


def judge_redis(version: str, policy: str, used_bytes: int, max_bytes: int) -> Diagnosis:
    if max_bytes and used_bytes > 0.9 * max_bytes:
        text = f"{used_bytes >> 20} of {max_bytes >> 20} MiB in use"
        return warning("Redis", text, "Raise maxmemory.")
    if max_bytes and policy in _EVICTING:
        text = f"maxmemory-policy is {policy}: it may drop messages to the workers"
        return warning("Redis", text, "Set maxmemory-policy noeviction.")
    return ok("Redis", f"version {version}")


def judge_queues(needed: Sequence[str], consumed: Iterable[str], lengths: dict[str, int], workers: int) -> Diagnosis:
    """Whether a Celery worker consumes each queue, and none is long."""
    if not workers:
        advice = "Start the Celery workers, or run `run_consumer` and `run_recovery_manager` in the foreground."
        return warning("Celery", "no worker responds", advice)
    served = set(consumed)
    missing = [name for name in needed if name not in served]
    if missing:
        advice = f"Start one: celery -A streamsocial worker -Q {','.join(missing)}"
        return warning("Celery", f"no worker consumes the queue {', '.join(missing)}", advice)
    long = [f"{name} ({length:,})" for name, length in sorted(lengths.items()) if length > QUEUE_LONG]
    if long:
        advice = "Check that its workers run and are not stuck."
        return warning("Celery", f"messages wait in {', '.join(long)}", advice)
    return ok("Celery", f"{counted(workers, 'worker')}, every queue is consumed")


def judge_loop(loop: Loop, run: LastRun | None, late: LateLoop | None, claimed_seconds: float) -> Diagnosis:
    """When a periodic loop ran last. One that never ran is missed once the group is older than it may be late."""
    subject = f"loop {loop.name}"
    if run is None:
        if claimed_seconds <= loop.late_seconds:
            return ok(subject, f"not due yet, runs every {duration(loop.interval_seconds)}")
        return warning(subject, "has never run", "Start a control worker and celery beat.")
    if late is not None:
        text = f"ran {duration(run.age_seconds)} ago; it should run every {duration(loop.interval_seconds)}"
        return warning(subject, text, f"{late.remedy}.")
    if run.running:
        return ok(subject, "runs now")
    return ok(subject, f"ran {duration(max(0.0, run.age_seconds))} ago")


DISK_WARNING_SHARE = 0.1
DISK_ERROR_BYTES = 512 * 1024 * 1024


def judge_disk(what: str, free_bytes: int, total_bytes: int) -> Diagnosis:
    subject = f"disk of {what}"
    text = f"{free_bytes / 2**30:,.1f} of {total_bytes / 2**30:,.1f} GiB free"
    if free_bytes < DISK_ERROR_BYTES:
        return error(subject, text, "Free some space now: the services stop when the disk is full.")
    if free_bytes < DISK_WARNING_SHARE * total_bytes:
        return warning(subject, text, "Free some space.")
    return ok(subject, text)
