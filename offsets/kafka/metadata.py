"""Metadata of an offset in `__consumer_offsets`: its epoch and worker. Pure."""

import json

from offsets.types import StoredOffset


def metadata_of(stored: StoredOffset) -> str:
    return json.dumps({"epoch": stored.epoch, "worker": stored.worker_id}, separators=(",", ":"))


def stored_offset(next_offset: int, metadata: str | None) -> StoredOffset:
    """An offset with the epoch and worker of its metadata. Foreign metadata gives epoch 0."""
    try:
        fields = json.loads(metadata or "")
        epoch, worker = fields["epoch"], fields["worker"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return StoredOffset(next_offset)
    if type(epoch) is not int or not 0 <= epoch < 2**63 or not isinstance(worker, str):
        return StoredOffset(next_offset)
    return StoredOffset(next_offset, epoch, worker)
