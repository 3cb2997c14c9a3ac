"""The ledger in the admin: everything can be read and followed; pause, resume and seek can be done."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from offsets import models
from offsets.actions.guards import MAX_REASON_LENGTH, Actor, Seen, Source
from offsets.actions.pause import ActionKind, preview, set_paused
from offsets.admin.base import ReadOnlyAdmin, link, link_to_list
from offsets.admin.seek import SeekAdmin
from offsets.errors import OffsetsError, RefusedError
from offsets.models import PartitionCheckpoint
from offsets.permissions import can_operate

#: Partitions in one admin action; more belong to `manage.py pause_partitions`.
MAX_SELECTED = 500

Checkpoints = QuerySet[PartitionCheckpoint]


@admin.register(models.PartitionCheckpoint)
class PartitionCheckpointAdmin(SeekAdmin):
    list_display = (
        "__str__",
        "owner_link",
        "epoch",
        "next_offset",
        "desired_state",
        "halt_reason",
        "committed_at",
        "retired_at",
    )
    list_filter = ("desired_state", "halt_reason", ("retired_at", admin.EmptyFieldListFilter), "topic", "group_id")
    search_fields = ("group_id", "topic", "=partition", "=owner__worker_id")
    list_select_related = ("owner",)
    exclude = ("owner", "tip_range", "last_action")
    readonly_fields = ("owner_link", "ranges_link", "dead_letters_link", "actions_link", "samples_link")
    ordering = ("group_id", "topic", "partition", "-id")
    actions = ("pause", "resume")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return can_operate(request.user)

    @admin.display(description="owner", ordering="owner")
    def owner_link(self, checkpoint: PartitionCheckpoint) -> str | SafeString:
        return link(checkpoint.owner)

    @admin.display(description="ranges")
    def ranges_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.LedgerRange, "What became of its offsets", checkpoint__id__exact=checkpoint.pk)

    @admin.display(description="dead letters")
    def dead_letters_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.DeadLetter, "Records not counted", checkpoint__id__exact=checkpoint.pk)

    @admin.display(description="actions")
    def actions_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.OperatorAction, "What operators did", checkpoint__id__exact=checkpoint.pk)

    @admin.display(description="lag samples")
    def samples_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.LagSample, "Lag of the last day", checkpoint__id__exact=checkpoint.pk)

    @admin.action(description="Pause the selected partitions", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: Checkpoints) -> HttpResponse | None:
        return self._confirm_or_apply(request, queryset, ActionKind.PAUSE)

    @admin.action(description="Resume the selected partitions", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: Checkpoints) -> HttpResponse | None:
        return self._confirm_or_apply(request, queryset, ActionKind.RESUME)

    def _confirm_or_apply(self, request: HttpRequest, queryset: Checkpoints, kind: ActionKind) -> HttpResponse | None:
        """First the page that shows what will happen and asks why; then, from that page, the action."""
        if "confirmed" in request.POST and request.POST.get("reason", "").strip():
            self._apply(request, kind)
            return HttpResponseRedirect(request.get_full_path())
        selected = list(queryset.order_by("group_id", "topic", "partition")[: MAX_SELECTED + 1])
        if len(selected) > MAX_SELECTED:
            self.message_user(request, f"At most {MAX_SELECTED} partitions at once.", messages.ERROR)
            return None
        previews, refused = [], []
        for checkpoint in selected:
            try:
                previews.append(preview(kind, checkpoint.pk, Actor.of_user(request.user)))
            except RefusedError as error:
                refused.append(str(error))
        context = {
            **self.admin_site.each_context(request),
            "title": f"{kind.value.capitalize()} partitions",
            "opts": self.model._meta,
            "action_name": kind.value,
            "previews": previews,
            "refused": refused,
            "asked_without_reason": "confirmed" in request.POST,
            "max_reason_length": MAX_REASON_LENGTH,
        }
        return TemplateResponse(request, "admin/offsets/partitioncheckpoint/confirm_action.html", context)

    def _apply(self, request: HttpRequest, kind: ActionKind) -> None:
        """Act on exactly those rows, as they were shown on the page; each succeeds or is refused by itself."""
        for checkpoint_id, seen in _shown_rows(request):
            try:
                action = set_paused(
                    kind,
                    checkpoint_id,
                    actor=Actor.of_user(request.user),
                    reason=request.POST.get("reason", ""),
                    source=Source.ADMIN,
                    seen=seen,
                )
            except OffsetsError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{action.target}: {kind.done}.", messages.SUCCESS)


def _shown_rows(request: HttpRequest) -> list[tuple[int, Seen]]:
    """The tokens that the confirmation page carried: `id:epoch:desired_state:owner`. Malformed ones are left out."""
    rows = []
    for token in request.POST.getlist("seen")[:MAX_SELECTED]:
        checkpoint_id, epoch, state, owner = [*token.split(":", 3), "", "", ""][:4]
        if all(part.isascii() and part.isdigit() and len(part) < 19 for part in (checkpoint_id, epoch)):
            rows.append((int(checkpoint_id), Seen(int(epoch), owner or None, state)))
    return rows


@admin.register(models.LedgerRange)
class LedgerRangeAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "checkpoint_link", "kind", "records", "failed_records", "epoch", "created_at")
    list_filter = ("kind",)
    search_fields = ("=checkpoint__topic", "=checkpoint__partition", "=batch_id")
    list_select_related = ("checkpoint",)
    exclude = ("checkpoint",)
    readonly_fields = ("checkpoint_link",)
    ordering = ("-id",)

    @admin.display(description="checkpoint")
    def checkpoint_link(self, row: models.LedgerRange) -> str | SafeString:
        return link(row.checkpoint)


@admin.register(models.OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "kind", "target", "username", "source", "outcome", "reason")
    list_filter = ("outcome", "kind", "source", "created_at")
    search_fields = ("username", "target", "reason")
    exclude = ("checkpoint",)
    readonly_fields = ("checkpoint_link",)
    ordering = ("-id",)

    @admin.display(description="checkpoint")
    def checkpoint_link(self, action: models.OperatorAction) -> str | SafeString:
        return link(action.checkpoint)


@admin.register(models.StoreOffset)
class StoreOffsetAdmin(ReadOnlyAdmin):
    list_display = ("checkpoint_link", "store", "next_offset", "ledger_next_offset", "epoch", "seen_at")
    list_filter = ("store",)
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")
    list_select_related = ("checkpoint",)
    exclude = ("checkpoint",)
    readonly_fields = ("checkpoint_link",)
    ordering = ("checkpoint", "store")

    @admin.display(description="checkpoint")
    def checkpoint_link(self, row: models.StoreOffset) -> str | SafeString:
        return link(row.checkpoint)


@admin.register(models.LagSample)
class LagSampleAdmin(ReadOnlyAdmin):
    list_display = ("sampled_at", "checkpoint_link", "log_start_offset", "log_end_offset", "next_offset", "lag")
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")
    list_select_related = ("checkpoint",)
    exclude = ("checkpoint",)
    readonly_fields = ("checkpoint_link", "lag")
    ordering = ("-id",)

    @admin.display(description="checkpoint")
    def checkpoint_link(self, sample: models.LagSample) -> str | SafeString:
        return link(sample.checkpoint)

    @admin.display
    def lag(self, sample: models.LagSample) -> int:
        return max(0, sample.log_end_offset - sample.next_offset)


@admin.register(models.JournalEntry)
class JournalEntryAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "level", "kind", "topic", "partition", "worker_id", "message")
    list_filter = ("level", "created_at")
    search_fields = ("kind", "=topic", "=worker_id", "message")
    ordering = ("-id",)


@admin.register(models.Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ("name", "holder", "epoch", "expires_at")
    search_fields = ("name", "holder")
    ordering = ("name",)


@admin.register(models.InvariantReport)
class InvariantReportAdmin(ReadOnlyAdmin):
    list_display = ("group_id", "ok", "checked_at", "duration_ms")
    list_filter = ("ok",)
    search_fields = ("group_id",)
    ordering = ("group_id",)
