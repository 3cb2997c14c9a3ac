"""The live page in a real browser: what an operator sees and does."""

import re

import pytest
from playwright.sync_api import expect

from analytics.models import EngagementMinute
from offsets.models import InvariantReport, JournalEntry, OperatorAction, PartitionCheckpoint
from tests.support.dashboard_page import cell, make_partition, names, row, sample
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_user, make_worker

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


PASSWORD = "correct horse"


def test_it_asks_strangers_to_log_in(visits):
    make_user("olga", "operator", password=PASSWORD)
    page = visits.page()

    page.goto(visits.server.url)
    page.get_by_label("Username").fill("olga")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("No partition has been claimed yet")


def test_it_explains_who_may_look(visits):
    make_user("nobody", password=PASSWORD)
    page = visits.page()

    page.goto(visits.server.url)
    page.get_by_label("Username").fill("nobody")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Access denied")
    page.get_by_role("button", name="Log in as a different user").click()
    expect(page.get_by_label("Username")).to_be_visible()
    # The answer 403 is meant; the browser reports it all the same.
    visits.complaints[:] = [text for text in visits.complaints if "403" not in text]


def test_it_shows_where_each_partition_stands(group, operator):
    page = operator()

    expect(page.get_by_role("heading", level=1)).to_contain_text("engagement-2 is paused; the other 2 are fine.")
    expect(page.locator("#headline-advice")).to_contain_text("engagement-2: Paused by an operator at offset 790,000")
    assert names(page) == ["engagement-2", "engagement-0", "engagement-1"], "the worst comes first"
    expect(cell(page, 2, "status")).to_have_text("PAUSED")
    expect(cell(page, 2, "epoch")).to_have_text("14")
    expect(cell(page, 2, "next")).to_have_text("790,000")
    expect(cell(page, 2, "end")).to_have_text("801,118")
    expect(cell(page, 2, "lag")).to_have_text("11,118")
    expect(cell(page, 0, "lag")).to_have_text("0")
    expect(cell(page, 0, "owner")).to_contain_text("w-7f2a91bc")
    expect(page.locator("#lag-value")).to_have_text("11,118")
    expect(page.locator("#partitions-sum")).to_have_text("3 partitions · 1 PAUSED · 2 OK")
    expect(page).to_have_title(re.compile("^PAUSED · "))


