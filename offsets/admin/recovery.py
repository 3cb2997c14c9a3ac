"""What recovery writes, in the admin: health, replays, incidents; dead letters and workers, which can be acted on."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from offsets import models
from offsets.actions import dead_letters, eviction
from offsets.actions.dead_letters import DeadLetterFilter
from offsets.actions.guards import MAX_REASON_LENGTH, Actor, Source
from offsets.admin.base import ReadOnlyAdmin, decoded, link, link_to_list
from offsets.errors import OffsetsError, RefusedError
from offsets.permissions import can_operate

#: Rows in one admin action; more belong to the commands.
MAX_SELECTED = 500

Letters = QuerySet[models.DeadLetter]
Id = TypeVar("Id", int, str)


class ConfirmingAdmin(ReadOnlyAdmin):
    """Actions on selected rows: first a page that says what will happen and asks why, then, from there, the deed."""

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return can_operate(request.user)

    def confirm_or_apply(
        self,
        request: HttpRequest,
        name: str,
        ids: tuple[Id, ...],
        preview: Callable[[tuple[Id, ...]], list[str]],
        apply: Callable[[tuple[Id, ...], str], str],
        seen: Callable[[tuple[Id, ...]], list[str]] = lambda ids: [],
    ) -> HttpResponse | None:
        """`seen` gives tokens of what is shown, which come back as `seen` with the confirmation."""
        if len(ids) > MAX_SELECTED:
            self.message_user(request, f"At most {MAX_SELECTED} at once.", messages.ERROR)
            return None
        reason = request.POST.get("reason", "").strip()
        try:
            if "confirmed" in request.POST and reason:
                self.message_user(request, apply(ids, reason), messages.SUCCESS)
                return HttpResponseRedirect(request.get_full_path())
            texts, tokens = preview(ids), seen(ids)
        except OffsetsError as error:
            self.message_user(request, str(error), messages.ERROR)
            return None
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": f"{name.capitalize()} {self.model._meta.verbose_name_plural}",
            "opts": self.model._meta,
            "action_name": name,
            "texts": texts,
            "ids": ids,
            "tokens": tokens,
            "asked_without_reason": "confirmed" in request.POST,
            "max_reason_length": MAX_REASON_LENGTH,
        }
        return TemplateResponse(request, "admin/offsets/confirm.html", context)


@admin.register(models.DeadLetter)
class DeadLetterAdmin(ConfirmingAdmin):
    list_display = ("__str__", "checkpoint_link", "status", "value_preview", "record_timestamp", "created_at")
    list_filter = ("status", "created_at")
    search_fields = ("=offset", "=error_code", "=checkpoint__topic")
    search_help_text = "An offset, an error code, or a topic."
    list_select_related = ("checkpoint",)
    exclude = ("checkpoint", "key", "value", "headers")
    readonly_fields = ("checkpoint_link", "key_decoded", "value_decoded", "headers_decoded")
    ordering = ("-id",)
    actions = ("requeue", "discard", "reopen")

    @admin.action(description="Requeue the selected dead letters", permissions=["operate"])
    def requeue(self, request: HttpRequest, queryset: Letters) -> HttpResponse | None:
        return self._act(request, queryset, dead_letters.REQUEUE)

    @admin.action(description="Discard the selected dead letters", permissions=["operate"])
    def discard(self, request: HttpRequest, queryset: Letters) -> HttpResponse | None:
        return self._act(request, queryset, dead_letters.DISCARD)

    @admin.action(description="Reopen the selected dead letters", permissions=["operate"])
    def reopen(self, request: HttpRequest, queryset: Letters) -> HttpResponse | None:
        return self._act(request, queryset, dead_letters.REOPEN)

    def _act(self, request: HttpRequest, queryset: Letters, kind: str) -> HttpResponse | None:
        actor = Actor.of_user(request.user)

        def preview(ids: tuple[int, ...]) -> list[str]:
            # An action is of one group, as everything is that an operator does.
            group = models.DeadLetter.objects.values_list("checkpoint__group_id", flat=True).get(pk=ids[0])
            shown = dead_letters.preview(kind, DeadLetterFilter(group, ids=ids), actor)
            return [shown.text, *(f"Fails again: {reason}" for reason in shown.reasons)]

        def apply(ids: tuple[int, ...], reason: str) -> str:
            done = dead_letters.resolve(kind, ids, actor=actor, reason=reason, source=Source.ADMIN)
            return f"{done.changed:,} changed, {done.still_fail:,} left as they are."

        ids = tuple(queryset.order_by("checkpoint_id", "offset").values_list("pk", flat=True)[: MAX_SELECTED + 1])
        return self.confirm_or_apply(request, kind, ids, preview, apply)

    @admin.display(description="checkpoint")
    def checkpoint_link(self, letter: models.DeadLetter) -> str | SafeString:
        return link(letter.checkpoint)

    @admin.display(description="value")
    def value_preview(self, letter: models.DeadLetter) -> str:
        return decoded(letter.value, limit=80)

    @admin.display(description="key")
    def key_decoded(self, letter: models.DeadLetter) -> str:
        return decoded(letter.key)

    @admin.display(description="value")
    def value_decoded(self, letter: models.DeadLetter) -> str:
        return decoded(letter.value)

    @admin.display(description="headers")
    def headers_decoded(self, letter: models.DeadLetter) -> str:
        return decoded(letter.headers)


def _owned_when_shown(tokens: list[str]) -> dict[str, tuple[int, ...]]:
    """Worker → checkpoints, of the tokens that the confirmation page carried; what is no token is left out."""
    found = {}
    for token in tokens:
        worker_id, _, owned = token.partition(":")
        numbers = [part for part in owned.split(",") if part]
        if all(part.isascii() and part.isdigit() and len(part) < 19 for part in numbers):
            found[worker_id] = tuple(map(int, numbers))
    return found


@admin.register(models.Worker)
class WorkerAdmin(ConfirmingAdmin):
    list_display = ("worker_id", "group_id", "slot", "hostname", "process_id", "state", "heartbeat_at", "records")
    list_filter = ("state", "group_id")
    search_fields = ("worker_id", "slot", "hostname", "=process_id")
    readonly_fields = ("checkpoints_link",)
    ordering = ("-started_at",)
    actions = ("evict",)

    @admin.action(description="Evict the selected workers", permissions=["operate"])
    def evict(self, request: HttpRequest, queryset: "QuerySet[models.Worker]") -> HttpResponse | None:
        actor = Actor.of_user(request.user)

        def preview(ids: tuple[str, ...]) -> list[str]:
            return [eviction.preview(worker_id, actor).text for worker_id in ids]

        def seen(ids: tuple[str, ...]) -> list[str]:
            """What each owns: another assignment than the one that was shown is not evicted."""
            shown = (eviction.preview(worker_id, actor) for worker_id in ids)
            return [f"{one.worker_id}:{','.join(map(str, one.owned))}" for one in shown]

        def apply(ids: tuple[str, ...], reason: str) -> str:
            evicted = []
            owned = _owned_when_shown(request.POST.getlist("seen"))
            for worker_id in ids:
                try:
                    eviction.evict(
                        worker_id,
                        actor=actor,
                        reason=reason,
                        source=Source.ADMIN,
                        # Without a token nothing was shown: only a worker that owns nothing is as it was seen then.
                        owned=owned.get(worker_id, ()),
                    )
                    evicted.append(worker_id)
                except OffsetsError as error:
                    self.message_user(request, str(error), messages.ERROR)
            if not evicted:
                raise RefusedError("No worker was evicted.")
            return f"Evicted: {', '.join(evicted)}."

        ids = tuple(queryset.order_by("pk").values_list("pk", flat=True)[: MAX_SELECTED + 1])
        return self.confirm_or_apply(request, eviction.KIND, ids, preview, apply, seen)

    @admin.display(description="partitions")
    def checkpoints_link(self, worker: models.Worker) -> SafeString:
        return link_to_list(models.PartitionCheckpoint, "What it owns", q=worker.worker_id)


@admin.register(models.PartitionHealth)
class PartitionHealthAdmin(ReadOnlyAdmin):
    list_display = ("checkpoint", "status", "since", "eta_seconds", "assessed_at")
    list_filter = ("status",)
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")
    list_select_related = ("checkpoint",)
    ordering = ("checkpoint",)


class ReadOnlyInline(admin.TabularInline):  # type: ignore[type-arg]
    """Rows that belong to the one that is looked at."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, *_: object) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, *_: object) -> bool:
        return False


