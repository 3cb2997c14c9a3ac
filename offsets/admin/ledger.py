"""The ledger in the admin: read-only, with the actions pause, resume and seek."""

from collections.abc import Sequence

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from offsets import models
from offsets.actions import pause
from offsets.actions.guards import Actor, Request, Seen
from offsets.actions.pause import ActionKind
from offsets.admin.base import MAX_SELECTED, Confirmation, ConfirmingAdmin, ReadOnlyAdmin, link, link_to_list
from offsets.admin.seek import SeekAdmin
from offsets.errors import OffsetsError, RefusedError
from offsets.models import PartitionCheckpoint
from offsets.monitoring.lag import lag_records
from offsets.text import whole_number

Checkpoints = QuerySet[PartitionCheckpoint]


@admin.register(models.PartitionCheckpoint)
class PartitionCheckpointAdmin(SeekAdmin, ConfirmingAdmin):
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
    row_noun = "partitions"
    row_order = ("group_id", "topic", "partition")

    @admin.display(description="owner", ordering="owner")
    def owner_link(self, checkpoint: PartitionCheckpoint) -> str | SafeString:
        return link(checkpoint.owner)

    @admin.display(description="ranges")
    def ranges_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.LedgerRange, "Outcome of its offsets", checkpoint__id__exact=checkpoint.pk)

    @admin.display(description="dead letters")
    def dead_letters_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.DeadLetter, "Uncounted records", checkpoint__id__exact=checkpoint.pk)

    @admin.display(description="actions")
    def actions_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.OperatorAction, "Operator actions", checkpoint__id__exact=checkpoint.pk)

    @admin.display(description="lag samples")
    def samples_link(self, checkpoint: PartitionCheckpoint) -> SafeString:
        return link_to_list(models.LagSample, "Lag in the last day", checkpoint__id__exact=checkpoint.pk)

    @admin.action(description="Pause the selected partitions", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: Checkpoints) -> HttpResponse | None:
        return self.confirm(request, queryset, ActionKind.PAUSE)

    @admin.action(description="Resume the selected partitions", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: Checkpoints) -> HttpResponse | None:
        return self.confirm(request, queryset, ActionKind.RESUME)

    def preview(self, kind: str, ids: Sequence[int], actor: Actor) -> Confirmation:
        previews, refused = [], []
        for checkpoint_id in ids:
            try:
                previews.append(pause.preview(ActionKind(kind), checkpoint_id, actor))
            except RefusedError as error:
                refused.append(str(error))
        return Confirmation(
            [shown.checkpoint_id for shown in previews],
            [shown.text for shown in previews],
            [_token(shown.checkpoint_id, shown.seen) for shown in previews],
            refused,
        )

    def apply(self, http_request: HttpRequest, kind: str, ids: Sequence[int], request: Request) -> None:
        """Act on the rows as they were shown on the page; each succeeds or is refused by itself."""
        action_kind = ActionKind(kind)
        for checkpoint_id, seen in _shown_rows(http_request):
            try:
                action = pause.set_paused(action_kind, checkpoint_id, request, seen=seen)
            except OffsetsError as error:
                self.message_user(http_request, str(error), messages.ERROR)
            else:
                self.message_user(http_request, f"{action.target}: {action_kind.done}.", messages.SUCCESS)


def _token(checkpoint_id: int, seen: Seen) -> str:
    return f"{checkpoint_id}:{seen.epoch}:{seen.desired_state}:{seen.owner or ''}"


def _shown_rows(request: HttpRequest) -> list[tuple[int, Seen]]:
    """The tokens that the confirmation page carried. Malformed ones are left out."""
    rows = []
    for token in request.POST.getlist("seen")[:MAX_SELECTED]:
        checkpoint_id, epoch, state, owner = [*token.split(":", 3), "", "", ""][:4]
        numbers = whole_number(checkpoint_id), whole_number(epoch)
        if numbers[0] is not None and numbers[1] is not None:
            rows.append((numbers[0], Seen(numbers[1], owner or None, state)))
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
    list_display = (
        "sampled_at",
        "checkpoint_link",
        "log_start_offset",
        "log_end_offset",
        "high_watermark",
        "next_offset",
        "lag",
    )
    search_fields = ("=checkpoint__topic", "=checkpoint__partition")
    list_select_related = ("checkpoint",)
    exclude = ("checkpoint",)
    readonly_fields = ("checkpoint_link", "lag")
    ordering = ("-id",)

    @admin.display(description="checkpoint")
    def checkpoint_link(self, sample: models.LagSample) -> str | SafeString:
        return link(sample.checkpoint)

    @admin.display
    def lag(self, sample: models.LagSample) -> int | None:
        return lag_records(sample.log_end_offset, sample.next_offset, sample.log_start_offset)


@admin.register(models.JournalEntry)
class JournalEntryAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "level", "kind", "topic", "partition", "worker_id", "message")
    list_filter = ("level", "created_at")
    search_fields = ("kind", "=topic", "=worker_id", "message")
    ordering = ("-id",)


@admin.register(models.Lease)
class LeaseAdmin(ReadOnlyAdmin):
    list_display = ("name", "holder", "epoch", "expires_at", "ttl_seconds")
    search_fields = ("name", "holder")
    ordering = ("name",)


@admin.register(models.LoopRun)
class LoopRunAdmin(ReadOnlyAdmin):
    list_display = ("name", "group_id", "finished_at", "duration_seconds", "holder", "busy_until", "last_error")
    search_fields = ("name", "group_id", "holder")
    ordering = ("key",)


@admin.register(models.InvariantReport)
class InvariantReportAdmin(ReadOnlyAdmin):
    list_display = ("group_id", "ok", "checked_at", "duration_ms")
    list_filter = ("ok",)
    search_fields = ("group_id",)
    ordering = ("group_id",)
