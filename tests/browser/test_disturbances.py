"""The live page when sessions end, connections drop and scripts fail."""

import re

import pytest
from django.contrib.sessions.models import Session
from playwright.sync_api import expect

from offsets.models import PartitionCheckpoint
from tests.support.dashboard_page import cell, sample
from tests.support.page_rows import make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_it_logs_out(group, operator):
    page = operator()

    page.locator("#menu summary").click()
    page.get_by_role("button", name="Log out").click()

    expect(page.get_by_label("Username")).to_be_visible()
    assert not Session.objects.exists()


def test_it_says_how_stale_it_is_and_recovers(group, operator, visits):
    page = operator()
    live = page.locator("html")

    visits.server.stop()

    expect(page.locator("#live-text")).to_have_text(re.compile(r"stale for \d+ s"))
    expect(live).to_have_attribute("data-live", "stale")
    expect(page.locator("#headline-advice")).to_contain_text("Showing data from")
    expect(page.locator("#announcer")).to_contain_text("stale")
    expect(page.get_by_role("button", name="Reload")).to_be_visible()
    PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(next_offset=1700, ledger_end=1700)
    visits.server.go_on()
    expect(live).to_have_attribute("data-live", "fresh")
    expect(cell(page, 0, "next")).to_have_text("1,700")
    expect(page.get_by_role("button", name="Reload")).to_be_hidden()
    expect(page.locator("#announcer")).to_contain_text("live again")


def test_it_reconnects_by_itself(group, operator, visits):
    page = operator()
    page.evaluate("window.untouched = true")

    visits.server.end()
    expect(page.locator("#headline-advice")).to_contain_text("The server is not responding")
    PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(next_offset=1800, ledger_end=1800)
    visits.server.start()

    expect(page.locator("html")).to_have_attribute("data-live", "fresh")
    expect(cell(page, 0, "next")).to_have_text("1,800")
    assert page.evaluate("window.untouched"), "the page was not loaded again"
    # Each attempt that fails is reported by the browser.
    visits.complaints[:] = [text for text in visits.complaints if "ERR_CONNECTION" not in text]


def test_it_goes_to_the_login_when_the_session_has_ended(group, operator):
    page = operator()
    held = []
    page.route("**/js/main.js", lambda route: held.append(route))

    # The page is served, its script is not yet: the socket is refused with the code that says why.
    page.reload(wait_until="commit")
    while not held:
        page.wait_for_timeout(10)
    Session.objects.all().delete()
    held[0].continue_()

    expect(page).to_have_url(re.compile(r"/accounts/login/\?next=%2F"))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (None, "You no longer have access to this page."),
        ('{"version": 2, "sequence": 1}', "The server was updated"),
    ],
    ids=["no longer allowed", "another version"],
)
def test_it_says_why_there_is_nothing_to_see(visits, message, words):
    def answer(socket):
        if message is None:
            socket.close(code=4403)
        else:
            socket.send(message)

    page = visits.page()
    page.route_web_socket("**/ws/dashboard/", answer)
    visits.let_in(page, make_user("victor", "viewer"))

    expect(page.locator("#headline-advice")).to_contain_text(words)
    expect(page.get_by_role("button", name="Reload")).to_be_visible()


def test_it_shows_no_log_that_ends_before_what_was_read(group, operator):
    sample(group["first"], 900)
    page = operator()

    expect(cell(page, 0, "end")).to_have_text("1,000")


def test_it_says_when_its_script_did_not_start(visits):
    page = visits.page()
    page.route("**/js/live/feed.js", lambda route: route.fulfill(status=404))
    visits.let_in(page, make_user("victor", "viewer"))

    expect(page.locator("#headline-text")).to_have_text("The page failed to start.")
    visits.complaints[:] = [text for text in visits.complaints if "404" not in text]


def test_it_works_without_the_chart_library(group, operator, visits):
    page = operator()
    page.route("**/uPlot.esm.js", lambda route: route.fulfill(status=404))

    page.reload()

    expect(page.locator("#minutes-note")).to_contain_text("npm ci")
    expect(cell(page, 0, "next")).to_have_text("1,000")
    visits.complaints[:] = [text for text in visits.complaints if "404" not in text]