class ReplayRangeInline(ReadOnlyInline):
    model = models.ReplayRange
    fields = ("checkpoint", "start", "end", "position", "state", "detail")


@admin.register(models.Replay)
class ReplayAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "group_id", "username", "done_offsets", "total_offsets", "counted", "created_at")
    list_filter = ("status", "automatic", "group_id")
    search_fields = ("username", "reason")
    inlines = (ReplayRangeInline,)
    ordering = ("-id",)


class IncidentEventInline(ReadOnlyInline):
    model = models.IncidentEvent
    fields = ("at", "source", "text")
    ordering = ("id",)


class NotificationInline(ReadOnlyInline):
    model = models.Notification
    fields = ("channel", "event", "status", "attempts", "sent_at", "last_error")


@admin.register(models.Incident)
class IncidentAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "severity", "began_at", "opened_at", "closed_at", "summary")
    list_filter = ("kind", "severity", ("closed_at", admin.EmptyFieldListFilter), "group_id")
    search_fields = ("subject", "summary", "=worker_id")
    inlines = (IncidentEventInline, NotificationInline)
    ordering = ("-id",)


@admin.register(models.ReplayRange)
class ReplayRangeAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "replay", "checkpoint", "position", "state")
    list_filter = ("state",)
    search_fields = ("=replay__id", "=checkpoint__topic")
    list_select_related = ("checkpoint", "replay")
    ordering = ("-id",)


@admin.register(models.IncidentEvent)
class IncidentEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "incident", "source", "text")
    search_fields = ("text",)
    list_select_related = ("incident",)
    ordering = ("-id",)


@admin.register(models.Notification)
class NotificationAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "incident", "event", "channel", "status", "attempts", "sent_at")
    list_filter = ("status", "channel")
    search_fields = ("=incident__subject", "last_error")
    list_select_related = ("incident",)
    ordering = ("-id",)
