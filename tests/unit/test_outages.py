"""The one rule of what an error means, and Django's classes that follow from it."""

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from django.core.management.base import CommandError
from django.db import DataError, Error, IntegrityError, OperationalError, ProgrammingError

from offsets import outages
from offsets.database import DATABASE_LOST, describe_outage, meaning_of
from offsets.errors import RefusedError, ServiceUnavailableError, TopicNotFoundError
from offsets.kafka.errors import translated
from offsets.management.base import errors_as_exit_status
from offsets.outages import Meaning
from offsets.postgresql.base import DatabaseWrapper, ErrorTranslator


@pytest.mark.parametrize(
    ("sqlstate", "meaning"),
    [
        ("08006", Meaning.LOST),
        ("08P01", Meaning.LOST),
        ("57014", Meaning.LOST),
        ("57P01", Meaning.REFUSING),
        ("57P02", Meaning.REFUSING),
        ("57P03", Meaning.REFUSING),
        ("57P05", Meaning.LOST),
        ("25P03", Meaning.LOST),
        ("25P04", Meaning.LOST),
        ("26000", Meaning.LOST),
        ("42P05", Meaning.LOST),
        ("25006", Meaning.REFUSING),
        ("28000", Meaning.REFUSING),
        ("28P01", Meaning.REFUSING),
        ("3D000", Meaning.REFUSING),
        ("42501", Meaning.REFUSING),
        ("53100", Meaning.REFUSING),
        ("53200", Meaning.REFUSING),
        ("53300", Meaning.REFUSING),
        ("58030", Meaning.REFUSING),
        ("XX001", Meaning.REFUSING),
        ("40001", Meaning.CONTENDED),
        ("40P01", Meaning.CONTENDED),
        ("55P03", Meaning.CONTENDED),
        ("22003", Meaning.DATA),
        ("23505", Meaning.DATA),
        ("54000", Meaning.DATA),
        ("25P02", Meaning.BUG),
        ("42601", Meaning.BUG),
        ("42P01", Meaning.BUG),
        ("P0001", Meaning.BUG),
    ],
)
def test_what_a_sqlstate_means(sqlstate: str, meaning: Meaning) -> None:
    assert outages.of_postgres(sqlstate, "ProgrammingError") is meaning


@pytest.mark.parametrize(
    ("kind", "meaning"),
    [
        ("OperationalError", Meaning.LOST),
        ("InterfaceError", Meaning.LOST),
        ("InternalError", Meaning.LOST),
        ("DataError", Meaning.DATA),
        ("IntegrityError", Meaning.DATA),
        ("ProgrammingError", Meaning.BUG),
        ("NotSupportedError", Meaning.BUG),
    ],
)
def test_what_an_error_of_the_client_means(kind: str, meaning: Meaning) -> None:
    assert outages.of_postgres(None, kind) is meaning


@pytest.mark.parametrize("sqlstate", ["42601", "22003", "23505", None])
def test_a_session_that_cannot_go_on_is_lost_whatever_the_error_says(sqlstate: str | None) -> None:
    assert outages.of_postgres(sqlstate, "ProgrammingError", usable=False) is Meaning.LOST


