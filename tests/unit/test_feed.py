"""The page's connection to the server, without a browser: the websocket, and polling where it is blocked."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamsocial.environment import BASE_DIR

HARNESS = BASE_DIR / "tests" / "support" / "feed_harness.mjs"


def play(*steps: tuple[float, dict[str, bool]]) -> list[dict[str, Any]]:
    """What the page was told in each step: seconds, and what changes before them."""
    node = shutil.which(str(Path(sys.executable).parent / "node")) or shutil.which("node")
    if node is None:
        pytest.skip("Node was not found.")
    done = subprocess.run(
        [node, "--no-warnings", str(HARNESS), json.dumps(steps)],
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


def test_it_does_not_poll_while_the_websocket_works():
    [step] = play((15, {}))

    assert step == {"told": ["connecting", "open"], "polls": 0, "sockets": 1, "shown": 1}


def test_it_polls_every_5_s_while_websockets_are_blocked_and_keeps_trying_them():
    blocked, later, free = play((3, {"websockets": False}), (60, {}), (15, {"websockets": True}))

    assert blocked["told"][-1] == "polling"
    assert later["told"] == [], "trying the websocket does not flicker on the page"
    assert later["polls"] == later["shown"] == 12
    assert later["sockets"] >= 4
    assert free["told"] == ["open"]
    assert free["polls"] <= 3, "it stops when the websocket opens"


def test_a_websocket_that_breaks_later_is_polled_as_well():
    first, blocked = play((5, {}), (20, {"websockets": False}))

    assert first["told"][-1] == "open"
    assert blocked["told"][-1] == "polling"


def test_a_server_that_is_down_is_not_a_blocked_websocket():
    down, up = play((60, {"up": False}), (30, {"up": True}))

    assert set(down["told"]) == {"connecting", "waiting"}
    assert down["shown"] == 0
    assert up["told"][-1] == "open"


def test_it_goes_to_the_login_when_the_session_ends_while_it_polls():
    _, ended, after = play((10, {"websockets": False}), (10, {"session": False}), (60, {}))

    assert ended["told"] == ["logged-out"]
    assert after == {"told": [], "polls": 0, "sockets": 0, "shown": 0}