def test_it_shows_workers_totals_invariants_and_journal(group, operator):
    make_worker("w-dead", silent_for=600, fenced_commits=3, last_error="OperationalError: gone")
    minute = {"checkpoint": group["first"], "minute": ago(120)}
    EngagementMinute.objects.create(views=1_000_000, likes=200, comments=30, shares=4, **minute)
    detail = {f"I{number}": {"ok": number != 3, "detail": f"Detail {number}."} for number in range(1, 7)}
    InvariantReport.objects.create(group_id=GROUP, ok=False, invariants=detail, duration_ms=5)
    message = "Refused a stale commit of w-dead on engagement-1"
    JournalEntry.objects.create(group_id=GROUP, level="warning", kind="fenced", message=message)
    page = operator()

    expect(page.locator("#counted-value")).to_have_text("1,000,234")
    expect(page.locator("#counted-view")).to_have_text("1,000,000")
    expect(page.locator("#invariants-value")).to_have_text("I3 broken")
    expect(page.locator("#journal li")).to_contain_text(message)
    dead = page.locator("#workers tbody", has_text="w-dead")
    expect(dead).to_contain_text("Dead")
    expect(dead).to_contain_text("OperationalError: gone")
    expect(page.locator("#workers tbody", has_text="w-7f2a91bc")).to_contain_text("412 MiB")
    page.get_by_role("button", name="Details", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("Broken. Detail 3.")


def test_an_operator_checks_the_invariants_and_a_viewer_only_reads_them(group, operator, visits):
    # The partitions of this page have ranges, and no counts.
    page = operator()
    page.get_by_role("button", name="Details", exact=True).click()
    page.get_by_role("button", name="Check now").click()
    outcome = page.locator("#invariants-outcome")
    expect(outcome).to_have_text("Checked 3 of 3 partitions: an invariant does not hold.")
    expect(page.get_by_role("dialog")).to_contain_text("minutes hold 0, ledger says 1000")
    expect(page.locator("#invariants-age")).to_contain_text("Every partition was checked in full within the last")

    reader = visits.log_in(visits.page(), make_user("victor", "viewer"))
    reader.get_by_role("button", name="Details", exact=True).click()
    expect(reader.get_by_role("dialog")).to_contain_text("Ledger invariants")
    expect(reader.get_by_role("button", name="Check now")).to_have_count(0)


def test_it_follows_the_rows_without_a_reload(group, operator):
    page = operator()
    page.evaluate("window.untouched = true")

    PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(next_offset=1500, ledger_end=1500)
    late = make_partition(7, owner=group["worker"], next_offset=7000)

    expect(cell(page, 0, "next")).to_have_text("1,500")
    expect(cell(page, 7, "next")).to_have_text("7,000")
    assert names(page)[-1] == "engagement-7", "a new one is appended"
    late.retired_at = late.created_at
    late.save()
    expect(row(page, 7)).to_have_count(0)
    assert page.evaluate("window.untouched")


def test_it_keeps_the_order_until_it_is_asked(group, operator):
    page = operator()
    before = names(page)

    PartitionCheckpoint.objects.filter(pk=group["second"].pk).update(halt_reason="truncated")

    expect(cell(page, 1, "status")).to_have_text("HALTED")
    assert names(page) == before, "nothing jumps under the pointer"
    page.get_by_role("button", name="Sort worst first again").click()
    assert names(page) == ["engagement-1", "engagement-2", "engagement-0"]
    expect(page.get_by_role("button", name="Sort worst first again")).to_be_hidden()


def test_it_touches_only_what_changed(group, operator, visits):
    page = operator()
    visits.end_sampling()
    PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(epoch=5)
    expect(cell(page, 0, "epoch")).to_have_text("5")  # the last sample is drawn
    page.evaluate(
        """() => {
            window.touched = new Set();
            const cells = (node) => (node.nodeType === 1 ? node : node.parentElement).closest("td, th");
            new MutationObserver((found) => found.forEach(({ target }) => window.touched.add(cells(target)?.className)))
                .observe(document.querySelector("#partitions"), { subtree: true, childList: true, characterData: true })
        }"""
    )

    PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(epoch=6)

    expect(cell(page, 0, "epoch")).to_have_text("6")
    touched = set(page.evaluate("[...window.touched]"))
    assert touched <= {"num epoch", "owner"}, "the heartbeat's age ticks, the epoch changed, all else stays"


def test_it_draws_and_lists_what_became_of_each_offset(group, operator):
    checkpoint = make_checkpoint(5, next_offset=1_000_000, owner=group["worker"])
    make_range(checkpoint, 0, 400_000, failed_records=2)
    make_range(checkpoint, 400_000, 400_001, "skipped")
    make_range(checkpoint, 400_001, 1_000_000)
    sample(checkpoint, 1_000_010)
    page = operator()

    page.get_by_role("button", name="engagement-5", exact=True).click()

    listed = row(page, 5).locator(".ranges tbody tr")
    expect(listed).to_have_count(4)
    expect(listed.nth(0)).to_have_text(re.compile(r"unread.*1,000,000.*1,000,010.*10.*–.*–"))
    expect(listed.nth(2)).to_have_text(re.compile(r"skipped.*400,000.*400,001.*1.*0.*0"))
    strip = row(page, 5).locator("canvas.strip").first
    expect(strip).to_have_attribute("aria-label", re.compile("1 skipped, 10 unread"))
    # One offset in a million is less than a thousandth of a pixel, and is seen and found all the same.
    width = strip.evaluate("canvas => canvas.clientWidth")
    strip.hover(position={"x": width * 0.4 + 1, "y": 8})
    expect(page.locator("#tooltip")).to_contain_text("skipped [400,000, 400,001)")


def test_it_tells_unknown_from_zero(operator):
    make_checkpoint(0)
    page = operator()

    expect(cell(page, 0, "lag")).to_have_text("–")
    expect(cell(page, 0, "end")).to_have_text("–")
    expect(page.locator("#lag-value")).to_have_text("–")
    expect(page.locator("#lag-note")).to_have_text("log ends not sampled yet")
    expect(cell(page, 0, "status")).to_have_text("UNOWNED")


def test_it_reads_the_chart_by_keyboard(group, operator):
    EngagementMinute.objects.create(checkpoint=group["first"], minute=ago(0), views=4321)
    page = operator()
    # The row's minute need not begin with a minute: the page's own buckets do.
    chart = page.locator("#minutes-chart")

    chart.focus()
    page.keyboard.press("ArrowLeft")

    expect(page.locator("#minutes-when")).not_to_contain_text("so far")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#minutes-when")).to_contain_text("so far")


def test_it_pauses_with_a_preview_and_a_reason_and_shows_what_the_ledger_says(group, operator):
    page = operator()

    page.get_by_role("button", name="Pause engagement-0").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Pause engagement-0 at offset 1,000: its worker w-7f2a91bc stops within 1.0 s")
    dialog.get_by_role("button", name="Pause engagement-0").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Enter a reason")
    assert not OperatorAction.objects.exists()
    dialog.get_by_label("Reason").fill("Deploying the new schema")
    dialog.get_by_role("button", name="Pause engagement-0").click()

    expect(dialog.get_by_role("alert")).to_contain_text("Done: the ledger shows engagement-0 as paused")
    action = OperatorAction.objects.get()
    assert (action.kind, action.username, action.reason, action.outcome) == (
        "pause",
        "olga",
        "Deploying the new schema",
        "applied",
    )
    assert PartitionCheckpoint.objects.get(pk=group["first"].pk).desired_state == "paused"
    dialog.get_by_role("button", name="Close").click()
    expect(cell(page, 0, "status")).to_have_text("PAUSED")
    expect(page.get_by_role("button", name="Resume engagement-0")).to_be_focused()
    expect(page.locator("#journal li").first).to_contain_text("paused by olga: Deploying the new schema")


def test_it_resumes(group, operator):
    page = operator()

    page.get_by_role("button", name="Resume engagement-2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("11,118 records behind")
    dialog.get_by_label("Reason").fill("Done")
    dialog.get_by_role("button", name="Resume engagement-2").click()

    expect(dialog.get_by_role("alert")).to_contain_text("Done: the ledger shows engagement-2")
    assert PartitionCheckpoint.objects.get(pk=group["paused"].pk).desired_state == "running"


def test_it_refuses_what_is_no_longer_as_it_was_seen_and_looks_again(group, operator, visits):
    page = operator()
    page.get_by_role("button", name="Pause engagement-0").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("at offset 1,000")
    dialog.get_by_label("Reason").fill("Deploying")

    PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(epoch=9)
    dialog.get_by_role("button", name="Pause engagement-0").click()

    expect(dialog.get_by_role("alert")).to_contain_text("has changed since you looked: epoch was 3, is 9")
    expect(dialog.get_by_role("button", name="Pause engagement-0")).to_be_disabled()
    assert PartitionCheckpoint.objects.get(pk=group["first"].pk).desired_state == "running"
    dialog.get_by_role("button", name="Refresh preview").click()
    expect(dialog.locator("#action-change")).to_contain_text("9")
    dialog.get_by_role("button", name="Pause engagement-0").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Done")
    # The answer 409 is meant; the browser reports it all the same.
    visits.complaints[:] = [text for text in visits.complaints if "409" not in text]


def test_it_gives_viewers_no_buttons(group, visits):
    page = visits.log_in(visits.page(), make_user("victor", "viewer"))

    expect(cell(page, 0, "next")).to_have_text("1,000")
    expect(page.get_by_role("button", name=re.compile("^(Pause|Resume) "))).to_have_count(0)
