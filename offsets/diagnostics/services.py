"""Ask each service once. Each function returns rows, or raises; the report turns an error into a row."""

import socket
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from celery import current_app
from django.conf import settings
from django.core.mail import get_connection
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from redis import Redis

from offsets.diagnostics.judgements import (
    Diagnosis,
    PartitionLag,
    SessionFacts,
    error,
    judge_clock,
    judge_group_limits,
    judge_queues,
    judge_redis,
    judge_retention,
    judge_session,
    judge_tls,
    judge_topic,
    ok,
)
from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.cluster import ClusterQueries
from offsets.models import PartitionCheckpoint
from offsets.monitoring.webhook_pools import proxy_for
from offsets.requirements import ask_database, unfit_database
from offsets.types import TopicPartition

#: How long one question to one service may take.
SECONDS = 3.0
_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})
_TIMEOUTS = (
    "statement_timeout",
    "idle_session_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
)


def is_local(host: str) -> bool:
    return host in _LOCAL or host.startswith("/")


# --- PostgreSQL -----------------------------------------------------------------------------------


def ask_postgres() -> list[Diagnosis]:
    """Version, encoding, rights, clock, timeouts, pooler, TLS, connections, migrations."""
    facts = ask_database()
    rows = [error("PostgreSQL", reason) for reason in unfit_database(facts)]
    if facts.read_only:
        rows.append(error("PostgreSQL", f"takes no writes: {facts.read_only}", "Connect to the primary server."))
    # Without rights, the table of migrations cannot be read either.
    pending = 0 if facts.tables_without_rights else _unapplied_migrations()
    rows = rows or [ok("PostgreSQL", f"version {facts.version}, {facts.encoding}, all rights")]
    return [*rows, _database_clock(), *judge_session(_session(pending))]


def _unapplied_migrations() -> int:
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _database_clock() -> Diagnosis:
    asked = time.time()
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        database = cursor.fetchone()[0]
    answered = time.time()
    return judge_clock("PostgreSQL", database - (asked + answered) / 2, answered - asked)


def _session(unapplied_migrations: int) -> SessionFacts:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting::bigint FROM pg_settings WHERE name = ANY(%s)", [list(_TIMEOUTS)])
        timeouts = dict(cursor.fetchall())
        cursor.execute(
            "SELECT pg_backend_pid(), coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),"
            " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
            " current_setting('max_connections')::int"
        )
        pid, encrypted, connections, max_connections = cursor.fetchone()
    return SessionFacts(
        timeouts.get("statement_timeout", 0),
        timeouts.get("idle_session_timeout", 0),
        timeouts.get("transaction_timeout", 0),
        timeouts.get("idle_in_transaction_session_timeout", 0),
        settings.IDLE_IN_TRANSACTION_TIMEOUT_MS,
        behind_pooler=connection.connection.info.backend_pid != pid,
        encrypted=encrypted,
        local=is_local(str(connection.settings_dict["HOST"])),
        connections=connections,
        max_connections=max_connections,
        unapplied_migrations=unapplied_migrations,
    )


# --- Kafka ----------------------------------------------------------------------------------------


def ask_kafka() -> list[Diagnosis]:
    """Brokers, TLS, the limits of groups, the topic."""
    queries = ClusterQueries(SECONDS)
    cluster = queries.cluster()
    protocol = str(settings.KAFKA_CONFIG.get("security.protocol", "plaintext")).lower()
    hosts = [urlsplit(f"//{broker.strip()}").hostname or "" for broker in settings.KAFKA_BOOTSTRAP_SERVERS.split(",")]
    rows = [
        ok("Kafka", f"{cluster.brokers} broker{'' if cluster.brokers == 1 else 's'}")
        if cluster.has_controller
        else error("Kafka", "the cluster has no controller", "Check the controllers of the cluster."),
        judge_tls(
            "Kafka TLS",
            encrypted=protocol.endswith("ssl"),
            local=all(map(is_local, hosts)),
            variable="KAFKA_CONFIG_SECURITY_PROTOCOL",
        ),
        judge_group_limits(cluster.limits, settings.GROUP_PROTOCOL, settings.SESSION_TIMEOUT_MS),
    ]
    for topic in queries.topics([settings.ENGAGEMENT_TOPIC]):
        rows += judge_topic(topic, settings.EVENT_MAX_BYTES)
    return rows


