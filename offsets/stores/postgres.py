"""The ledger's checkpoints as an offset store, with which the other stores are compared."""

from collections.abc import Collection, Mapping, Sequence

from django.db import connection, transaction

from offsets import ledger
from offsets.configuration import CAPABILITIES
from offsets.database import DATABASE_LOST, describe_outage
from offsets.errors import RefusedError, ServiceUnavailableError
from offsets.models import PartitionCheckpoint
from offsets.types import StoreCommit, StoredOffset, TopicPartition


class PostgresStore:
    """Reads checkpoints, and advances their `next_offset` within the ledger's ranges.

    It never goes backward or past the ledger end. Anything else needs an operator's seek, with its audit row.
    """

    name = "postgres"
    capabilities = CAPABILITIES["postgres"]

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, StoredOffset]:
        wanted = set(partitions)
        with _translated_errors():
            rows = (
                PartitionCheckpoint.objects.live(group_id)
                .filter(topic__in={tp.topic for tp in wanted})
                .values_list("topic", "partition", "next_offset", "epoch", "owner_id")
            )
            offsets = {TopicPartition(row[0], row[1]): StoredOffset(row[2], row[3], row[4] or "") for row in rows}
        return {tp: stored for tp, stored in offsets.items() if tp in wanted}

    def commit(self, group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
        with _translated_errors(), transaction.atomic():
            return ledger.move_within(group_id, commits)

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        raise RefusedError("Cannot overwrite offsets in the ledger. Use reset_offsets, which is audited.")

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        raise RefusedError("Cannot delete offsets from the ledger. To start a partition again, use rebuild_partition.")

    def warnings(self) -> list[str]:
        with _translated_errors(), connection.cursor() as cursor:
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name IN ('synchronous_commit', 'fsync')")
            return [
                f"PostgreSQL runs with {name}={setting}. A crash of its machine can lose committed offsets."
                for name, setting in cursor.fetchall()
                if setting == "off"
            ]

    def hold(self, group_id: str) -> None:
        """The store serves any number of workers."""

    def close(self) -> None:
        """Nothing to close: Django owns the connection."""


class _translated_errors:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DATABASE_LOST):
            connection.close_if_unusable_or_obsolete()
            raise ServiceUnavailableError(f"{describe_outage(error)}.") from error
