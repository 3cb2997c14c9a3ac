"""Django system checks: reject invalid dimensions before anything starts."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from analytics.dimensions import refused_dimensions


@register("analytics")
def check_dimensions(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Check ENGAGEMENT_DIMENSIONS, because each new checkpoint freezes it."""
    reason = refused_dimensions(settings.ENGAGEMENT_DIMENSIONS)
    return [Error(reason, id="analytics.E001")] if reason else []
