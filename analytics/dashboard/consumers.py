"""Websocket consumers (Channels' word; Kafka clients live in `offsets.kafka`). The socket only reads.

One snapshot is in flight per browser: when the browser has acknowledged it, the newest one follows. Daphne has no
backpressure; without this a browser that stops reading fills the server's memory.
"""

import asyncio
import logging
from collections.abc import Coroutine
from importlib import import_module
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest

from analytics.dashboard.feed import feed_of
from offsets.database import DATABASE_LOST, describe_outage
from offsets.permissions import can_view

logger = logging.getLogger(__name__)

#: A browser that acknowledges nothing for this long is disconnected.
ACK_TIMEOUT_SECONDS = 30.0
#: How often to check the session and permissions of an open socket.
ACCESS_CHECK_SECONDS = 60.0
#: An acknowledgement has about 40 characters; longer messages are not read.
MAX_MESSAGE_CHARACTERS = 256

NOT_UNDERSTOOD = 4400
NOT_LOGGED_IN = 4401
NOT_ALLOWED = 4403
NOT_FOUND = 4404
NOT_READING = 4408
TOO_LONG = 1009
FAILED = 1011
TRY_AGAIN_LATER = 1013


@database_sync_to_async  # type: ignore[untyped-decorator]
def _refusal(session_key: str | None) -> int | None:
    """The close code for the user of this session; None if the user has access. Reads the database each time."""
    if not session_key:
        return NOT_LOGGED_IN
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = get_user(request)
    if not user.is_authenticated:
        return NOT_LOGGED_IN
    return None if can_view(user) else NOT_ALLOWED


class DashboardConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """Sends snapshots to one browser; accepts only `{"type": "ack", "sequence": n}` from it."""

    # The process's feed listens to the channel layer, once for all browsers; a lost Redis closes no socket.
    channel_layer_alias = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tasks: list[asyncio.Task[None]] = []
        self._acknowledged = asyncio.Event()
        self._in_flight = 0
        self._closing = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # However the connection ends, its tasks end, too.
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def connect(self) -> None:
        # A close code reaches the browser only on an accepted socket; a rejected one just fails.
        await self.accept()
        self._tasks = [asyncio.create_task(self._guarded(self._serve()))]

    async def _serve(self) -> None:
        if await self._refused():
            return
        self._tasks.append(asyncio.create_task(self._guarded(self._watch_access())))
        async with feed_of(settings.ENGAGEMENT_GROUP).subscribed() as feed:
            sequence = 0
            while not self._closing:
                packet = await feed.newer_than(sequence)
                sequence = self._in_flight = packet.sequence
                self._acknowledged.clear()
                await self.send(text_data=packet.text)
                try:
                    await asyncio.wait_for(self._acknowledged.wait(), ACK_TIMEOUT_SECONDS)
                except TimeoutError:
                    await self.close(NOT_READING)

    async def _watch_access(self) -> None:
        while not self._closing:
            await asyncio.sleep(ACCESS_CHECK_SECONDS)
            await self._refused()

    async def _refused(self) -> bool:
        """Close the socket if its user has no access (any more)."""
        session = self.scope.get("session")
        code = await _refusal(session.session_key if session is not None else None)
        if code is not None:
            await self.close(code)
        return code is not None

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Log an error of a connection's task and close the socket; the browser would wait forever."""
        try:
            await work
        except DATABASE_LOST as error:
            logger.warning("Closing a dashboard socket. %s", describe_outage(error))
            await self.close(TRY_AGAIN_LATER)
        except Exception:
            logger.exception("A dashboard socket failed.")
            await self.close(FAILED)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        if self._closing:
            return
        if text_data is None or bytes_data is not None:
            await self.close(NOT_UNDERSTOOD)
        elif len(text_data) > MAX_MESSAGE_CHARACTERS:
            await self.close(TOO_LONG)
        else:
            try:
                content = await self.decode_json(text_data)
            except (ValueError, RecursionError):
                content = None
            await self.receive_json(content)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """An acknowledgement releases the next snapshot; one of an earlier snapshot is ignored."""
        sequence = content.get("sequence") if isinstance(content, dict) and content.get("type") == "ack" else None
        if type(sequence) is not int:
            await self.close(NOT_UNDERSTOOD)
        elif sequence == self._in_flight:
            self._acknowledged.set()

    async def close(self, code: int | None = None, reason: str | None = None) -> None:
        if not self._closing:
            self._closing = True
            # The sender may be waiting for an acknowledgement that will not be read any more.
            self._acknowledged.set()
            await super().close(code, reason)


class UnknownPathConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Any other path: closed with a code, where Channels would raise an exception."""

    channel_layer_alias = None

    async def connect(self) -> None:
        await self.accept()
        await self.close(NOT_FOUND)
