"""What only the Redis store does."""

import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings

from offsets.errors import CorruptStoreError, RefusedError, ServiceUnavailableError
from offsets.stores import redis as redis_module
from offsets.stores.redis import RedisStore
from offsets.types import StoreCommit, StoredOffset, TopicPartition
from streamsocial.stack import Stack
from tests.contract.conftest import StoreHarness, _says_that_it_is_down


def test_redis_says_when_it_would_forget(stack: Stack) -> None:
    client = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    store = RedisStore()
    assert not any("persistence is off" in text for text in store.warnings())
    client.config_set("appendonly", "no")
    try:
        assert any("persistence is off" in text for text in store.warnings())
    finally:
        client.config_set("appendonly", "yes")
        client.close()
        store.close()


@pytest.fixture
def redis_harness(stack: Stack, tmp_path: Path) -> Iterator[tuple[StoreHarness, "redis.Redis"]]:
    made = StoreHarness("redis", tmp_path)
    client = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    yield made, client
    client.close()
    made.store.close()


def _keys(harness: StoreHarness, client: "redis.Redis") -> list[str]:
    return [key for key in client.scan_iter(f"{redis_module.prefix()}*") if harness.group in key]


def test_something_else_under_a_key_of_redis_is_named_and_left_alone(
    redis_harness: tuple[StoreHarness, "redis.Redis"],
) -> None:
    harness, client = redis_harness
    harness.set(1, partition=1)
    [key] = _keys(harness, client)
    client.delete(key)
    client.set(key, "a string")
    refused = harness.store.commit(harness.group, [StoreCommit(harness.tp(p), None, 5, 1, "w-1") for p in range(3)])
    assert refused.keys() == {harness.tp(1)}
    assert key in refused[harness.tp(1)]
    assert client.get(key) == "a string"
    assert harness.store.read(harness.group, [harness.tp(0), harness.tp(2)]).keys() == {harness.tp(0), harness.tp(2)}
    with pytest.raises(CorruptStoreError, match="WRONGTYPE"):
        harness.store.read(harness.group, [harness.tp(0), harness.tp(1)])


@pytest.mark.parametrize(
    "fields", [{"offset": "many"}, {"offset": "-1"}, {"offset": str(2**63)}, {"offset": "5", "epoch": "first"}]
)
def test_what_is_no_offset_in_redis_is_not_believed(
    redis_harness: tuple[StoreHarness, "redis.Redis"], fields: dict[str, str]
) -> None:
    harness, client = redis_harness
    harness.set(1)
    [key] = _keys(harness, client)
    client.hset(key, items=[part for field in fields.items() for part in field])
    with pytest.raises(CorruptStoreError, match=re.escape(key)):
        harness.get()


def test_an_offset_that_another_tool_wrote_to_redis_has_no_epoch(
    redis_harness: tuple[StoreHarness, "redis.Redis"],
) -> None:
    harness, client = redis_harness
    harness.set(1)
    [key] = _keys(harness, client)
    client.delete(key)
    client.hset(key, "offset", "7")
    assert harness.get() == StoredOffset(7, 0, "")
    assert harness.commit(7, 9) == ""


def test_a_redis_that_is_full_is_tried_again(redis_harness: tuple[StoreHarness, "redis.Redis"]) -> None:
    harness, client = redis_harness
    harness.set(10)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(ServiceUnavailableError, match="maxmemory"):
            harness.commit(10, 20)
        assert harness.get() == StoredOffset(10, 1, "w-1")
    finally:
        client.config_set("maxmemory", "0")
    assert harness.commit(10, 20) == ""


def test_a_redis_that_forbids_is_a_refusal(redis_harness: tuple[StoreHarness, "redis.Redis"]) -> None:
    harness, client = redis_harness
    name = f"reader-{uuid.uuid4().hex[:6]}"
    client.execute_command("ACL", "SETUSER", name, "on", ">secret", "~*", "+@all", "-hset", "-config")
    host, _, port = str(settings.REDIS_URL).rpartition("@")[2].removeprefix("redis://").partition("/")[0].partition(":")
    reader = RedisStore(f"redis://{name}:secret@{host}:{port}/0")
    try:
        with pytest.raises(RefusedError, match=r"(?i)permission|ACL"):
            reader.put(harness.group, {harness.tp(): StoredOffset(1)})
        assert reader.read(harness.group, [harness.tp()]) == {}
        assert "unknown" in reader.warnings()[0]
    finally:
        reader.close()
        client.execute_command("ACL", "DELUSER", name)


def test_a_redis_that_never_answers_is_one_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        with _says_that_it_is_down():
            store.read("group", [TopicPartition("t", 0)])
        store.close()


def test_redis_says_how_it_may_lose_offsets(redis_harness: tuple[StoreHarness, "redis.Redis"]) -> None:
    harness, client = redis_harness
    names = ("maxmemory", "maxmemory-policy", "appendfsync")
    before = {name: str(client.config_get(name)[name]) for name in names}
    try:
        client.config_set("appendfsync", "everysec")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "1gb")
        said = " ".join(harness.store.warnings())
        assert "last second" in said
        assert "allkeys-lru" in said
    finally:
        for name, value in before.items():
            client.config_set(name, value)


def test_deployments_with_names_do_not_share_keys(
    redis_harness: tuple[StoreHarness, "redis.Redis"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of a deployment without a name stay as they are: others would be a missing store."""
    harness, client = redis_harness
    place, stored = harness.tp(0), {"": 10, "staging": 20, "production": 30}
    for name, offset in stored.items():
        monkeypatch.setattr(settings, "DEPLOYMENT", name)
        assert harness.store.put(harness.group, {place: StoredOffset(offset, 1, "w-1")}) == {}

    for name, offset in stored.items():
        monkeypatch.setattr(settings, "DEPLOYMENT", name)
        assert harness.get() == StoredOffset(offset, 1, "w-1")
    assert client.hget(f'streamsocial:offsets:{{"{harness.group}"}}:{place}', "offset") == "10"
