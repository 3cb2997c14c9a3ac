"""What every admin page here shares: it reads, fast on big tables, and acts through a confirmation page alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

from offsets.actions.guards import MAX_REASON_LENGTH, Actor, Request, Source
from offsets.errors import OffsetsError
from offsets.permissions import can_operate
from offsets.text import preview_text

COUNTED_AT_MOST = 10_000
#: Rows in one action; more belong to the commands.
MAX_SELECTED = 500


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to a limit: the first page must not count a table of a hundred million rows."""

    @cached_property
    def count(self) -> int:
        objects: Any = self.object_list
        if hasattr(objects, "order_by"):
            return int(objects.order_by()[:COUNTED_AT_MOST].count())
        return len(objects)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Read-only: each table has one writing module, and the admin is none of them."""

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


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the confirmation page shows of an action on rows, and the tokens that it gives back."""

    ids: Sequence[Any]
    texts: Sequence[str]
    #: What was seen of the rows: the action is applied to exactly that.
    tokens: Sequence[str] = ()
    #: Why other selected rows cannot be acted on.
    refused: Sequence[str] = ()


class ConfirmingAdmin(ReadOnlyAdmin):
    """Actions in three steps: select rows; review what would happen, and give a reason; apply what was seen."""

    #: What the rows are called in the title.
    row_noun = "rows"
    #: The order of the rows on the page.
    row_order: tuple[str, ...] = ("pk",)

    def preview(self, kind: str, ids: Sequence[Any], actor: Actor) -> Confirmation:
        """What the action would do now. Raises OffsetsError where it would do nothing."""
        raise NotImplementedError

    def apply(self, http_request: HttpRequest, kind: str, ids: Sequence[Any], request: Request) -> None:
        """Act, and report to the user. Raises OffsetsError where nothing was done."""
        raise NotImplementedError

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return can_operate(request.user)

    def confirm(self, request: HttpRequest, queryset: "QuerySet[Any]", kind: str) -> HttpResponse | None:
        """The confirmation page; from there, with a reason, the action."""
        ids = list(queryset.order_by(*self.row_order).values_list("pk", flat=True)[: MAX_SELECTED + 1])
        if len(ids) > MAX_SELECTED:
            self.message_user(request, f"At most {MAX_SELECTED} at once.", messages.ERROR)
            return None
        asked = Request(Actor.of_user(request.user), request.POST.get("reason", ""), Source.ADMIN)
        try:
            if "confirmed" in request.POST and asked.reason:
                self.apply(request, kind, ids, asked)
                return HttpResponseRedirect(request.get_full_path())
            shown = self.preview(kind, ids, asked.actor)
        except OffsetsError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": f"{kind.capitalize()} {self.row_noun}",
            "opts": self.model._meta,
            "action_name": kind,
            "shown": shown,
            "asked_without_reason": "confirmed" in request.POST,
            "max_reason_length": MAX_REASON_LENGTH,
        }
        return TemplateResponse(request, "admin/offsets/confirm.html", context)


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
    """A binary column as text."""
    text = preview_text(None if column is None else bytes(column), limit)
    return "(none)" if text is None else text
