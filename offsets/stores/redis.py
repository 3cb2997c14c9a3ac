"""Offsets in Redis or Valkey: one hash per partition, one atomic script per commit."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import redis
from django.conf import settings
from redis.exceptions import (
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from offsets import outages
from offsets.configuration import CAPABILITIES
from offsets.errors import CorruptStoreError, OffsetsError, RefusedError, ServiceUnavailableError
from offsets.outages import Meaning
from offsets.stores.base import stale_epoch, unexpected_offset
from offsets.types import StoreCommit, StoredOffset, TopicPartition

PREFIX = "streamsocial:offsets:"
TIMEOUT_SECONDS = 5.0

# One call commits many partitions independently; Redis runs a script atomically. Numbers are compared as text, by
# length first, because Lua's are doubles and offsets can exceed 2^53. A commit that the same worker has already stored
# under the same epoch is accepted again, because its answer may have been lost (`offsets.stores.base.refusal`).
_SCRIPT = """
local function less(a, b)
    if #a ~= #b then return #a < #b end
    return a < b
end
local refused = {}
for i, key in ipairs(KEYS) do
    local base = (i - 1) * 4
    local expected, offset, epoch, worker = ARGV[base + 1], ARGV[base + 2], ARGV[base + 3], ARGV[base + 4]
    local held = redis.pcall('HMGET', key, 'offset', 'epoch', 'worker')
    if held.err then
        refused[#refused + 1] = {i, 'foreign', key}
    else
        local held_offset, held_epoch = held[1] or '', held[2] or '0'
        local again = worker ~= '' and held_offset == offset and held_epoch == epoch and held[3] == worker
        if less(epoch, held_epoch) then
            refused[#refused + 1] = {i, 'epoch', held_epoch}
        elseif expected ~= '*' and expected ~= held_offset and not again then
            refused[#refused + 1] = {i, 'offset', held_offset}
        else
            redis.call('HSET', key, 'offset', offset, 'epoch', epoch, 'worker', worker)
        end
    end
end
return refused
"""
_ANY = "*"
_CLASSES: dict[type[RedisError], Meaning] = {
    ClusterDownError: Meaning.LOST,
    TryAgainError: Meaning.CONTENDED,
    NoPermissionError: Meaning.REFUSING,
    OutOfMemoryError: Meaning.REFUSING,
    ReadOnlyError: Meaning.REFUSING,
}


class RedisStore:
    """Compare-and-set of offset and epoch, in one script for all partitions of a call."""

    name = "redis"
    capabilities = CAPABILITIES["redis"]

    def __init__(self, url: str = "") -> None:
        self._client = redis.Redis.from_url(
            url or settings.REDIS_URL,
            **{**settings.REDIS_OPTIONS, "socket_timeout": TIMEOUT_SECONDS},
            decode_responses=True,
        )
        self._script = self._client.register_script(_SCRIPT)

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, StoredOffset]:
        wanted = list(partitions)
        with _translated_errors():
            pipe = self._client.pipeline(transaction=False)
            for tp in wanted:
                pipe.hmget(_key(group_id, tp), ["offset", "epoch", "worker"])
            rows: list[list[Any]] = pipe.execute()
        return {
            tp: _stored(_key(group_id, tp), row) for tp, row in zip(wanted, rows, strict=True) if row[0] is not None
        }

    def commit(self, group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
        return self._write(
            group_id,
            [
                (c.topic_partition, "" if c.expected is None else str(c.expected), c.next_offset, c.epoch, c.worker_id)
                for c in commits
            ],
        )

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        return self._write(
            group_id,
            [(tp, _ANY, offset.next_offset, offset.epoch, offset.worker_id) for tp, offset in offsets.items()],
        )

    def _write(self, group_id: str, rows: list[tuple[TopicPartition, str, int, int, str]]) -> dict[TopicPartition, str]:
        if not rows:
            return {}
        keys = [_key(group_id, row[0]) for row in rows]
        arguments: list[Any] = [value for row in rows for value in row[1:]]
        with _translated_errors():
            refused = self._script(keys=keys, args=arguments)
        return {rows[int(index) - 1][0]: _reason(rows[int(index) - 1], what, held) for index, what, held in refused}

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        keys = [_key(group_id, tp) for tp in partitions]
        if keys:
            with _translated_errors():
                self._client.delete(*keys)

    def warnings(self) -> list[str]:
        with _translated_errors():
            try:
                config = self._client.config_get("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")
            except ResponseError:
                return ["Cannot read the Redis configuration (CONFIG is not permitted). Persistence is unknown."]
        warnings = []
        if config.get("appendonly") != "yes":
            warnings.append(
                "Redis persistence is off (appendonly no). A restart loses all offsets. Set appendonly yes."
            )
        elif config.get("appendfsync") != "always":
            warnings.append(
                f"Redis runs with appendfsync {config.get('appendfsync')}. A crash of its machine can lose the last "
                "second of offsets."
            )
        policy = config.get("maxmemory-policy") or "noeviction"
        if policy.startswith("allkeys") and config.get("maxmemory", "0") != "0":
            warnings.append(
                f"Redis can evict offsets under memory pressure (maxmemory-policy {policy}). Use noeviction."
            )
        return warnings

    def hold(self, group_id: str) -> None:
        """The store serves any number of workers."""

    def close(self) -> None:
        self._client.close()


def _key(group_id: str, tp: TopicPartition) -> str:
    # JSON, because a group id can be any text. The braces keep a group in one hash slot of a cluster.
    return f"{PREFIX}{{{json.dumps(group_id)}}}:{tp}"


def _stored(key: str, row: Sequence[Any]) -> StoredOffset:
    try:
        next_offset, epoch = int(row[0]), int(row[1] or 0)
    except ValueError:
        next_offset = epoch = -1
    if not (0 <= next_offset < 2**63 and 0 <= epoch < 2**63):
        raise CorruptStoreError(
            f"Invalid offset in Redis at {key}: {row[0]!r}, epoch {row[1]!r}. Correct or delete the key."
        )
    return StoredOffset(next_offset, epoch, row[2] or "")


def _reason(row: tuple[TopicPartition, str, int, int, str], what: str, held: str) -> str:
    if what == "foreign":
        return f"the redis key {held} has another type; delete it"
    if what == "epoch":
        return stale_epoch("redis", row[3], held)
    return unexpected_offset("redis", held, row[1])


class _translated_errors:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, RedisError):
            raise _translated(error) from error


def _translated(error: RedisError) -> OffsetsError:
    text = str(error)
    if not isinstance(error, ResponseError):
        return ServiceUnavailableError(f"Redis is not available: {text}. Check REDIS_URL.")
    # redis-py cuts the code off where it has a class for it.
    meaning = next((known for kind, known in _CLASSES.items() if isinstance(error, kind)), outages.of_redis(text))
    if meaning.unavailable:
        return ServiceUnavailableError(f"Redis cannot store offsets at present: {text}")
    if meaning is Meaning.DATA:
        return CorruptStoreError(f"A Redis key of the offset store has another type: {text}")
    return RefusedError(f"Redis rejected the request: {text}")
