"""The judgements of `doctor`, and a report that neither hangs nor shows a secret."""

import json
import threading
import time
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import OperationalError
from pytest_django import Settings

from offsets.cluster_facts import BrokerLimits, TopicFacts
from offsets.diagnostics import judgements as judge
from offsets.diagnostics import report
from offsets.diagnostics.judgements import Diagnosis, Level, PartitionLag, SessionFacts
from offsets.errors import ServiceUnavailableError
from offsets.loops import MONITOR, VERIFY, LastRun, Loop
from offsets.monitoring.late_loops import late_loops
from offsets.requirements import DatabaseFacts, unfit_database
from streamsocial.management.commands import doctor

OK, WARNING, ERROR = Level.OK, Level.WARNING, Level.ERROR


def _judged_loop(loop: Loop, run: LastRun | None, claimed_seconds: float = 3600.0) -> Diagnosis:
    late = late_loops([run]) if run else []
    return judge.judge_loop(loop, run, late[0] if late else None, claimed_seconds)


@pytest.mark.parametrize(
    ("difference", "round_trip", "level", "says"),
    [
        (0.4, 0.0, OK, "agrees"),
        (-0.9, 0.0, OK, "agrees"),
        (3.0, 0.0, WARNING, "3.0 s ahead of this host"),
        (-3.0, 0.0, WARNING, "3.0 s behind this host"),
        (3600.0, 0.0, ERROR, "60 min ahead of this host"),
        # A slow answer says little about the clock.
        (3.0, 5.0, OK, "agrees"),
        (-11.0, 4.0, WARNING, "9.0 s behind"),
    ],
)
def test_clocks(difference: float, round_trip: float, level: Level, says: str) -> None:
    row = judge.judge_clock("PostgreSQL", difference, round_trip)
    assert (row.level, row.subject) == (level, "clock of PostgreSQL")
    assert says in row.message


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (DatabaseFacts(130_012, "13.12", "UTF8", "me", "db"), "PostgreSQL is version 13.12; it must be 14 or later"),
        (DatabaseFacts(160_001, "16.1", "SQL_ASCII", "me", "db"), "'db' has the encoding SQL_ASCII; it must be UTF8"),
        (
            DatabaseFacts(160_001, "16.1", "UTF8", "me", "db", tables=9, tables_without_rights=("a", "b", "c", "d")),
            "'me' lacks SELECT, INSERT, UPDATE, DELETE on a, b, c and 1 more",
        ),
        (DatabaseFacts(160_001, "16.1", "UTF8", "me", "db", may_create=False), "may not create tables"),
    ],
)
def test_a_database_that_cannot_work(facts: DatabaseFacts, says: str) -> None:
    (reason,) = unfit_database(facts)
    assert says in reason


def test_a_database_that_can_work() -> None:
    assert unfit_database(DatabaseFacts(140_000, "14.0", "UTF8", "me", "db")) == []
    # Who does not own the schema needs no right to create what exists.
    assert unfit_database(DatabaseFacts(180_000, "18.0", "UTF8", "me", "db", may_create=False, tables=20)) == []


@pytest.mark.parametrize(
    ("facts", "level", "says"),
    [
        (SessionFacts(), OK, ""),
        (SessionFacts(statement_timeout_ms=5000), WARNING, "statement_timeout is 5.0 s"),
        (SessionFacts(statement_timeout_ms=300_000), OK, ""),
        (SessionFacts(transaction_timeout_ms=1000), WARNING, "transaction_timeout is 1.0 s"),
        (SessionFacts(idle_session_timeout_ms=60_000), WARNING, "idle_session_timeout is 60 s"),
        (SessionFacts(wanted_idle_in_transaction_ms=15_000), WARNING, "is 0 ms, not IDLE_IN_TRANSACTION_TIMEOUT_MS"),
        (SessionFacts(behind_pooler=True), WARNING, "a pooler such as PgBouncer"),
        (SessionFacts(local=False), WARNING, "not encrypted, to another host"),
        (SessionFacts(local=False, encrypted=True), OK, ""),
        (SessionFacts(connections=95, max_connections=100), WARNING, "95 of 100 in use"),
        (SessionFacts(unapplied_migrations=2), ERROR, "2 migrations not applied"),
    ],
)
def test_database_sessions(facts: SessionFacts, level: Level, says: str) -> None:
    rows = judge.judge_session(facts)
    worst = [row for row in rows if row.level is level]
    assert {row.level for row in rows} <= {OK, level}
    assert any(says in row.message for row in worst)
    assert all(row.advice for row in rows if row.level is not OK)


