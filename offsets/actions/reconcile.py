"""Bringing the ledger and another store back together, in the direction an operator chooses."""

import uuid
from collections.abc import Sequence

from django.conf import settings
from django.db import transaction

from offsets import journal, ledger
from offsets.actions import audit
from offsets.actions.guards import Actor, Source, bounded_wait, check_allowed, check_reason, name_of, require_live
from offsets.actions.moves import Move
from offsets.errors import RefusedError
from offsets.models import OperatorAction, PartitionCheckpoint
from offsets.stores import drift, open_store
from offsets.stores.base import OffsetStore
from offsets.stores.drift import Drift
from offsets.types import StoredOffset, TopicPartition

KIND = "reconcile"


def compare(group_id: str, store_name: str, checkpoint_ids: Sequence[int]) -> list[Drift]:
    """How far the store stands from the ledger, and kept for the page. Raises RefusedError, ServiceUnavailableError."""
    if store_name == "postgres":
        raise RefusedError("The postgres store is the ledger itself; name another one: kafka, redis or file.")
    wanted = set(checkpoint_ids)
    return [one for one in drift.sample(group_id, open_store(store_name)) if one.checkpoint_id in wanted]


def seeks(found: Sequence[Drift]) -> list[Move]:
    """Towards PostgreSQL every difference is an operator's seek, with all that belongs to one."""
    return [Move(one.checkpoint_id, one.stored) for one in found if one.stored is not None and one.offsets]


def write_to_store(
    store_name: str, found: Sequence[Drift], *, actor: Actor, reason: str, source: Source
) -> list[OperatorAction]:
    """Make the store say what the ledger says. To Kafka, while the group is active, its owners do it: they are asked.

    Raises RefusedError, audited; ServiceUnavailableError when the store does not answer.
    """
    reason = reason.replace("\x00", "").strip()
    at = found[0].checkpoint_id if found else 0
    try:
        check_allowed(KIND, actor)
        check_reason(reason)
        with transaction.atomic(), bounded_wait():
            locked = ledger.lock_checkpoints([one.checkpoint_id for one in found])
            rows = [require_live(one.checkpoint_id, locked.get(one.checkpoint_id)) for one in found]
            change_id = uuid.uuid4()
            done = [_audited(row, one, actor, reason, source, change_id) for row, one in zip(rows, found, strict=True)]
            _write(open_store(store_name), rows)
            return done
    except RefusedError as error:
        audit.refused(KIND, at, actor=actor, reason=reason, source=source, detail=str(error))
        raise


def _audited(
    row: PartitionCheckpoint, seen: Drift, actor: Actor, reason: str, source: Source, change_id: uuid.UUID
) -> OperatorAction:
    detail = f"The {seen.store} store of {name_of(row)} held {seen.stored}; it is told {row.next_offset:,}."
    journal.record(
        *(row.group_id, KIND, f"{detail} By {actor.name}: {reason}"), topic=row.topic, partition=row.partition
    )
    return audit.applied(
        KIND,
        row,
        actor=actor,
        reason=reason,
        source=source,
        before={"store": seen.store, "next_offset": seen.stored, "epoch": seen.stored_epoch},
        after={"store": seen.store, "next_offset": row.next_offset, "epoch": row.epoch},
        detail=detail,
        change_id=change_id,
    )


def _write(store: OffsetStore, rows: Sequence[PartitionCheckpoint]) -> None:
    """Last in the transaction: a store that refuses takes the audit rows with it."""
    owned = [row for row in rows if row.owner_id and store.name == "kafka"]
    if owned and "kafka" not in settings.OFFSET_MIRRORS and settings.OFFSET_STORE != "kafka":
        raise RefusedError("The group is active and does not mirror to Kafka. Add kafka to OFFSET_MIRRORS, or stop it.")
    ledger.request_mirror([row.pk for row in owned])
    unowned = [row for row in rows if row not in owned]
    if unowned:
        by_group: dict[str, dict[TopicPartition, StoredOffset]] = {}
        for row in unowned:
            places = by_group.setdefault(row.group_id, {})
            places[TopicPartition(row.topic, row.partition)] = StoredOffset(row.next_offset, row.epoch)
        for group_id, places in by_group.items():
            refused = store.put(group_id, places)
            if refused:
                raise RefusedError("; ".join(f"{tp}: {why}" for tp, why in sorted(refused.items())))
