"""The audit log of actions: the only writer of OperatorAction rows."""

import uuid
from collections.abc import Mapping
from datetime import timedelta

from django.db import transaction
from django.db.models import Value

from offsets import purging
from offsets.actions.guards import MAX_REASON_LENGTH, Request, Source
from offsets.models import DatabaseTime, OperatorAction, PartitionCheckpoint
from offsets.monitoring import incidents

MAX_REFUSALS_PER_MINUTE = 20
#: In `after` of the last recorded refusal: how many followed it.
MORE_REFUSED = "more_refused"
_MORE = " Not recorded one by one: "


def applied(
    kind: str,
    checkpoint: PartitionCheckpoint | None,
    request: Request,
    *,
    before: Mapping[str, object],
    after: Mapping[str, object],
    detail: str,
    change_id: uuid.UUID | None = None,
    undoes: OperatorAction | None = None,
    target: str = "",
) -> OperatorAction:
    """Record a change in the transaction that makes it. `target` names anything other than a partition.

    Open incidents of the partition get an event, too.
    """
    if checkpoint is not None:
        incidents.note_action(
            *(checkpoint.group_id, f"{kind.replace('_', ' ').capitalize()} by {request.actor.name}: {request.reason}"),
            checkpoint_ids=[checkpoint.pk],
            automatic=request.source is Source.AUTOMATIC,
        )
    return OperatorAction.objects.create(
        kind=kind,
        checkpoint=checkpoint,
        username=request.actor.name,
        target=(target or str(checkpoint))[:600],
        source=request.source,
        change_id=change_id,
        undoes=undoes,
        reason=request.reason,
        before=dict(before),
        after=dict(after),
        outcome=OperatorAction.Outcome.APPLIED,
        detail=detail,
    )


def complete(action: OperatorAction, after: Mapping[str, object], *, detail: str = "") -> None:
    """Add what is known only after the change: the new epoch, the new checkpoint, how much was possible."""
    action.after, action.detail = dict(after), detail or action.detail
    OperatorAction.objects.filter(pk=action.pk).update(after=action.after, detail=action.detail)


def refused(
    kind: str,
    checkpoint_id: int | None,
    request: Request,
    *,
    detail: str,
    target: str = "",
) -> None:
    """Record a refusal, outside of the transaction that was rolled back; before and after are the same.

    A user who is refused again and again fills no table: after MAX_REFUSALS_PER_MINUTE the last row counts the rest.
    """
    if request.source is not Source.AUTOMATIC and _counted_on_the_last(request.actor.name):
        return
    checkpoint = PartitionCheckpoint.objects.filter(pk=checkpoint_id or 0).first()
    state = state_of(checkpoint) if checkpoint else {}
    OperatorAction.objects.create(
        kind=kind,
        checkpoint=checkpoint,
        username=request.actor.name,
        target=(target or (str(checkpoint) if checkpoint else f"checkpoint {checkpoint_id}"))[:600],
        source=request.source,
        reason=request.reason[:MAX_REASON_LENGTH],
        before=state,
        after=state,
        outcome=OperatorAction.Outcome.REFUSED,
        detail=detail,
    )


def _counted_on_the_last(username: str) -> bool:
    """Whether the user has had as many refusals in the last minute as are recorded one by one."""
    recent = OperatorAction.objects.filter(
        username=username,
        outcome=OperatorAction.Outcome.REFUSED,
        created_at__gt=DatabaseTime() - Value(timedelta(minutes=1)),
    ).order_by("-pk")
    with transaction.atomic():
        rows = list(recent.select_for_update()[:MAX_REFUSALS_PER_MINUTE])
        if len(rows) < MAX_REFUSALS_PER_MINUTE:
            return False
        last = rows[0]
        more = int(last.after.get(MORE_REFUSED, 0)) + 1
        first = last.detail.partition(_MORE)[0]
        OperatorAction.objects.filter(pk=last.pk).update(
            after={**last.after, MORE_REFUSED: more}, detail=f"{first}{_MORE}{more:,} more refused within a minute."
        )
    return True


def state_of(checkpoint: PartitionCheckpoint) -> dict[str, object]:
    """A checkpoint as audit rows keep it."""
    return {
        "desired_state": checkpoint.desired_state,
        "next_offset": checkpoint.next_offset,
        "epoch": checkpoint.epoch,
        "owner": checkpoint.owner_id,
        "baseline_offset": checkpoint.baseline_offset,
        "ledger_end": checkpoint.ledger_end,
        "halt_reason": checkpoint.halt_reason,
        "checkpoint_id": checkpoint.pk,
    }


def purge_refused(days: int) -> int:
    """Delete refusals of more than `days` ago: they changed nothing. What was applied is kept for good."""
    return purging.in_chunks(
        lambda limit: purging.execute(
            "DELETE FROM offsets_operatoraction WHERE id IN (SELECT id FROM offsets_operatoraction"
            " WHERE outcome = 'refused' AND created_at < statement_timestamp() - make_interval(days => %s)"
            " ORDER BY created_at LIMIT %s)",
            [days, limit],
        )
    )