@pytest.mark.parametrize(
    ("limits", "protocol", "session_ms", "level", "says"),
    [
        (BrokerLimits(6000, 1_800_000), "classic", 6000, OK, "within 6000 to 1800000"),
        (BrokerLimits(6000, 30_000), "classic", 45_000, ERROR, "from 6000 to 30000 ms; SESSION_TIMEOUT_MS is 45000"),
        (BrokerLimits(10_000, 30_000), "classic", 6000, ERROR, "SESSION_TIMEOUT_MS is 6000"),
        (BrokerLimits(), "classic", 6000, WARNING, "cannot be read"),
        (BrokerLimits(rebalance_protocols="classic"), "consumer", 6000, ERROR, "without consumer"),
        (BrokerLimits(rebalance_protocols="classic,consumer"), "consumer", 1, OK, "supports"),
    ],
)
def test_group_limits(limits: BrokerLimits, protocol: str, session_ms: int, level: Level, says: str) -> None:
    row = judge.judge_group_limits(limits, protocol, session_ms)
    assert row.level is level
    assert says in row.message


@pytest.mark.parametrize(
    ("topic", "level", "says"),
    [
        (TopicFacts("t"), ERROR, "does not exist"),
        (TopicFacts("t", 6), OK, "6 partitions"),
        (TopicFacts("t", 1, retention_seconds=604_800.0), OK, "1 partition, keeps records 7 d"),
        (TopicFacts("t", 6, without_leader=(3,)), ERROR, "no leader for partition 3"),
        (TopicFacts("t", 9, under_replicated=tuple(range(7))), WARNING, "partitions 0, 1, 2, 3, 4 and 2 more"),
        (TopicFacts("t", 6, max_message_bytes=1000), WARNING, "max.message.bytes is 1,000, below EVENT_MAX_BYTES"),
    ],
)
def test_topics(topic: TopicFacts, level: Level, says: str) -> None:
    (row,) = judge.judge_topic(topic, 1024 * 1024)
    assert row.level is level
    assert says in row.message


@pytest.mark.parametrize(
    ("lags", "level", "says"),
    [
        ([], OK, "has not claimed a partition yet"),
        ([PartitionLag("t-0", 5, 0, 105)], OK, "100 records to count"),
        ([PartitionLag("t-0", 5, 7, 105)], ERROR, "2 offsets deleted before they were counted, in t-0"),
        ([PartitionLag("t-0", 5, 0, 105, old_below=50)], ERROR, "Kafka deletes uncounted records within 60 min in t-0"),
        # Old, but counted; and old up to the end of the log.
        ([PartitionLag("t-0", 50, 0, 105, old_below=50), PartitionLag("t-1", 9, 0, 9, 9)], OK, "55 records"),
    ],
)
def test_retention(lags: list[PartitionLag], level: Level, says: str) -> None:
    row = judge.judge_retention("g", lags, 3600)
    assert row.level is level
    assert says in row.message


@pytest.mark.parametrize(
    ("row", "level", "says"),
    [
        (judge.judge_redis("8.0", "noeviction", 10, 0), OK, "version 8.0"),
        (judge.judge_redis("8.0", "allkeys-lru", 10, 100), WARNING, "may drop messages"),
        (judge.judge_redis("8.0", "noeviction", 95 << 20, 100 << 20), WARNING, "95 of 100 MiB in use"),
        (judge.judge_queues(["a"], [], {}, 0), WARNING, "no worker responds"),
        (judge.judge_queues(["a", "b"], ["a"], {}, 1), WARNING, "no worker consumes the queue b"),
        (judge.judge_queues(["a"], ["a"], {"a": 5000}, 1), WARNING, "messages wait in a (5,000)"),
        (judge.judge_queues(["a"], ["a", "other"], {"a": 5}, 2), OK, "2 workers"),
        (_judged_loop(VERIFY, None), WARNING, "has never run"),
        (_judged_loop(VERIFY, None, claimed_seconds=20), OK, "not due yet, runs every 10 s"),
        (_judged_loop(VERIFY, LastRun("verify", 29.0)), OK, "ran 29 s ago"),
        (_judged_loop(VERIFY, LastRun("verify", 240.0)), WARNING, "ran 4 min ago; it should run every 10 s"),
        (_judged_loop(VERIFY, LastRun("verify", 240.0, running=True)), OK, "runs now"),
        (_judged_loop(MONITOR, LastRun("monitor", 14.0)), OK, "ran 14 s ago"),
        (judge.judge_disk("x", 100 << 20, 10 << 30), ERROR, "0.1 of 10.0 GiB free"),
        (judge.judge_disk("x", 9 << 30, 100 << 30), WARNING, "9.0 of 100.0 GiB free"),
        (judge.judge_disk("x", 50 << 30, 100 << 30), OK, "50.0 of 100.0 GiB free"),
        (judge.judge_tls("x", encrypted=False, local=True, variable="X"), OK, "on this host"),
    ],
)
def test_redis_queues_loops_and_disks(row: Diagnosis, level: Level, says: str) -> None:
    assert row.level is level
    assert says in row.message
    assert bool(row.advice) == (level is not OK)


