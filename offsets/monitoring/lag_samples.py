"""Samples of log bounds and next offsets: the page's memory of lag. The only writer of LagSample rows."""

from collections.abc import Mapping

from django.db import connection

from offsets import journal, leases, purging
from offsets.kafka.admin import KafkaAdmin, LogBounds
from offsets.models import PartitionCheckpoint
from offsets.text import duration
from offsets.types import TopicPartition

#: How long the page waits for the next sampler after one has died.
SAMPLER_SECONDS = 3.0
#: How long a sampler's request to Kafka may take: no longer than the lease, so that few of them wait for a slow broker.
KAFKA_SECONDS = 3.0
DENSE_SECONDS = 300
KEPT_HOURS = 24
#: How far back `thin` looks for dense rows. Older ones, left by a monitor that stopped for longer, expire after a day.
THINNING_HOURS = 1
#: A sample further in the future was not taken by a neighbouring statement, but before the clock was set back.
CLOCK_SECONDS = 2.0


_SAMPLE = """
    WITH future AS (
        SELECT extract(epoch FROM max(sampled_at) - statement_timestamp())::float8 AS seconds FROM offsets_lagsample
        WHERE sampled_at > statement_timestamp() + make_interval(secs => %(clock)s)
    ), dropped AS (
        DELETE FROM offsets_lagsample WHERE (SELECT seconds FROM future) IS NOT NULL
            AND sampled_at > statement_timestamp() - make_interval(secs => %(dense)s)
    )
    INSERT INTO offsets_lagsample
        (checkpoint_id, sampled_at, log_start_offset, log_end_offset, high_watermark, next_offset)
    SELECT c.id, statement_timestamp(), w.log_start, w.log_end, w.high, c.next_offset
    FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(starts)s::bigint[], %(ends)s::bigint[], %(high)s::bigint[])
        AS w(topic, partition, log_start, log_end, high)
    JOIN offsets_partitioncheckpoint c USING (topic, partition)
    WHERE c.group_id = %(group)s AND c.retired_at IS NULL ORDER BY c.id
    RETURNING (SELECT seconds FROM future)
"""


def sample(group_id: str, watermarks: Mapping[TopicPartition, LogBounds]) -> int:
    """Record the log bounds and next offset of every live checkpoint of the group. Returns how many were recorded.

    One statement and one moment for all, so that a total over partitions is a total of one sweep. Partitions
    without a watermark (no leader, unknown) get no row: their lag is unknown, not old. Samples from the future were
    taken before the database's clock was set back: they go, with those that would mix with the new ones.
    """
    known = sorted(watermarks)
    if not known:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            _SAMPLE,
            {
                "clock": CLOCK_SECONDS,
                "dense": DENSE_SECONDS,
                "topics": [tp.topic for tp in known],
                "partitions": [tp.partition for tp in known],
                "starts": [watermarks[tp].start for tp in known],
                "ends": [watermarks[tp].end for tp in known],
                "high": [watermarks[tp].high_watermark for tp in known],
                "group": group_id,
            },
        )
        rows = cursor.fetchall()
    if rows and rows[0][0] is not None:
        text = f"The database's clock was set back by about {duration(rows[0][0])}; the last samples were dropped."
        journal.record(group_id, "clock_set_back", text, level="warning")
    return len(rows)


def sample_group(group_id: str, holder: str, admin: KafkaAdmin) -> bool:
    """Sample all live partitions of a group, unless another process does; False then.

    Monitors and workers both try, so that the lag is known with either of them; a short lease picks one. Call it
    outside of any transaction: it waits for Kafka. Raises OffsetsError while Kafka does not respond.
    """
    if leases.acquire(f"sampler:{group_id}", holder, SAMPLER_SECONDS) is None:
        return False
    live = PartitionCheckpoint.objects.live(group_id)
    partitions = [TopicPartition(*row) for row in live.values_list("topic", "partition")]
    sample(group_id, admin.log_bounds_and_watermarks(partitions))
    return True


def thin() -> int:
    """Keep every sample for five minutes, then the first of each minute for a day. Returns how many were deleted."""
    expired = purging.in_chunks(
        lambda limit: purging.execute(
            "DELETE FROM offsets_lagsample WHERE id IN (SELECT id FROM offsets_lagsample"
            " WHERE sampled_at < statement_timestamp() - make_interval(hours => %s) ORDER BY sampled_at LIMIT %s)",
            [KEPT_HOURS, limit],
        )
    )
    return expired + purging.in_chunks(
        lambda limit: purging.execute(
            "DELETE FROM offsets_lagsample WHERE id IN (SELECT s.id FROM offsets_lagsample s"
            " WHERE s.sampled_at < statement_timestamp() - make_interval(secs => %s)"
            " AND s.sampled_at > statement_timestamp() - make_interval(hours => %s)"
            " AND EXISTS (SELECT 1 FROM offsets_lagsample earlier WHERE earlier.checkpoint_id = s.checkpoint_id"
            " AND earlier.sampled_at >= date_trunc('minute', s.sampled_at)"
            " AND earlier.sampled_at < s.sampled_at) LIMIT %s)",
            [DENSE_SECONDS, THINNING_HOURS, limit],
        )
    )