def test_the_words_of_a_refusal_outlive_its_session() -> None:
    assert outages.of_postgres("57P01", "OperationalError", usable=False) is Meaning.REFUSING


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        (None, Meaning.LOST),
        ("LOADING Redis is loading the dataset in memory", Meaning.LOST),
        ("READONLY You can't write against a read only replica.", Meaning.REFUSING),
        ("-OOM command not allowed when used memory > 'maxmemory'.", Meaning.REFUSING),
        ("NOAUTH Authentication required.", Meaning.REFUSING),
        ("NOPERM this user has no permissions", Meaning.REFUSING),
        ("BUSY Redis is busy running a script.", Meaning.CONTENDED),
        ("WRONGTYPE Operation against a key", Meaning.DATA),
        ("Command # 2 (HMGET k offset) of pipeline caused error: WRONGTYPE Operation against a key", Meaning.DATA),
        ("Command # 1 (HMGET BUSY) of pipeline caused error: READONLY You can't write", Meaning.REFUSING),
        ("ERR unknown command", Meaning.BUG),
        ("BUSYGROUP Consumer Group name already exists", Meaning.BUG),
    ],
)
def test_what_a_reply_of_redis_means(reply: str | None, meaning: Meaning) -> None:
    assert outages.of_redis(reply) is meaning


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (KafkaError._TRANSPORT, ServiceUnavailableError, "Kafka is not available"),
        (KafkaError._ALL_BROKERS_DOWN, ServiceUnavailableError, "Kafka is not available"),
        (KafkaError._AUTHENTICATION, ServiceUnavailableError, "Kafka refuses requests"),
        (KafkaError._SSL, ServiceUnavailableError, "Kafka refuses requests"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ServiceUnavailableError, "Kafka refuses requests"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicNotFoundError, ""),
        (KafkaError.INVALID_REPLICATION_FACTOR, RefusedError, "Kafka rejected the request"),
    ],
)
def test_what_an_error_of_kafka_means(code: int, kind: type[Exception], words: str) -> None:
    error = translated(KafkaException(KafkaError(code)))
    assert type(error) is kind
    assert str(error).startswith(words)


def _translated(error: Exception, *, closed: bool = False) -> Error:
    wrapper = SimpleNamespace(
        Database=DatabaseWrapper.Database, connection=SimpleNamespace(closed=closed), errors_occurred=False
    )
    try:
        with ErrorTranslator(wrapper):
            raise error
    except Error as translated:
        return translated
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"), OperationalError),
        (psycopg.errors.IdleInTransactionSessionTimeout("terminating connection"), OperationalError),
        (psycopg.InternalError("received 2 results from command 'COMMIT'"), OperationalError),
        (psycopg.errors.InsufficientPrivilege("permission denied for table offsets_worker"), OperationalError),
        (psycopg.errors.DiskFull("could not extend file"), OperationalError),
        (psycopg.errors.ProgramLimitExceeded("index row size 2712 exceeds the maximum"), DataError),
        (psycopg.errors.NumericValueOutOfRange("bigint out of range"), DataError),
        (psycopg.errors.UniqueViolation("duplicate key"), IntegrityError),
        (psycopg.errors.SyntaxError("syntax error"), ProgrammingError),
        (psycopg.errors.UndefinedTable("relation does not exist"), ProgrammingError),
    ],
)
def test_django_raises_the_class_of_the_meaning(raised: Any, kind: type[Error]) -> None:
    translated = _translated(raised)
    assert type(translated) is kind
    assert translated.__cause__ is raised


def test_any_error_of_a_closed_session_is_a_lost_database() -> None:
    assert isinstance(_translated(psycopg.errors.SyntaxError("syntax error"), closed=True), DATABASE_LOST)


@pytest.mark.parametrize(
    ("raised", "meaning", "text"),
    [
        (
            psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a\nread-only transaction"),
            Meaning.REFUSING,
            "PostgreSQL refuses requests: cannot execute INSERT in a read-only transaction",
        ),
        (
            psycopg.OperationalError("connection failed"),
            Meaning.LOST,
            "PostgreSQL is not available: connection failed",
        ),
    ],
)
def test_an_outage_is_described_in_the_words_of_the_database(raised: Any, meaning: Meaning, text: str) -> None:
    translated = _translated(raised)
    assert meaning_of(translated) is meaning
    assert describe_outage(translated) == text


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (
            psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
            "PostgreSQL refuses requests: cannot execute INSERT in a read-only transaction. Check DATABASE_URL",
        ),
        (psycopg.errors.TooManyConnections("sorry, too many clients already"), "PostgreSQL refuses requests: sorry"),
        (psycopg.errors.InvalidCatalogName('database "x" does not exist'), "PostgreSQL refuses requests: database"),
        (psycopg.OperationalError("connection refused"), "PostgreSQL is not available: connection refused"),
        (psycopg.InternalError("received 2 results from command 'COMMIT'"), "PostgreSQL is not available: received 2"),
    ],
)
def test_a_command_ends_with_one_sentence_and_exit_status_3(raised: Any, words: str) -> None:
    with pytest.raises(CommandError) as ended, errors_as_exit_status():
        raise _translated(raised)
    assert ended.value.returncode == 3
    assert str(ended.value).startswith(words)
