"""The websocket: snapshots, flow control, and what it survives."""

import asyncio
import json

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels_redis.core import RedisChannelLayer
from django.conf import settings
from redis.exceptions import TimeoutError as RedisTimeoutError

from analytics.dashboard import consumers, feed
from analytics.dashboard.broadcast import Packet, channel_group, pack, send, send_snapshot, unpack
from analytics.dashboard.read_model import Dashboard
from offsets.models import PartitionCheckpoint
from streamsocial.environment import deployment_name
from tests.support.page_rows import GROUP, make_checkpoint
from tests.support.websocket import close_code, next_snapshot, socket

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at:UserWarning"),
]


FAR_AHEAD = 10**13 * 9


async def acknowledge(communicator, snapshot):
    await communicator.send_json_to({"type": "ack", "sequence": snapshot["sequence"]})


def silence_the_database(monkeypatch):
    """After the first snapshot nothing comes but what the test broadcasts."""
    monkeypatch.setattr(feed, "SILENCE_SECONDS", 3600.0)


def packet(sequence, **content):
    return Packet(sequence, json.dumps({"sequence": sequence} | content))


async def broadcast(number):
    await get_channel_layer().group_send(channel_group(GROUP), pack(packet(FAR_AHEAD + number)))


async def until_listening(communicator):
    """Broadcast until the socket hears it: its process joins the group a moment after the socket opens.

    Returns the snapshot it heard, acknowledged.
    """
    for number in range(100):
        await broadcast(number)
        try:
            message = await asyncio.wait_for(communicator.output_queue.get(), 0.1)
        except TimeoutError:
            continue
        snapshot = json.loads(message["text"])
        await acknowledge(communicator, snapshot)
        if snapshot["sequence"] >= FAR_AHEAD:
            return snapshot
    raise AssertionError("The socket never heard a broadcast.")


async def test_it_sends_a_first_snapshot_from_the_database(viewer_cookie):
    checkpoint = await sync_to_async(make_checkpoint)(4, next_offset=77)

    async with socket(viewer_cookie) as browser:
        snapshot = await next_snapshot(browser)

    assert browser.connected
    assert snapshot["group"] == GROUP
    assert [(one["checkpoint_id"], one["next_offset"]) for one in snapshot["partitions"]] == [(checkpoint.pk, 77)]


async def test_it_lives_with_no_monitor_broadcasting(viewer_cookie):
    checkpoint = await sync_to_async(make_checkpoint)(next_offset=77)

    async with socket(viewer_cookie) as browser:
        first = await next_snapshot(browser)
        await PartitionCheckpoint.objects.filter(pk=checkpoint.pk).aupdate(next_offset=88, ledger_end=88)
        while True:
            await acknowledge(browser, first)
            later = await next_snapshot(browser)
            assert later["sequence"] > first["sequence"]
            first = later
            if later["partitions"][0]["next_offset"] == 88:
                break


async def test_it_passes_on_what_the_monitor_broadcasts(viewer_cookie):
    async with socket(viewer_cookie) as browser:
        await acknowledge(browser, await next_snapshot(browser))
        heard = await until_listening(browser)
        assert heard["sequence"] >= FAR_AHEAD


async def test_it_hears_nothing_of_another_deployment_on_the_same_redis(viewer_cookie, monkeypatch):
    there = deployment_name({**settings.DATABASES["default"], "NAME": "staging"})
    other = RedisChannelLayer(hosts=[settings.REDIS_URL], prefix=f"streamsocial:{there}", expiry=10)
    silence_the_database(monkeypatch)
    async with socket(viewer_cookie) as browser:
        await acknowledge(browser, await next_snapshot(browser))
        last = await until_listening(browser)

        # A process of the other deployment is listening as well, so that its layer has a group to send to.
        listener = await other.new_channel()
        await other.group_add(channel_group(GROUP), listener)
        await other.group_send(channel_group(GROUP), pack(packet(FAR_AHEAD + 10**6, group="another")))
        assert unpack(await other.receive(listener)).sequence == FAR_AHEAD + 10**6
        await broadcast(10**5)
        while last["sequence"] < FAR_AHEAD + 10**5:
            last = await next_snapshot(browser)
            await acknowledge(browser, last)

    assert last["sequence"] == FAR_AHEAD + 10**5
    assert "group" not in last
    await other.close_pools()


async def test_it_leaves_the_database_alone_while_the_monitor_broadcasts(viewer_cookie, monkeypatch):
    async with socket(viewer_cookie) as browser:
        await acknowledge(browser, await next_snapshot(browser))
        await until_listening(browser)

        def forbidden(self):
            raise AssertionError("The database was asked although the monitor speaks.")

        monkeypatch.setattr(Dashboard, "snapshot", forbidden)
        live = feed.feed_of(GROUP)
        number, end = 200, asyncio.get_running_loop().time() + 1.5 * feed.SILENCE_SECONDS
        while asyncio.get_running_loop().time() < end:
            await broadcast(number)
            await acknowledge(browser, await next_snapshot(browser))
            number += 1
        assert live._trouble.get("snapshot", "") == ""


async def test_it_keeps_one_snapshot_in_flight_and_then_sends_only_the_newest(viewer_cookie, monkeypatch):
    silence_the_database(monkeypatch)
    async with socket(viewer_cookie) as browser:
        await acknowledge(browser, await next_snapshot(browser))
        await until_listening(browser)
        await broadcast(1000)
        held = await next_snapshot(browser)
        live = feed.feed_of(GROUP)
        for number in (1001, 1002, 1003):
            await broadcast(number)
        await asyncio.wait_for(live.newer_than(FAR_AHEAD + 1002), 5)

        assert browser.output_queue.empty(), "nothing more before the acknowledgement"
        await acknowledge(browser, held)
        assert (await next_snapshot(browser))["sequence"] == FAR_AHEAD + 1003
        assert browser.output_queue.empty()


