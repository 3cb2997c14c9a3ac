"""The only writer of Worker rows: who consumes, and its last heartbeat (by the database's clock)."""

import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection
from django.db.models import F

from offsets import purging
from offsets.models import DatabaseTime, Worker


def new_worker_id() -> str:
    """Random, not derived from host or slot: a successor must never share its predecessor's name."""
    return f"w-{secrets.token_hex(4)}"


@dataclass(slots=True)
class WorkerStats:
    """What a worker reports with each heartbeat."""

    records: int = 0
    events_per_second: float | None = None
    memory_bytes: int | None = None
    batch_in_hand: int = 0
    last_error: str = ""
    #: What it is busy with (`offsets.processing.stuck_detector`), and where that thread stands when it takes too long.
    stage: str = ""
    stage_seconds: float | None = None
    stack: str = ""
    #: Why Kafka refuses it as a member of the group; empty while it is one.
    refusal: str = ""


class StopRequest(NamedTuple):
    """What the Worker row asks of its process: to finish the batch in hand and end, or, evicted, to drop it and end."""

    stop: bool
    evicted: bool


def register(worker_id: str, group_id: str, *, slot: str = "", node: str = "", topics: Iterable[str] = ()) -> None:
    Worker.objects.create(
        worker_id=worker_id,
        group_id=group_id,
        hostname=socket.gethostname(),
        process_id=os.getpid(),
        slot=slot,
        node=node,
        topics=list(topics),
    )


def heartbeat(worker_id: str, stats: WorkerStats) -> StopRequest:
    """Write a heartbeat. Returns what the worker is asked to do: to stop, also when its row is gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_worker SET heartbeat_at = clock_timestamp(), records = %s, events_per_second = %s,"
            " memory_bytes = %s, batch_in_hand = %s, last_error = %s, stage = %s, stage_seconds = %s, stack = %s,"
            " refusal = %s,"
            " state = CASE WHEN stop_requested THEN 'stopping' ELSE 'running' END, stopped_at = NULL"
            " WHERE worker_id = %s RETURNING stop_requested, evicted_at IS NOT NULL",
            [
                stats.records,
                stats.events_per_second,
                stats.memory_bytes,
                stats.batch_in_hand,
                stats.last_error[:2000],
                stats.stage[:300],
                stats.stage_seconds,
                stats.stack[:20_000],
                stats.refusal[:2000],
                worker_id,
            ],
        )
        row = cursor.fetchone()
    return StopRequest(stop=True, evicted=False) if row is None else StopRequest(*row)


def count_fenced(worker_id: str, commits: int = 1) -> None:
    """Count commits of this worker that the fence refused."""
    Worker.objects.filter(pk=worker_id).update(fenced_commits=F("fenced_commits") + commits)


def request_stop(*, node: str = "", worker_id: str = "") -> int:
    """Ask the workers of a Celery node, or one worker, to finish the batch in hand and end."""
    workers = Worker.objects.exclude(state=Worker.State.STOPPED)
    workers = workers.filter(node=node) if node else workers.filter(pk=worker_id)
    return workers.update(stop_requested=True)


def evict(worker_id: str) -> bool:
    """Ask a worker to drop what it has in hand and end; in the transaction that fences its partitions. False when it
    has stopped, or was evicted already.
    """
    running = Worker.objects.filter(pk=worker_id, evicted_at__isnull=True).exclude(state=Worker.State.STOPPED)
    return bool(running.update(stop_requested=True, evicted_at=DatabaseTime()))


def mark_stopped(worker_id: str, stats: WorkerStats | None = None) -> None:
    changes: dict[str, object] = {
        "state": Worker.State.STOPPED,
        "stopped_at": DatabaseTime(),
        "batch_in_hand": 0,
        "stage": "",
        "stage_seconds": None,
    }
    if stats is not None:
        changes |= {"records": stats.records, "last_error": stats.last_error[:2000]}
    Worker.objects.filter(pk=worker_id).update(events_per_second=None, **changes)


def reap(timeout_seconds: float, worker_id: str = "") -> list[str]:
    """Mark workers without a heartbeat for `timeout_seconds` as stopped, all or one. Returns their ids, each once.

    A stopped process that is continued later says so with its next heartbeat, and is shown as running again.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE offsets_worker SET state = 'stopped', stopped_at = clock_timestamp(), events_per_second = NULL"
            " WHERE state <> 'stopped' AND abs(extract(epoch FROM clock_timestamp() - heartbeat_at)) > %s"
            " AND (%s = '' OR worker_id = %s) RETURNING worker_id",
            [timeout_seconds, worker_id, worker_id],
        )
        return [row[0] for row in cursor.fetchall()]


def purge(days: int) -> int:
    """Forget workers that stopped more than `days` ago and own nothing."""
    return purging.in_chunks(
        lambda limit: purging.execute(
            "DELETE FROM offsets_worker WHERE worker_id IN (SELECT worker_id FROM offsets_worker w"
            " WHERE state = 'stopped' AND stopped_at < statement_timestamp() - make_interval(days => %s) AND NOT EXISTS"
            " (SELECT 1 FROM offsets_partitioncheckpoint c WHERE c.owner_id = w.worker_id) LIMIT %s)",
            [days, limit],
        )
    )
