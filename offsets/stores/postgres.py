"""The checkpoint as an offset store: what every other store is measured against."""

from collections.abc import Collection, Mapping, Sequence

from django.db import connection, transaction

from offsets import ledger
from offsets.configuration import CAPABILITIES
from offsets.database import DATABASE_LOST
from offsets.errors import RefusedError, ServiceUnavailableError
from offsets.models import PartitionCheckpoint
from offsets.types import StoreCommit, StoredOffset, TopicPartition


class PostgresStore:
    """Reads checkpoints and moves their `next_offset` within what the ledger holds.

    Forward only, and never past the ledger's end: anything else is an operator's seek, with its audit row.
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
            stored = {TopicPartition(row[0], row[1]): StoredOffset(row[2], row[3], row[4] or "") for row in rows}
        return {tp: offset for tp, offset in stored.items() if tp in wanted}

    def commit(self, group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
        with _translated_errors(), transaction.atomic():
            return ledger.move_within(group_id, commits)

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        raise RefusedError("The ledger cannot be written from outside. Use reset_offsets, which is audited.")

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        raise RefusedError("The ledger deletes no offsets. Use rebuild_partition to restart a partition.")

    def warnings(self) -> list[str]:
        with _translated_errors(), connection.cursor() as cursor:
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name IN ('synchronous_commit', 'fsync')")
            return [
                f"PostgreSQL runs with {name}={setting}: a crash of its machine may lose committed offsets."
                for name, setting in cursor.fetchall()
                if setting == "off"
            ]

    def hold(self, group_id: str) -> None:
        """It serves any number of workers."""

    def close(self) -> None:
        """The connection is Django's."""


class _translated_errors:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, DATABASE_LOST):
            connection.close_if_unusable_or_obsolete()
            raise ServiceUnavailableError(f"PostgreSQL is not available: {' '.join(str(error).split())}") from error
