"""The checkpoint's form in the admin: editing the next offset is a seek, with preview, reason and compare-and-set."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from offsets.actions import moves
from offsets.actions.guards import MAX_REASON_LENGTH, Actor, Request, Seen, Source
from offsets.actions.move_plans import MoveKind
from offsets.actions.moves import Move, MovePreview
from offsets.admin.base import ReadOnlyAdmin
from offsets.errors import OffsetsError
from offsets.models import PartitionCheckpoint
from offsets.permissions import can_operate

_MAX_OFFSET = 2**63 - 1


class SeekForm(forms.Form):
    """First the target; then, with what was seen, the reason."""

    next_offset = forms.IntegerField(min_value=0, max_value=_MAX_OFFSET, help_text="The next offset to read.")
    reason = forms.CharField(
        max_length=MAX_REASON_LENGTH, required=False, widget=forms.Textarea(attrs={"rows": 3, "cols": 60})
    )
    confirmed = forms.BooleanField(required=False, widget=forms.HiddenInput)
    seen_epoch = forms.IntegerField(required=False, widget=forms.HiddenInput)
    seen_offset = forms.IntegerField(required=False, widget=forms.HiddenInput)
    seen_state = forms.CharField(required=False, widget=forms.HiddenInput)
    seen_owner = forms.CharField(required=False, widget=forms.HiddenInput)
    # The target that the reason was given for: another target needs another preview.
    seen_target = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def seen(self) -> Seen | None:
        """What the page showed; None before the first preview, or where the target was changed since."""
        data = self.cleaned_data
        if data["seen_epoch"] is None or data["seen_offset"] is None or data["seen_target"] != data["next_offset"]:
            return None
        return Seen(data["seen_epoch"], data["seen_owner"] or None, data["seen_state"], data["seen_offset"])


class SeekAdmin(ReadOnlyAdmin):
    """Adds `<id>/seek/`, which calls the same action as the page, the API and `reset_offsets`."""

    change_form_template = "admin/offsets/partitioncheckpoint/change_form.html"

    def get_urls(self) -> list[URLPattern]:
        ours = path("<int:checkpoint_id>/seek/", self.admin_site.admin_view(self.seek), name="offsets_seek")
        return [ours, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {**(extra_context or {}), "can_operate": can_operate(request.user)}
        return super().change_view(request, object_id, form_url, context)

    def seek(self, request: HttpRequest, checkpoint_id: int) -> HttpResponseBase:
        checkpoint = PartitionCheckpoint.objects.filter(pk=min(checkpoint_id, _MAX_OFFSET)).first()
        if checkpoint is None:
            raise Http404("This checkpoint does not exist.")
        if not can_operate(request.user):
            return HttpResponse("You may not seek partitions. Ask to join the group 'operator'.", status=403)
        form = SeekForm(request.POST or None, initial={"next_offset": checkpoint.next_offset})
        preview = None
        if form.is_bound and form.is_valid():
            seen = form.seen()
            if form.cleaned_data["confirmed"] and seen is not None:
                done = self._move(request, checkpoint, form, seen)
                if done is not None:
                    return done
            preview = self._preview(request, checkpoint, form)
        return self._page(request, checkpoint, form, preview)

    def _preview(self, request: HttpRequest, checkpoint: PartitionCheckpoint, form: SeekForm) -> MovePreview | None:
        move = Move(checkpoint.pk, form.cleaned_data["next_offset"])
        try:
            return moves.preview(MoveKind.SEEK, [move], Actor.of_user(request.user))[0]
        except OffsetsError as error:
            form.add_error(None, str(error))
            return None

    def _move(
        self, request: HttpRequest, checkpoint: PartitionCheckpoint, form: SeekForm, seen: Seen
    ) -> HttpResponse | None:
        """Strict: exactly what the form showed, or nothing. None leads to another preview."""
        try:
            [action] = moves.move_partitions(
                MoveKind.SEEK,
                [Move(checkpoint.pk, form.cleaned_data["next_offset"], seen)],
                Request(Actor.of_user(request.user), form.cleaned_data["reason"], Source.ADMIN),
                strict=True,
            )
        except OffsetsError as error:
            form.add_error(None, str(error))
            return None
        self.message_user(request, f"{action.detail} Undo: reset_offsets --undo {action.pk}", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:offsets_partitioncheckpoint_change", args=[checkpoint.pk]))

    def _page(
        self, request: HttpRequest, checkpoint: PartitionCheckpoint, form: SeekForm, preview: MovePreview | None
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"Seek {checkpoint.name}",
            "opts": self.model._meta,
            "checkpoint": checkpoint,
            "form": form,
            "preview": preview,
            "max_reason_length": MAX_REASON_LENGTH,
        }
        return TemplateResponse(request, "admin/offsets/partitioncheckpoint/seek.html", context)
