"""The web server below a path prefix, over HTTP: without a browser, for machines that have none."""

import json
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from tests.support.front_proxy import FrontProxy
from tests.support.page_rows import make_checkpoint, make_user
from tests.support.processes import Background, wait_for

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., int]
PREFIX = "/streamsocial"


@pytest.fixture
def start(service_env: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start daphne with these options and this URL_PREFIX; returns its port."""
    running: list[Background] = []

    def start(*options: str, prefix: str = "") -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), *options]
        env = {**service_env, "URL_PREFIX": prefix}
        running.append(Background.program([*command, "streamsocial.asgi:application"], env, tmp_path / "web.log"))
        wait_for("the web server", lambda: answers(port))
        return port

    yield start
    for process in running:
        process.kill()


def answers(port: int) -> bool:
    try:
        return fetch(port, "/healthz")[0] == 200
    except OSError:
        return False


def fetch(port: int, path: str, cookie: str = "") -> tuple[int, str, str]:
    """Status, final URL and text, redirects followed."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Cookie": cookie} if cookie else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.url, response.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.url or "", error.read().decode(errors="replace")


def shake_hands(port: int, path: str, cookie: str) -> int:
    """The status with which a websocket's opening is answered: 101 where it opens."""
    head = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Cookie: {cookie}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode())
        return int(connection.recv(4096).split(b" ")[1])


def session(name: str) -> str:
    client = Client()
    client.force_login(make_user(name, "operator", is_staff=True, is_superuser=True))
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


def addresses(html: str) -> set[str]:
    found = re.findall(r'(?:href|src|action|data-root|data-websocket-path|data-login-url)="([^"]*)"', html)
    return {address for address in found if address and not address.startswith(("#", "?", "https://", "http://"))}


@pytest.mark.parametrize(
    ("options", "prefix", "strip"),
    [(("--root-path", PREFIX), "", ""), ((), PREFIX, ""), ((), PREFIX, PREFIX)],
    ids=["the server's option", "the setting", "the setting and a proxy that strips the prefix"],
)
def test_everything_lies_below_the_prefix(start: Start, options: tuple[str, ...], prefix: str, strip: str) -> None:
    cookie = session("olga")
    make_checkpoint(3)
    with closing(FrontProxy(start(*options, prefix=prefix), strip=strip)) as proxy:
        status, url, _ = fetch(proxy.port, f"{PREFIX}/")
        assert (status, url.partition(str(proxy.port))[2]) == (200, f"{PREFIX}/accounts/login/?next={PREFIX}/")
        for page in (
            "/",
            "/accounts/logout/",
            "/admin/",
            "/admin/login/?next=/x",
            "/admin/offsets/partitioncheckpoint/",
        ):
            _, _, html = fetch(proxy.port, PREFIX + page, cookie)
            assert [one for one in addresses(html) if one.startswith("/") and not one.startswith(f"{PREFIX}/")] == []
        _, _, html = fetch(proxy.port, f"{PREFIX}/", cookie)
        static = {address for address in addresses(html) if "/static/" in address}
        assert len(static) > 8
        assert {fetch(proxy.port, address)[0] for address in static} == {200}
        assert f'data-websocket-path="{PREFIX}/ws/dashboard/"' in html
        status, _, text = fetch(proxy.port, f"{PREFIX}/api/snapshot/", cookie)
        assert (status, [row["partition"] for row in json.loads(text)["partitions"]]) == (200, [3])
        assert shake_hands(proxy.port, f"{PREFIX}/ws/dashboard/", cookie) == 101
        assert fetch(proxy.port, f"{PREFIX}/favicon.ico")[:2] == (
            200,
            f"http://127.0.0.1:{proxy.port}{PREFIX}/static/favicon.svg",
        )


def test_the_snapshot_is_read_over_http_where_a_proxy_blocks_websockets(start: Start) -> None:
    cookie = session("olga")
    with closing(FrontProxy(start(), websockets=False)) as proxy:
        assert shake_hands(proxy.port, "/ws/dashboard/", cookie) == 404
        assert fetch(proxy.port, "/api/snapshot/", cookie)[0] == 200
        status, _, text = fetch(proxy.port, "/api/snapshot/")
        assert (status, json.loads(text)["login_required"]) == (403, True)
        proxy.websockets = True
        assert shake_hands(proxy.port, "/ws/dashboard/", cookie) == 101
