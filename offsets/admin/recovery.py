"""Recovery in the admin: health, replays, incidents; dead letters and workers, with their actions."""

from collections.abc import Sequence

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from offsets import models
from offsets.actions import dead_letters, eviction
from offsets.actions.dead_letter_listing import DeadLetterFilter
from offsets.actions.guards import Actor, Request
from offsets.admin.base import Confirmation, ConfirmingAdmin, ReadOnlyAdmin, decoded, link, link_to_list
from offsets.errors import OffsetsError, RefusedError
from offsets.text import whole_number

DeadLetters = QuerySet[models.DeadLetter]


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
    row_noun = "dead letters"
    row_order = ("checkpoint_id", "offset")

    @admin.action(description="Requeue the selected dead letters", permissions=["operate"])
    def requeue(self, request: HttpRequest, queryset: DeadLetters) -> HttpResponse | None:
        return self.confirm(request, queryset, dead_letters.REQUEUE)

    @admin.action(description="Discard the selected dead letters", permissions=["operate"])
    def discard(self, request: HttpRequest, queryset: DeadLetters) -> HttpResponse | None:
        return self.confirm(request, queryset, dead_letters.DISCARD)

    @admin.action(description="Reopen the selected dead letters", permissions=["operate"])
    def reopen(self, request: HttpRequest, queryset: DeadLetters) -> HttpResponse | None:
        return self.confirm(request, queryset, dead_letters.REOPEN)

    def preview(self, kind: str, ids: Sequence[int], actor: Actor) -> Confirmation:
        # An action is of one group.
        group = models.DeadLetter.objects.values_list("checkpoint__group_id", flat=True).get(pk=ids[0])
        shown = dead_letters.preview(kind, DeadLetterFilter(group, ids=tuple(ids)), actor)
        return Confirmation(ids, [shown.text, *(f"Fails again: {reason}" for reason in shown.reasons)])

    def apply(self, http_request: HttpRequest, kind: str, ids: Sequence[int], request: Request) -> None:
        done = dead_letters.resolve(kind, ids, request)
        text = f"{done.changed:,} changed, {done.still_fail:,} unchanged."
        self.message_user(http_request, text, messages.SUCCESS)

    @admin.display(description="checkpoint")
    def checkpoint_link(self, dead_letter: models.DeadLetter) -> str | SafeString:
        return link(dead_letter.checkpoint)

    @admin.display(description="value")
    def value_preview(self, dead_letter: models.DeadLetter) -> str:
        return decoded(dead_letter.value, limit=80)

    @admin.display(description="key")
    def key_decoded(self, dead_letter: models.DeadLetter) -> str:
        return decoded(dead_letter.key)

    @admin.display(description="value")
    def value_decoded(self, dead_letter: models.DeadLetter) -> str:
        return decoded(dead_letter.value)

    @admin.display(description="headers")
    def headers_decoded(self, dead_letter: models.DeadLetter) -> str:
        return decoded(dead_letter.headers)


def _owned_when_shown(tokens: list[str]) -> dict[str, tuple[int, ...]]:
    """Worker → checkpoints, by the tokens that the confirmation page carried. Malformed ones are left out."""
    owned = {}
    for token in tokens:
        worker_id, _, numbers = token.partition(":")
        checkpoint_ids = [whole_number(number) for number in numbers.split(",") if number]
        if None not in checkpoint_ids:
            owned[worker_id] = tuple(number for number in checkpoint_ids if number is not None)
    return owned


@admin.register(models.Worker)
class WorkerAdmin(ConfirmingAdmin):
    list_display = ("worker_id", "group_id", "slot", "hostname", "process_id", "state", "heartbeat_at", "records")
    list_filter = ("state", "group_id")
    search_fields = ("worker_id", "slot", "hostname", "=process_id")
    readonly_fields = ("checkpoints_link",)
    ordering = ("-started_at",)
    actions = ("evict",)
    row_noun = "workers"

    @admin.action(description="Evict the selected workers", permissions=["operate"])
    def evict(self, request: HttpRequest, queryset: "QuerySet[models.Worker]") -> HttpResponse | None:
        return self.confirm(request, queryset, eviction.KIND)

    def preview(self, kind: str, ids: Sequence[str], actor: Actor) -> Confirmation:
        """With the partitions of each: an assignment that was not shown is not evicted."""
        previews = [eviction.preview(worker_id, actor) for worker_id in ids]
        tokens = [f"{shown.target}:{','.join(map(str, shown.owned))}" for shown in previews]
        return Confirmation(ids, [shown.text for shown in previews], tokens)

    def apply(self, http_request: HttpRequest, kind: str, ids: Sequence[str], request: Request) -> None:
        evicted = []
        owned = _owned_when_shown(http_request.POST.getlist("seen"))
        for worker_id in ids:
            try:
                # Without a token nothing was shown: only a worker without partitions still matches that.
                eviction.evict(worker_id, request, owned=owned.get(worker_id, ()))
                evicted.append(worker_id)
            except OffsetsError as error:
                self.message_user(http_request, str(error), messages.ERROR)
        if not evicted:
            raise RefusedError("No worker was evicted.")
        self.message_user(http_request, f"Evicted: {', '.join(evicted)}.", messages.SUCCESS)

    @admin.display(description="partitions")
    def checkpoints_link(self, worker: models.Worker) -> SafeString:
        return link_to_list(models.PartitionCheckpoint, "Its partitions", q=worker.worker_id)


@admin.register(models.PartitionHealth)
class PartitionHealthAdmin(ReadOnlyAdmin):
    list_display = ("checkpoint", "status", "since", "eta_seconds", "assessed_at")
    list_filter = ("status",)
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")
    list_select_related = ("checkpoint",)
    ordering = ("checkpoint",)


class ReadOnlyInline(admin.TabularInline):  # type: ignore[type-arg]
    """Rows that belong to the one on the page."""

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
