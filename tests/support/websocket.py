"""What the tests of the websocket share."""

import json
from contextlib import asynccontextmanager

from channels.testing import WebsocketCommunicator
from django.test import Client

from tests.support.page_rows import make_user

ORIGIN = (b"origin", b"http://localhost")


def application():
    # Imported when used: the module builds the whole application, which warns (see the mark above).
    from streamsocial import asgi

    return asgi.application


def cookie_of(name, *groups):
    client = Client()
    client.force_login(make_user(name, *groups))
    return client.cookies["sessionid"].value


@asynccontextmanager
async def socket(cookie=None, origin=ORIGIN, path="/ws/dashboard/"):
    """An open connection, closed at the end as a browser that leaves closes it."""
    headers = [] if origin is None else [origin]
    if cookie:
        headers.append((b"cookie", f"sessionid={cookie}".encode()))
    communicator = WebsocketCommunicator(application(), path, headers=headers)
    communicator.connected, communicator.code = await communicator.connect(timeout=5)
    try:
        yield communicator
    finally:
        await communicator.disconnect(timeout=10)


async def next_snapshot(communicator):
    return json.loads(await communicator.receive_from(timeout=5))


async def close_code(communicator):
    """The code with which the server closes, past snapshots that were under way."""
    while True:
        message = await communicator.receive_output(timeout=5)
        if message["type"] == "websocket.close":
            return message["code"]
