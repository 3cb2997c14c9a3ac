"""`manage.py doctor` on set-ups that are broken in one way each: it names it, exits with 2, and shows no secret."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from offsets.kafka.admin import KafkaAdmin
from streamsocial.environment import BASE_DIR
from streamsocial.stack import Stack
from streamsocial.stack.postgres import SUPERUSER

SECRET = "a-secret-of-the-test"
TOPIC = "doctor"


@dataclass(frozen=True)
class Database:
    """The test database, and what a superuser has added beside it."""

    url: str
    reader_url: str
    ascii_url: str

    def with_options(self, **values: str) -> str:
        options = " ".join(f"-c {name}={value}" for name, value in values.items())
        return f"{self.url}?options={quote(options)}"


def _superuser(stack: Stack, name: str, port: int) -> psycopg.Connection[object]:
    password = stack.directory.load().secret("postgres_superuser")
    return psycopg.connect(host="127.0.0.1", port=port, user=SUPERUSER, password=password, dbname=name, autocommit=True)


@pytest.fixture
def database(stack: Stack, service_env: dict[str, str]) -> Iterator[Database]:
    """A role without rights on the tables, and a database in SQL_ASCII."""
    parts = urlsplit(service_env["DATABASE_URL"])
    assert parts.port is not None
    with _superuser(stack, "postgres", parts.port) as connection:
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
        connection.execute(f"CREATE ROLE ascii_owner LOGIN PASSWORD '{SECRET}'")
        connection.execute(
            "CREATE DATABASE counts_ascii OWNER ascii_owner TEMPLATE template0 ENCODING 'SQL_ASCII'"
            " LOCALE_PROVIDER libc LOCALE 'C'"
        )
    host = f"127.0.0.1:{parts.port}"
    yield Database(
        service_env["DATABASE_URL"],
        f"postgresql://reader:{SECRET}@{host}{parts.path}",
        f"postgresql://ascii_owner:{SECRET}@{host}/counts_ascii",
    )
    with _superuser(stack, "postgres", parts.port) as connection:
        connection.execute("DROP DATABASE counts_ascii WITH (FORCE)")
        connection.execute("DROP ROLE ascii_owner")
        connection.execute("DROP ROLE reader")


def _manage(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE_DIR,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stdout + ended.stderr
    return ended


def _doctor(environ: dict[str, str]) -> tuple[int, dict[str, list[str]]]:
    """Exit status, and the messages of each level with their subjects."""
    ended = _manage(environ, "doctor", "--json")
    report = json.loads(ended.stdout)
    assert report["status"] == ("ok", "warning", "error")[ended.returncode]
    found: dict[str, list[str]] = {"ok": [], "warning": [], "error": []}
    for row in report["checks"]:
        found[row["level"]].append(f"{row['subject']}: {row['message']}")
    return ended.returncode, found


@pytest.fixture
def healthy(service_env: dict[str, str]) -> dict[str, str]:
    KafkaAdmin().create_topic(TOPIC, 2)
    return {**service_env, "ENGAGEMENT_TOPIC": TOPIC, "ENGAGEMENT_GROUP": "doctor"}


@pytest.mark.django_db(transaction=True)
def test_a_set_up_without_workers_has_warnings_only(healthy: dict[str, str]) -> None:
    status, found = _doctor(healthy)
    assert (status, found["error"], found["warning"]) == (1, [], ["Celery: no worker responds"])
    said = "\n".join(found["ok"])
    for text in (
        "settings: all are valid",
        "PostgreSQL: version 18",
        "clock of PostgreSQL: agrees",
        "database schema: all migrations applied",
        "database pooler: none",
        "Kafka: 1 broker",
        "Kafka group limits: session timeout 6000 ms is within 1000 to 1800000 ms",
        f"topic {TOPIC}: 2 partitions, keeps records 7 d",
        "Redis: version",
        "clock of Redis: agrees",
        "loops: group doctor has not claimed a partition yet",
        "disk of the embedded services: ",
    ):
        assert text in said


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "Kafka: "),
        ({"KAFKA_CONFIG_SASL_USER": SECRET}, "settings: KAFKA_CONFIG_SASL_USER: Kafka's client rejects it"),
        ({"ENGAGEMENT_TOPIC": "nowhere"}, "topic nowhere: does not exist"),
        ({"REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0"}, "Redis: Error 111 connecting to 127.0.0.1:1"),
        (
            {"SESSION_TIMEOUT_MS": "2000000", "MAX_POLL_INTERVAL_MS": "2000000"},
            "Kafka group limits: the broker accepts",
        ),
        (
            {"ALERT_EMAIL_TO": "a@example.org", "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": "1"},
            "mail server: 127.0.0.1:1: [Errno 111] Connection refused",
        ),
        (
            {"ALERT_WEBHOOK_URL": f"http://127.0.0.1:1/{SECRET}", "ALERT_WEBHOOK_SECRET": SECRET},
            "webhook: 127.0.0.1:1: [Errno 111] Connection refused",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_service_that_is_away_or_does_not_fit_is_named(
    healthy: dict[str, str], changes: dict[str, str], says: str
) -> None:
    status, found = _doctor({**healthy, **changes})
    assert status == 2
    assert any(text.startswith(says) for text in found["error"]), found


@pytest.mark.django_db(transaction=True)
def test_a_database_that_does_not_fit_is_named(healthy: dict[str, str], database: Database) -> None:
    wrong_password = database.reader_url.replace(SECRET, "wrong")
    cases = {
        wrong_password: "PostgreSQL: connection failed",
        database.reader_url: "PostgreSQL: The user 'reader' lacks SELECT, INSERT, UPDATE, DELETE on analytics_",
        database.ascii_url: "PostgreSQL: The database 'counts_ascii' has the encoding SQL_ASCII; it must be UTF8",
        database.with_options(default_transaction_read_only="on"): "PostgreSQL: takes no writes",
    }
    for url, says in cases.items():
        status, found = _doctor({**healthy, "DATABASE_URL": url})
        assert status == 2
        assert any(text.startswith(says) for text in found["error"]), found
    status, found = _doctor({**healthy, "DATABASE_URL": database.with_options(statement_timeout="5000")})
    assert (status, found["error"]) == (1, [])
    assert any("statement_timeout is 5.0 s" in text for text in found["warning"])


@pytest.mark.django_db(transaction=True)
def test_check_and_the_start_of_a_worker_refuse_such_a_database(healthy: dict[str, str], database: Database) -> None:
    for url, says in ((database.reader_url, "lacks SELECT"), (database.ascii_url, "encoding SQL_ASCII")):
        environ = {**healthy, "DATABASE_URL": url}
        for command in (["check", "--database", "default"], ["run_consumer", "--exit-when-caught-up"]):
            ended = _manage(environ, *command)
            assert ended.returncode == 2, (command, ended.stderr)
            assert says in ended.stderr
    ended = _manage({**healthy, "DATABASE_URL": database.ascii_url}, "migrate")
    assert ended.returncode == 2
    assert "encoding SQL_ASCII" in ended.stderr
    assert _manage(healthy, "check", "--database", "default").returncode == 0
