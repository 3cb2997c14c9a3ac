"""Offset stores: PostgreSQL (the ledger itself), Kafka, Redis, and a file."""

from offsets.errors import RefusedError
from offsets.stores.base import OffsetStore, StoreCapabilities, StoreCommit, StoredOffset

NAMES = ("postgres", "kafka", "redis", "file")

__all__ = [
    "NAMES",
    "OffsetStore",
    "StoreCapabilities",
    "StoreCommit",
    "StoredOffset",
    "capabilities_of",
    "open_beside",
    "open_store",
]


def _class_of(name: str) -> type[OffsetStore]:
    # Imported when used: a worker without Redis need not load its client.
    if name == "postgres":
        from offsets.stores.postgres import PostgresStore

        return PostgresStore
    if name == "kafka":
        from offsets.kafka.store import KafkaStore

        return KafkaStore
    if name == "redis":
        from offsets.stores.redis import RedisStore

        return RedisStore
    if name == "file":
        from offsets.stores.file import FileStore

        return FileStore
    raise RefusedError(f"There is no offset store {name!r}; use one of: {', '.join(NAMES)}.")


def open_store(name: str) -> OffsetStore:
    """The store of this name, set up from the settings. Raises RefusedError for an unknown one."""
    return _class_of(name)()


def capabilities_of(name: str) -> StoreCapabilities:
    """What the store of this name can do. Raises RefusedError for an unknown one."""
    return _class_of(name).capabilities


def open_beside(name: str) -> OffsetStore | None:
    """The store that a worker keeps its offsets in beside the ledger; None where the ledger is it."""
    return None if name == "postgres" else open_store(name)
