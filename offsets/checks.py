"""Django system checks: settings that cannot work together are refused at the start."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

from offsets.configuration import misconfiguration, refusal, refused_mirrors, refused_slots
from offsets.monitoring.notifications import refused_setup
from offsets.processing.commit_policy import refused_policy


@register("offsets")
def check_promises(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Semantics with their store, the group protocol, the baseline, and how alerts are sent."""
    group = misconfiguration(settings.GROUP_PROTOCOL, settings.OFFSET_BASELINE, settings.GROUP_INSTANCE_ID)
    alerts = refused_setup(
        settings.ALERT_WEBHOOK_URL, settings.ALERT_WEBHOOK_SECRET, settings.ALERT_EMAIL_TO, settings.EMAIL_HOST
    )
    reasons = [
        ("offsets.E001", refusal(settings.PROCESSING_SEMANTICS, settings.OFFSET_STORE)),
        ("offsets.E004", refused_mirrors(settings.OFFSET_MIRRORS, settings.OFFSET_STORE)),
        ("offsets.E005", refused_slots(settings.OFFSET_STORE, settings.CONSUMER_SLOTS)),
        ("offsets.E006", refused_policy()),
        ("offsets.E002", group),
        ("offsets.E007", alerts),
    ]
    return [Error(reason, id=number) for number, reason in reasons if reason]


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
