"""Reconcile the ledger with another store, in the direction that the operator chooses."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.attempt import Attempt, attempt
from offsets.actions.guards import Actor, Preview, Request, UnknownPartitionError, check_allowed, require_live
from offsets.actions.moves import Move
from offsets.errors import RefusedError, StalePreviewError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.stores import drift, open_store
from offsets.stores.drift import Drift
from offsets.types import StoredOffset, TopicPartition

KIND = "reconcile"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilePreview(Preview):
    #: What the store holds; to be given back, so that nothing newer is overwritten.
    stored: int | None

    def as_json(self) -> dict[str, Any]:
        return {**Preview.as_json(self), "stored": self.stored}


def compare(group_id: str, store_name: str, checkpoint_ids: Sequence[int]) -> list[Drift]:
    """How far the store differs from the ledger; stored for the page. Raises RefusedError, ServiceUnavailableError."""
    if store_name == "postgres":
        raise RefusedError("The postgres store is the ledger itself. Name another store: kafka, redis or file.")
    wanted = set(checkpoint_ids)
    with closing(open_store(store_name)) as store:
        return [seen for seen in drift.sample(group_id, store) if seen.checkpoint_id in wanted]


def preview(group_id: str, store_name: str, checkpoint_id: int, actor: Actor) -> ReconcilePreview:
    """Say what `write_to_store` would do to one partition. Raises as `difference` does; changes nothing."""
    check_allowed(KIND, actor)
    seen = difference(group_id, store_name, checkpoint_id)
    return ReconcilePreview(kind=KIND, target=str(seen.topic_partition), text=_in_words(seen), stored=seen.stored)


def difference(group_id: str, store_name: str, checkpoint_id: int) -> Drift:
    """How far the store differs from the ledger. Raises UnknownPartitionError, RefusedError where the two agree."""
    drifts = compare(group_id, store_name, [checkpoint_id])
    if not drifts:
        raise UnknownPartitionError(f"Unknown checkpoint {checkpoint_id}.")
    if drifts[0].offsets == 0:
        raise RefusedError(f"The {store_name} store of {drifts[0].topic_partition} agrees with the ledger.")
    return drifts[0]


def check_stored(seen: Drift, stored: int | None) -> None:
    """Raises StalePreviewError where the store does not hold what the preview showed."""
    if seen.stored != stored:
        raise StalePreviewError(
            f"The {seen.store} store of {seen.topic_partition} had {_offset(stored)} when you looked, now "
            f"{_offset(seen.stored)}. Nothing was changed; refresh the preview."
        )


def _in_words(seen: Drift) -> str:
    follow = "" if seen.stored is None else f" To update the ledger instead, seek the partition to {seen.stored:,}."
    return (
        f"The {seen.store} store of {seen.topic_partition} has {_offset(seen.stored)}, the ledger "
        f"{seen.ledger_next_offset:,}. Writes the ledger's offset to the store; nothing is counted or lost.{follow}"
    )


def _offset(offset: int | None) -> str:
    return "no offset" if offset is None else f"{offset:,}"


def seeks(drifts: Sequence[Drift]) -> list[Move]:
    """Towards PostgreSQL, every difference is a seek by the operator."""
    return [Move(seen.checkpoint_id, seen.stored) for seen in drifts if seen.stored is not None and seen.offsets]


def write_to_store(store_name: str, drifts: Sequence[Drift], request: Request) -> list[OperatorAction]:
    """Write the ledger's offsets to the store. While the group is active, its owners are asked to write to Kafka.

    The store is written first, and no row is locked meanwhile: it refuses an offset of an earlier epoch than it holds,
    so that a claim or a seek since wins. Raises RefusedError, audited; ServiceUnavailableError when the store does not
    answer.
    """
    checkpoint_ids = [seen.checkpoint_id for seen in drifts]
    with attempt(KIND, request, checkpoint_ids[0] if drifts else 0) as change:
        known = PartitionCheckpoint.objects.in_bulk(checkpoint_ids)
        rows = [require_live(checkpoint_id, known.get(checkpoint_id)) for checkpoint_id in checkpoint_ids]
        mirrored = _mirrored(store_name, rows)
        _write(store_name, [row for row in rows if row not in mirrored])
        with change.transaction():
            ledger.lock_checkpoints(checkpoint_ids)
            ledger.request_mirror([row.pk for row in mirrored])
            return [_audited(row, seen, change) for row, seen in zip(rows, drifts, strict=True)]


def _audited(row: PartitionCheckpoint, seen: Drift, change: Attempt) -> OperatorAction:
    request = change.request
    detail = f"The {seen.store} store of {row.name} held {seen.stored}; it is set to {row.next_offset:,}."
    journal.record(
        *(row.group_id, KIND, f"{detail} By {request.actor.name}: {request.reason}"),
        topic=row.topic,
        partition=row.partition,
    )
    return audit.applied(
        *(KIND, row, request),
        before={"store": seen.store, "next_offset": seen.stored, "epoch": seen.stored_epoch},
        after={"store": seen.store, "next_offset": row.next_offset, "epoch": row.epoch},
        detail=detail,
        change_id=change.change_id,
    )


def _mirrored(store_name: str, rows: Sequence[PartitionCheckpoint]) -> list[PartitionCheckpoint]:
    """The partitions whose owners must write to the store: only members of an active group can commit to Kafka."""
    owned = [row for row in rows if row.owner_id and store_name == "kafka"]
    if owned and "kafka" not in settings.OFFSET_MIRRORS and settings.OFFSET_STORE != "kafka":
        raise RefusedError("The group is active and does not mirror to Kafka. Add kafka to OFFSET_MIRRORS, or stop it.")
    return owned


def _write(store_name: str, rows: Sequence[PartitionCheckpoint]) -> None:
    """Write the offsets of partitions without an owner that must write them itself."""
    by_group: dict[str, dict[TopicPartition, StoredOffset]] = {}
    for row in rows:
        places = by_group.setdefault(row.group_id, {})
        places[TopicPartition(row.topic, row.partition)] = StoredOffset(row.next_offset, row.epoch)
    if not by_group:
        return
    with closing(open_store(store_name)) as store:
        for group_id, places in by_group.items():
            refused = store.put(group_id, places)
            if refused:
                raise RefusedError("; ".join(f"{tp}: {why}" for tp, why in sorted(refused.items())))
