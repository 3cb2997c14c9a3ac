"""Offset stores: PostgreSQL (the ledger itself), Kafka, Redis and file."""

from offsets.configuration import unknown_store
from offsets.errors import RefusedError
from offsets.stores.base import OffsetStore


def _class_of(name: str) -> type[OffsetStore]:
    # Imported on use, so that a worker without Redis does not load its client.
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
    """Open the store of this name with the settings. Raises RefusedError for an unknown name."""
    return _class_of(name)()


def open_beside(name: str) -> OffsetStore | None:
    """Open a worker's offset store outside the ledger. None if the store is the ledger."""
    return None if name == "postgres" else open_store(name)
