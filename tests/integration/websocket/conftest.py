"""Fixtures of the tests of the websocket."""

import pytest
from channels.layers import channel_layers

from tests.support.websocket import application, cookie_of


@pytest.fixture(autouse=True)
def _own_channel_layer(stack):
    """A layer keeps connections of the loop it was made in."""
    # Building the application sets logging up anew: within a test it would take away what listens for the test.
    application()
    channel_layers.backends.clear()
    yield
    channel_layers.backends.clear()


@pytest.fixture
def viewer_cookie():
    return cookie_of("victor", "viewer")
