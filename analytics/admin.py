"""Metric rows in the admin, read-only."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from analytics import models
from analytics.models import Dimension
from offsets.admin.base import ReadOnlyAdmin

_COUNTS = ("views", "likes", "comments", "shares")


class MetricAdmin(ReadOnlyAdmin):
    """Rows show their checkpoint; one statement reads all names of a page."""

    list_select_related = ("checkpoint",)
    ordering = ("-id",)

    @admin.display(description="checkpoint")
    def checkpoint_name(self, row: Any) -> str:
        return str(row.checkpoint)


@admin.register(models.EngagementTotal)
class EngagementTotalAdmin(MetricAdmin):
    list_display = ("id", "dimension", "entity_id", "checkpoint_name", *_COUNTS)
    list_filter = ("dimension",)
    search_fields = ("=entity_id",)
    search_help_text = "Exact id of a content item or user."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Filter by dimension as well: the index begins with it."""
        rows, duplicates = super().get_search_results(request, queryset, search_term)
        return (rows.filter(dimension__in=Dimension.values) if search_term else rows), duplicates


@admin.register(models.EngagementDelta)
class EngagementDeltaAdmin(MetricAdmin):
    list_display = ("id", "dimension", "entity_id", "checkpoint_name", *_COUNTS)
    search_fields = ("=entity_id",)
    search_help_text = "Exact id of a content item or user. Deltas are folded into totals within seconds."


@admin.register(models.EngagementMinute)
class EngagementMinuteAdmin(MetricAdmin):
    list_display = ("minute", "checkpoint_name", *_COUNTS)
    list_filter = ("minute",)
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")


@admin.register(models.ImplausibleTime)
class ImplausibleTimeAdmin(MetricAdmin):
    list_display = ("id", "checkpoint_name", "source", "unit", "events", "first_seen_at", "last_seen_at")
    list_filter = ("source", "unit")
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")
