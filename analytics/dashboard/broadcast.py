"""Sends snapshots to the web processes: the only caller of `group_send`.

Each message is a whole snapshot with a sequence number, so that a lost or late one does no harm. Each web process
gets one copy (see `analytics.dashboard.feed`), not each browser.
"""

import asyncio
import hashlib
import json
import logging
import zlib
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

from analytics.dashboard.read_model import dashboard_of
from analytics.dashboard.snapshot import Snapshot

logger = logging.getLogger(__name__)

MESSAGE_TYPE = "dashboard.snapshot"
#: A Redis that hangs must not block the monitor's tick.
SEND_TIMEOUT_SECONDS = 3.0
#: What a channel layer raises when Redis is unavailable, slow or full.
LAYER_LOST = (RedisError, OSError, TimeoutError, ChannelFull)


@dataclass(frozen=True, slots=True)
class Packet:
    """A snapshot as it goes to the browser."""

    sequence: int
    text: str


def channel_group(group_id: str) -> str:
    """The channel layer's name for a consumer group's page; Kafka allows names that the layer does not."""
    return f"dashboard.{hashlib.sha256(group_id.encode()).hexdigest()[:32]}"


def encode(snapshot: Snapshot) -> Packet:
    return Packet(snapshot["sequence"], json.dumps(snapshot, separators=(",", ":")))


def pack(packet: Packet) -> dict[str, Any]:
    """As a channel message. JSON of hundreds of partitions shrinks to about a tenth."""
    return {"type": MESSAGE_TYPE, "sequence": packet.sequence, "body": zlib.compress(packet.text.encode(), 1)}


def unpack(message: dict[str, Any]) -> Packet:
    return Packet(message["sequence"], zlib.decompress(message["body"]).decode())


def send_snapshot(group_id: str) -> bool:
    """Build a snapshot and send it to every web process. Returns False, and logs a line, when Redis is unavailable.

    Raises the database's errors: without it there is nothing to send, and the caller's tick handles them.
    """
    return send(group_id, encode(dashboard_of(group_id).snapshot()))


def send(group_id: str, packet: Packet) -> bool:
    try:
        async_to_sync(_send)(channel_group(group_id), pack(packet))
    except LAYER_LOST as error:
        logger.warning(
            "Snapshot not broadcast: Redis does not respond (%s). The page reads the database meanwhile.", error
        )
        return False
    return True


async def _send(group: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is not None:
        await asyncio.wait_for(layer.group_send(group, message), SEND_TIMEOUT_SECONDS)
