"""What every admin page here shares: it reads, fast on big tables, and writes nothing."""

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from offsets.text import preview_text

COUNTED_AT_MOST = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts to a limit: a table of a hundred million rows must not be counted to show its first page."""

    @cached_property
    def count(self) -> int:
        objects: Any = self.object_list
        if hasattr(objects, "order_by"):
            return int(objects.order_by()[:COUNTED_AT_MOST].count())
        return len(objects)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Each table has one writing module; the admin is none of them."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    # No bulk delete, nor any other action unless a subclass names it.
    actions: Any = ()

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def link(target: Model | None) -> str | SafeString:
    """A link to the admin page of a row."""
    if target is None:
        return "(none)"
    meta = target._meta
    try:
        url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[target.pk])
    except NoReverseMatch:
        return str(target)
    return format_html('<a href="{}">{}</a>', url, target)


def link_to_list(model: type[Model], text: str, **filters: object) -> SafeString:
    """A link to the list of those rows of another table that match."""
    meta = model._meta
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist", query=filters)
    return format_html('<a href="{}">{}</a>', url, text)


def decoded(column: bytes | memoryview | None, limit: int = 10_000) -> str:
    """A binary column for a reader."""
    text = preview_text(None if column is None else bytes(column), limit)
    return "(none)" if text is None else text