async def test_it_ignores_late_and_foreign_acknowledgements(viewer_cookie, monkeypatch):
    silence_the_database(monkeypatch)
    async with socket(viewer_cookie) as browser:
        first = await next_snapshot(browser)
        await acknowledge(browser, first)
        await until_listening(browser)
        await broadcast(1000)
        held = await next_snapshot(browser)
        await broadcast(1001)
        await asyncio.wait_for(feed.feed_of(GROUP).newer_than(FAR_AHEAD + 1000), 5)
        await acknowledge(browser, first)
        await browser.send_json_to({"type": "ack", "sequence": held["sequence"] + 1})

        assert await browser.receive_nothing(timeout=0.3)
        await acknowledge(browser, held)
        assert (await next_snapshot(browser))["sequence"] == FAR_AHEAD + 1001


async def test_it_skips_a_broadcast_that_is_older_than_what_was_shown(viewer_cookie, monkeypatch):
    silence_the_database(monkeypatch)
    async with socket(viewer_cookie) as browser:
        await acknowledge(browser, await next_snapshot(browser))
        await until_listening(browser)
        await broadcast(1000)
        await acknowledge(browser, await next_snapshot(browser))
        await broadcast(500)
        await broadcast(1001)
        assert (await next_snapshot(browser))["sequence"] == FAR_AHEAD + 1001


async def test_it_drops_a_browser_that_acknowledges_nothing(viewer_cookie, monkeypatch):
    monkeypatch.setattr(consumers, "ACK_TIMEOUT_SECONDS", 0.2)
    async with socket(viewer_cookie) as browser:
        await next_snapshot(browser)
        assert await close_code(browser) == 4408


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"text_data": "x"}, 4400),
        ({"text_data": "[]"}, 4400),
        ({"text_data": "null"}, 4400),
        ({"text_data": "[" * 200}, 4400),
        ({"text_data": '{"type": "ack"}'}, 4400),
        ({"text_data": '{"type": "ack", "sequence": "1"}'}, 4400),
        ({"text_data": '{"type": "ack", "sequence": true}'}, 4400),
        ({"text_data": '{"type": "pause", "checkpoint": 1}'}, 4400),
        ({"bytes_data": b"\x00"}, 4400),
        ({"text_data": " " * 257}, 1009),
    ],
)
async def test_it_closes_on_anything_but_an_acknowledgement(viewer_cookie, message, code):
    async with socket(viewer_cookie) as browser:
        await next_snapshot(browser)
        await browser.send_to(**message)
        assert await close_code(browser) == code


async def test_it_shares_one_feed_among_browsers_and_stops_it_with_the_last(viewer_cookie, monkeypatch):
    built, snapshot = [], Dashboard.snapshot

    def count(self):
        built.append(1)
        return snapshot(self)

    monkeypatch.setattr(Dashboard, "snapshot", count)
    live = feed.feed_of(GROUP)

    async with socket(viewer_cookie) as first, socket(viewer_cookie) as second:
        shown = [await next_snapshot(first), await next_snapshot(second)]
        assert shown[0] == shown[1]
        assert len(built) == 1
        assert live._subscribers == 2
        tasks = list(live._tasks)

    assert live._subscribers == 0
    assert tasks
    assert all(task.done() for task in tasks)


async def test_it_survives_a_lost_redis(viewer_cookie, settings, caplog):
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"], "prefix": "streamsocial"},
        }
    }
    async with socket(viewer_cookie) as browser:
        first = await next_snapshot(browser)
        await acknowledge(browser, first)
        assert (await next_snapshot(browser))["sequence"] > first["sequence"]

    assert "the page reads the database meanwhile" in caplog.text


async def test_it_does_not_take_a_silent_monitor_for_a_lost_redis(viewer_cookie, monkeypatch, caplog):
    receive = RedisChannelLayer.receive
    silences: list[str] = []

    async def silent_at_first(self, channel):
        if len(silences) < 3:
            silences.append(channel)
            raise RedisTimeoutError("Timeout reading")
        return await receive(self, channel)

    monkeypatch.setattr(RedisChannelLayer, "receive", silent_at_first)
    async with socket(viewer_cookie) as browser:
        await acknowledge(browser, await next_snapshot(browser))
        await until_listening(browser)

    assert len(silences) == 3
    assert "Redis does not respond" not in caplog.text


async def test_it_goes_on_after_the_database_was_away(viewer_cookie, monkeypatch, caplog):
    snapshot, rounds = Dashboard.snapshot, []

    def sometimes(self):
        rounds.append(1)
        if len(rounds) in (2, 3):
            raise ConnectionError("the database is away")
        return snapshot(self)

    monkeypatch.setattr(Dashboard, "snapshot", sometimes)
    async with socket(viewer_cookie) as browser:
        first = await next_snapshot(browser)
        await acknowledge(browser, first)
        assert (await next_snapshot(browser))["sequence"] > first["sequence"]

    assert len(rounds) >= 4
    assert caplog.text.count("The page cannot be refreshed") == 1, "a trouble is logged once, not each round"


def test_it_sends_from_a_task_and_never_raises_for_a_lost_redis(settings, caplog):
    assert send_snapshot(GROUP) is True

    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]},
        }
    }
    assert send(GROUP, packet(1)) is False
    assert "Redis does not respond" in caplog.text


def test_it_names_a_channel_group_for_any_consumer_group():
    names = {channel_group(name) for name in ("a", "b", "ü" * 255, "with space")}

    assert len(names) == 4
    assert all(name.isascii() and len(name) < 100 for name in names)
