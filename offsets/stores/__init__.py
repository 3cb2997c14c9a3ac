"""Offset stores: PostgreSQL (the ledger itself), Kafka, Redis, and a file."""

from offsets.configuration import unknown_store
from offsets.errors import RefusedError
from offsets.stores.base import OffsetStore


def _class_of(name: str) -> type[OffsetStore]:
    # Imported when used: a worker without Redis need not load its client.
    if name == "postgres":
        from offsets.stores.postgres import PostgresStore

        return PostgresStore
    if name == "kafka":
        from offsets.stores.kafka import KafkaStore

        return KafkaStore
    if name == "redis":
        from offsets.stores.redis import RedisStore

        return RedisStore
    if name == "file":
        from offsets.stores.file import FileStore

        return FileStore
    raise RefusedError(unknown_store(name))


def open_store(name: str) -> OffsetStore:
    """The store of this name, set up from the settings. Raises RefusedError for an unknown one."""
    return _class_of(name)()


def open_beside(name: str) -> OffsetStore | None:
    """The store that a worker keeps its offsets in beside the ledger; None where the ledger is it."""
    return None if name == "postgres" else open_store(name)
