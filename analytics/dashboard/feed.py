"""The latest snapshot in this process, shared by all its browsers.

It has two sources: the monitor's broadcasts and, when these stop, this process's own reads of the database. A browser
adds no load to Redis or the database, and the page works with either of them.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from redis.exceptions import TimeoutError as RedisTimeoutError

from analytics.dashboard.broadcast import LAYER_LOST, Packet, channel_group, encode, unpack
from analytics.dashboard.read_model import dashboard_of

logger = logging.getLogger(__name__)

#: Without a broadcast for this long this process reads the database itself.
SILENCE_SECONDS = 2.0
#: How long to wait for a message before the group membership is renewed: a restarted Redis may have lost it.
RENEW_SECONDS = 10.0
RETRY_SECONDS = 2.0
#: A snapshot that is older than the last one by more than this is not late: the database's clock was set back.
CLOCK_SET_BACK_MS = 10_000


def is_newer(sequence: int, last: int) -> bool:
    """Whether a snapshot comes after the last one: a sequence is a moment of the database's clock."""
    return sequence > last or sequence < last - CLOCK_SET_BACK_MS


class Feed:
    """Belongs to one event loop, and works only while it has subscribers."""

    def __init__(self, group_id: str, build: Callable[[], Awaitable[Packet]]) -> None:
        self._group_id = group_id
        self._build = build
        self._latest: Packet | None = None
        self._changed = asyncio.Event()
        self._heard_at = float("-inf")
        self._subscribers = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._trouble: dict[str, str] = {}

    @asynccontextmanager
    async def subscribed(self) -> AsyncIterator["Feed"]:
        """Keep the feed running inside the block."""
        self._subscribers += 1
        if self._subscribers == 1:
            self._tasks = [asyncio.create_task(self._refresh()), asyncio.create_task(self._listen())]
        try:
            yield self
        finally:
            self._subscribers -= 1
            if not self._subscribers:
                await self._stop()

    async def newer_than(self, sequence: int) -> Packet:
        """Wait for another snapshot than `sequence`; what came in between is skipped, never queued."""
        while self._latest is None or self._latest.sequence == sequence:
            await self._changed.wait()
        return self._latest

    def offer(self, packet: Packet) -> None:
        if self._latest is None or is_newer(packet.sequence, self._latest.sequence):
            self._latest = packet
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def _stop(self) -> None:
        # Taken first: a new subscriber may start new tasks while these end.
        tasks, self._tasks = self._tasks, []
        # The next subscriber must not take an old snapshot for a fresh one.
        self._latest, self._heard_at = None, float("-inf")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self) -> None:
        """Read the database while the monitor sends nothing."""
        while True:
            if time.monotonic() - self._heard_at >= SILENCE_SECONDS:
                try:
                    self.offer(await self._build())
                    self._note("snapshot", "")
                except Exception as error:  # retried in the next round; the page shows its age
                    self._note("snapshot", f"The page cannot be refreshed: {' '.join(str(error).split())}")
            await asyncio.sleep(settings.DASHBOARD_INTERVAL_MS / 1000)

    async def _listen(self) -> None:
        """Receive the monitor's broadcasts until cancelled."""
        while True:
            try:
                await self._receive()
            except LAYER_LOST as error:
                self._note("layer", f"Redis does not respond ({error}); the page reads the database meanwhile.")
            except Exception:  # a foreign message; without this loop the page would lose its channel layer
                logger.exception("Cannot read a broadcast.")
            await asyncio.sleep(RETRY_SECONDS)

    async def _receive(self) -> None:
        layer = get_channel_layer()
        channel = await layer.new_channel()
        group = channel_group(self._group_id)
        renewed_at = float("-inf")
        try:
            while True:
                if time.monotonic() - renewed_at >= RENEW_SECONDS:
                    await asyncio.wait_for(layer.group_add(group, channel), RETRY_SECONDS)
                    renewed_at = time.monotonic()
                    self._note("layer", "")
                try:
                    message = await asyncio.wait_for(layer.receive(channel), RENEW_SECONDS)
                except (TimeoutError, RedisTimeoutError):
                    # The client times out just as the layer's own wait ends: no message, and Redis is not
                    # necessarily lost. The renewal needs a response, so it finds out.
                    renewed_at = float("-inf")
                    continue
                self._heard_at = time.monotonic()
                self.offer(unpack(message))
        finally:
            with contextlib.suppress(*LAYER_LOST):
                await asyncio.wait_for(layer.group_discard(group, channel), RETRY_SECONDS)

    def _note(self, what: str, trouble: str) -> None:
        """Log a problem once and its end once, not in every round."""
        if trouble and not self._trouble.get(what):
            logger.warning("%s", trouble)
        elif self._trouble.get(what) and not trouble:
            logger.info("The page's %s is available again.", what)
        self._trouble[what] = trouble


# One per event loop: asyncio's primitives belong to the loop in which they were first awaited.
_feeds: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Feed]]" = WeakKeyDictionary()


def feed_of(group_id: str) -> Feed:
    """This process's feed of a consumer group."""
    feeds = _feeds.setdefault(asyncio.get_running_loop(), {})
    if group_id not in feeds:

        def build() -> Packet:
            return encode(dashboard_of(group_id).snapshot())

        feeds[group_id] = Feed(group_id, database_sync_to_async(build))
    return feeds[group_id]