def ask_retention() -> list[Diagnosis]:
    """The lag of the group's partitions against what Kafka deletes soon. Needs PostgreSQL and Kafka."""
    group, warn_seconds = settings.ENGAGEMENT_GROUP, settings.RETENTION_WARN_SECONDS
    rows = PartitionCheckpoint.objects.live(group)
    places = {TopicPartition(row.topic, row.partition): row.next_offset for row in rows}
    admin = KafkaAdmin(SECONDS)
    bounds = admin.log_bounds(places)
    old_below = _old_below(admin, bounds, warn_seconds)
    lags = [
        PartitionLag(str(tp), places[tp], log.start, log.end, old_below.get(tp, 0))
        for tp, log in sorted(bounds.items())
    ]
    return [judge_retention(group, lags, warn_seconds)]


def _old_below(
    admin: KafkaAdmin, partitions: Iterable[TopicPartition], warn_seconds: float
) -> dict[TopicPartition, int]:
    """The offsets below which Kafka deletes records within `warn_seconds`."""
    places = list(partitions)
    old = {}
    for topic, seconds in admin.retention_seconds({tp.topic for tp in places}).items():
        border = time.time() - max(0.0, seconds - warn_seconds)
        old.update(admin.offsets_for_time([tp for tp in places if tp.topic == topic], round(border * 1000)))
    return old


# --- Redis and Celery -----------------------------------------------------------------------------


def _redis() -> Redis:
    return Redis.from_url(
        settings.REDIS_URL,
        **{**settings.REDIS_OPTIONS, "socket_timeout": SECONDS, "socket_connect_timeout": SECONDS},
    )


def ask_redis() -> list[Diagnosis]:
    """Version, memory, clock, TLS."""
    parts = urlsplit(settings.REDIS_URL)
    with _redis() as client:
        asked = time.time()
        seconds, microseconds = client.time()
        answered = time.time()
        info = client.info()
    clock = judge_clock("Redis", seconds + microseconds / 1e6 - (asked + answered) / 2, answered - asked)
    version = str(info.get("valkey_version") or info.get("redis_version", "unknown"))
    used, maximum = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    return [
        judge_redis(version, str(info.get("maxmemory_policy", "")), used, maximum),
        clock,
        judge_tls(
            "Redis TLS",
            encrypted=parts.scheme == "rediss",
            local=is_local(parts.hostname or ""),
            variable="REDIS_URL (rediss://…)",
        ),
    ]


def ask_celery() -> list[Diagnosis]:
    """The workers that respond, the queues that they consume, and how many messages wait."""
    routes = settings.CELERY_TASK_ROUTES.values()
    needed = sorted({settings.CELERY_TASK_DEFAULT_QUEUE, *(route["queue"] for route in routes)})
    with _redis() as client:  # kombu would retry a broker that is down
        lengths = {name: int(client.llen(name)) for name in needed}
    answers = current_app.control.inspect(timeout=1.5).active_queues() or {}
    consumed = {queue["name"] for queues in answers.values() for queue in queues}
    return [judge_queues(needed, consumed, lengths, len(answers))]


# --- Alerts ---------------------------------------------------------------------------------------


def ask_mail_server() -> list[Diagnosis]:
    """Log in to the mail server; nothing is sent."""
    if not settings.ALERT_EMAIL_TO:
        return []
    mail = get_connection()
    try:
        mail.open()
    except OSError as failure:  # smtplib's errors are, too
        raise ServiceUnavailableError(f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}: {failure}") from failure
    finally:
        mail.close()
    return [ok("mail server", "accepts the login")]


def ask_webhook() -> list[Diagnosis]:
    """Connect to the webhook's host, or to its proxy; nothing is posted."""
    if not settings.ALERT_WEBHOOK_URL:
        return []
    parts = urlsplit(proxy_for(settings.ALERT_WEBHOOK_URL) or settings.ALERT_WEBHOOK_URL)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((str(parts.hostname), port), timeout=SECONDS).close()
    except OSError as failure:
        raise ServiceUnavailableError(f"{parts.hostname}:{port}: {failure}") from failure
    return [ok("webhook", f"{parts.hostname} accepts connections")]
