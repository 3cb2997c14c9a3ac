"""The page as sites serve it: below a path prefix, and behind a proxy that passes no websocket on."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import expect

from offsets.models import PartitionCheckpoint
from scripts.screenshot import wait_until_live
from tests.browser.conftest import Server, Visits
from tests.support.dashboard_page import cell
from tests.support.front_proxy import FrontProxy
from tests.support.page_rows import make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

BLOCKED = "Live updates are blocked (websocket); polling every 5 s."


@pytest.mark.parametrize(
    ("options", "prefix", "strip"),
    [(("--root-path", "/streamsocial"), "", ""), ((), "/streamsocial", ""), ((), "/streamsocial", "/streamsocial")],
    ids=["the server's option", "the setting", "the setting and a proxy that strips the prefix"],
)
def test_it_works_below_a_path_prefix(group, browser, service_env, tmp_path, options, prefix, strip):
    user = make_user("olga", "operator", is_staff=True, is_superuser=True)
    user.set_password("correct horse")
    user.save()
    server = Server({**service_env, "URL_PREFIX": prefix}, tmp_path / "web.log", *options)
    try:
        server.start()
        with closing(FrontProxy(server.port, strip=strip)) as proxy:
            server.url = f"http://127.0.0.1:{proxy.port}/streamsocial/"
            visits = Visits(browser, server)
            page = visits.page()

            page.goto(server.url)
            expect(page).to_have_url(re.compile(r"/streamsocial/accounts/login/\?next=/streamsocial/$"))
            page.get_by_label("Username").fill("olga")
            page.get_by_label("Password").fill("correct horse")
            page.get_by_role("button", name="Log in").click()
            wait_until_live(page)
            expect(page.locator("#live-note")).to_be_hidden()
            page.get_by_role("button", name="Pause engagement-0").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_label("Reason").fill("Deploying")
            dialog.get_by_role("button", name="Pause engagement-0").click()
            expect(dialog.get_by_role("alert")).to_contain_text("Done: the ledger shows engagement-0 as paused")
            dialog.get_by_role("button", name="Close").click()
            page.locator("#menu summary").click()
            page.get_by_role("link", name="Django admin").click()
            expect(page).to_have_url(re.compile(r"/streamsocial/admin/$"))
            page.goto(server.url)
            page.locator("#menu summary").click()
            page.get_by_role("button", name="Log out").click()
            expect(page).to_have_url(re.compile(r"/streamsocial/accounts/login/$"))

            visits.close()
            assert visits.complaints == []
            assert [path for path in proxy.paths if not path.startswith("/streamsocial/")] == []
    finally:
        server.end()


def test_it_polls_while_a_proxy_blocks_websockets(group, visits, server):
    with closing(FrontProxy(server.port, websockets=False)) as proxy:
        page = visits.page()
        user = make_user("olga", "operator")
        visits.let_in(page, user)
        page.goto(f"http://127.0.0.1:{proxy.port}/")

        expect(page.locator("#live-note")).to_have_text(BLOCKED)
        expect(page.locator("html")).to_have_attribute("data-live", "fresh")
        PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(next_offset=1700, ledger_end=1700)
        expect(cell(page, 0, "next")).to_have_text("1,700")
        assert proxy.paths.count("/ws/dashboard/") >= 2, "it tries the websocket in between"

        proxy.websockets = True
        expect(page.locator("#live-note")).to_be_hidden()
        polled = proxy.paths.count("/api/snapshot/")
        PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(next_offset=1800, ledger_end=1800)
        expect(cell(page, 0, "next")).to_have_text("1,800")
        assert proxy.paths.count("/api/snapshot/") == polled, "it polls no longer"
        page.context.close()
    # Each socket that is refused is reported by the browser.
    visits.complaints[:] = [text for text in visits.complaints if "WebSocket" not in text]


def test_it_goes_to_the_login_when_the_session_ends_while_it_polls(group, visits, server):
    with closing(FrontProxy(server.port, websockets=False)) as proxy:
        page = visits.page()
        visits.let_in(page, make_user("victor", "viewer"))
        page.goto(f"http://127.0.0.1:{proxy.port}/")
        expect(page.locator("#live-note")).to_have_text(BLOCKED)

        page.context.clear_cookies()

        expect(page).to_have_url(re.compile(r"/accounts/login/\?next=%2F"))
        page.context.close()
    visits.complaints[:] = [text for text in visits.complaints if "WebSocket" not in text and "403" not in text]
