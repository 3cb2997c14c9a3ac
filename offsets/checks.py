"""Django system checks: settings that cannot work together are refused at the start."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register, run_checks
from django.db import DEFAULT_DB_ALIAS
from django.utils.module_loading import import_string

from offsets.configuration import (
    GROUP_PROTOCOLS,
    misconfiguration,
    refusal,
    refused_mirrors,
    refused_slots,
    refused_timeouts,
)
from offsets.database import DATABASE_LOST
from offsets.failpoints import refused_failpoints
from offsets.kafka.validation import refused_client_config
from offsets.monitoring.notifications import refused_setup
from offsets.monitoring.webhook_pools import refused_proxy
from offsets.processing.commit_policy import refused_policy
from offsets.requirements import ask_database, unfit_database
from offsets.text import describe_error

HANDLER_METHODS = ("decode", "combine", "insert", "update", "counted_sql", "counted_by_time_sql")


@register("offsets")
def check_promises(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Semantics with their store, the group protocol, the baseline, and how alerts are sent."""
    group = misconfiguration(settings.GROUP_PROTOCOL, settings.OFFSET_BASELINE, settings.GROUP_INSTANCE_ID)
    alerts = refused_setup(
        settings.ALERT_WEBHOOK_URL,
        settings.ALERT_WEBHOOK_SECRET,
        settings.ALERT_EMAIL_TO,
        settings.EMAIL_HOST,
        starttls=settings.EMAIL_USE_TLS,
        implicit_tls=settings.EMAIL_USE_SSL,
    )
    reasons = [
        ("offsets.E001", refusal(settings.PROCESSING_SEMANTICS, settings.OFFSET_STORE)),
        ("offsets.E004", refused_mirrors(settings.OFFSET_MIRRORS, settings.OFFSET_STORE)),
        ("offsets.E005", refused_slots(settings.OFFSET_STORE, settings.CONSUMER_SLOTS)),
        ("offsets.E006", refused_policy()),
        ("offsets.E002", group),
        ("offsets.E007", alerts or refused_proxy()),
        ("offsets.E008", _refused_kafka()),
        ("offsets.E009", _refused_handler()),
        ("offsets.E012", refused_failpoints()),
    ]
    return [Error(reason, id=number) for number, reason in reasons if reason]


def _refused_kafka() -> str:
    """Why a Kafka client cannot be built; empty when all of them can. Nothing is connected."""
    timeouts = refused_timeouts(settings.GROUP_PROTOCOL, settings.SESSION_TIMEOUT_MS, settings.MAX_POLL_INTERVAL_MS)
    # An unknown protocol has an error of its own.
    return timeouts or (refused_client_config() if settings.GROUP_PROTOCOL in GROUP_PROTOCOLS else "")


def _refused_handler() -> str:
    """Why the batch handler cannot be used; empty when it can be loaded and has the methods of one."""
    path = settings.BATCH_HANDLER
    try:
        imported = import_string(path)
        handler = imported if isinstance(imported, type) else imported()
    except Exception as error:  # a module of the user's, which may raise anything
        return f"BATCH_HANDLER {path!r} cannot be loaded: {describe_error(error).rstrip('.')}."
    missing = [name for name in HANDLER_METHODS if not callable(getattr(handler, name, None))]
    return f"BATCH_HANDLER {path!r} is not a batch handler: it lacks {', '.join(missing)}." if missing else ""


def refused_settings() -> str:
    """The first error of the checks that ask no service; empty when there is none."""
    errors = [message for message in run_checks(tags=["offsets", "analytics"]) if message.is_serious()]
    return errors[0].msg if errors else ""


@register(Tags.database)
def check_database(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **options: Any
) -> list[CheckMessage]:
    """Version, encoding and rights; with `check --database default`, and before `migrate`."""
    if DEFAULT_DB_ALIAS not in (databases or ()):
        return []
    try:
        reasons = unfit_database(ask_database())
    except DATABASE_LOST as error:
        text = " ".join(str(error).split()).rstrip(".?")
        return [Error(f"PostgreSQL is not available: {text}. Check DATABASE_URL.", id="offsets.E010")]
    return [Error(reason, id="offsets.E011") for reason in reasons]


@register(Tags.security, deploy=True)
def check_hosts(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """`*` would switch off the websocket's check of its origin."""
    if "*" in settings.ALLOWED_HOSTS:
        return [
            Error(
                "ALLOWED_HOSTS contains '*': any site could open the dashboard's websocket. Name your hosts.",
                id="offsets.E003",
            )
        ]
    return []