@pytest.mark.parametrize(("levels", "status"), [([], 0), ([OK, OK], 0), ([OK, WARNING], 1), ([WARNING, ERROR, OK], 2)])
def test_the_exit_status_is_that_of_the_worst_row(levels: list[Level], status: int) -> None:
    assert judge.exit_status([Diagnosis(level, "x", "y") for level in levels]) == status


# --- The report -----------------------------------------------------------------------------------


def test_a_question_that_fails_or_hangs_is_a_row_and_the_others_are_answered(settings: Settings) -> None:
    settings.EMAIL_HOST_PASSWORD = "secret-of-the-mail"
    settings.KAFKA_CONFIG = {"sasl.password": "secret-of-kafka"}
    settings.REDIS_URL = "redis://:secret%20of%20redis@127.0.0.1:1/0"
    released = threading.Event()

    def hang() -> list[Diagnosis]:
        released.wait(60)
        return []

    def fail(error: Exception) -> list[Diagnosis]:
        raise error

    started = time.monotonic()
    rows = report.diagnose(
        {
            "PostgreSQL": lambda: fail(OperationalError("connection failed:\n  password authentication failed\n")),
            "Kafka": lambda: fail(ServiceUnavailableError("No answer to secret-of-kafka.")),
            "Redis": lambda: fail(ConnectionError("secret of redis, secret%20of%20redis, secret-of-the-mail")),
            "hangs": hang,
            "Celery": lambda: fail(ConnectionError("the same as for Redis")),
            "a bug": lambda: fail(KeyError("name")),
            "works": lambda: [judge.ok("works", "fine")],
        },
        seconds=1.0,
    )
    released.set()
    assert time.monotonic() - started < 10
    found = {row.subject: (row.level, row.message) for row in rows if row.subject != "settings"}
    assert found == {
        "PostgreSQL": (ERROR, "connection failed: password authentication failed"),
        "Kafka": (ERROR, "No answer to ***"),
        "Redis": (ERROR, "***, ***, ***"),
        "hangs": (ERROR, "no answer within 1 s"),
        "Celery": (WARNING, "not checked: Redis has an error"),
        "a bug": (ERROR, "KeyError: 'name'"),
        "works": (OK, "fine"),
    }


def test_what_needs_a_database_without_tables_points_to_it() -> None:
    def fail() -> list[Diagnosis]:
        raise LookupError("relation does not exist")

    schema = judge.error("database schema", "25 migrations not applied", "Run `manage.py migrate`.")
    rows = report.diagnose({"PostgreSQL": lambda: [schema], "control loops": fail}, seconds=5.0)
    assert rows[-1] == judge.warning("control loops", "not checked: PostgreSQL has an error", "See PostgreSQL.")


def test_settings_that_cannot_work_are_rows(settings: Settings) -> None:
    assert [row.level for row in report.settings_diagnoses()] == [OK]
    settings.KAFKA_CONFIG, settings.OFFSET_STORE = {"sasl.user": "x"}, "redis"
    rows = report.settings_diagnoses()
    assert {row.level for row in rows} == {ERROR}
    assert any(row.message.startswith("KAFKA_CONFIG_SASL_USER: ") for row in rows)
    assert len(rows) == 2


@pytest.mark.parametrize(("level", "status"), [(OK, 0), (WARNING, 1), (ERROR, 2)])
def test_the_command_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch, level: Level, status: int) -> None:
    row = Diagnosis(level, "disk of x", "0.1 GiB [free]", "Free some space.")
    monkeypatch.setattr(doctor, "diagnose", lambda askers: [row])
    table, text = StringIO(), StringIO()
    for out, arguments in ((table, []), (text, ["--json"])):
        try:
            call_command("doctor", *arguments, stdout=out)
            ended = 0
        except SystemExit as end:
            ended = int(end.code or 0)
        assert ended == status
    assert "0.1 GiB [free]" in table.getvalue()
    assert "Free some space." in table.getvalue()
    assert json.loads(text.getvalue()) == {
        "status": ("ok", "warning", "error")[status],
        "checks": [{"level": level, "subject": row.subject, "message": row.message, "advice": row.advice}],
    }
