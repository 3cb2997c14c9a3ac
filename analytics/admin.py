"""Metric rows in the admin: to look at, never to change."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from analytics import models
from analytics.models import Dimension
from offsets.admin.base import ReadOnlyAdmin

_COUNTS = ("views", "likes", "comments", "shares")


class MetricAdmin(ReadOnlyAdmin):
    """Rows name their checkpoint, and read all names of a page in the page's one statement."""

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
    search_help_text = "The id of a content or a user, exactly."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Naming the dimensions lets the search use the index, which begins with them."""
        found, duplicates = super().get_search_results(request, queryset, search_term)
        return (found.filter(dimension__in=Dimension.values) if search_term else found), duplicates


@admin.register(models.EngagementDelta)
class EngagementDeltaAdmin(MetricAdmin):
    list_display = ("id", "dimension", "entity_id", "checkpoint_name", *_COUNTS)
    search_fields = ("=entity_id",)
    search_help_text = "The id of a content or a user, exactly. Deltas are few: they are folded into totals."


@admin.register(models.EngagementMinute)
class EngagementMinuteAdmin(MetricAdmin):
    list_display = ("minute", "checkpoint_name", *_COUNTS)
    list_filter = ("minute",)
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")
