"""The live page by keyboard, screen reader, theme and screen size."""

import pytest
from playwright.sync_api import expect

from offsets.models import JournalEntry, PartitionCheckpoint, Worker
from tests.support.dashboard_page import cell, make_partition, names, row
from tests.support.page_rows import GROUP, ago, make_worker

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_it_announces_a_change_of_status_and_nothing_else(group, operator):
    page = operator()
    page.evaluate(
        """() => {
            window.said = [];
            const announcer = document.querySelector("#announcer");
            new MutationObserver(() => window.said.push(announcer.textContent))
                .observe(announcer, { childList: true, characterData: true, subtree: true });
        }"""
    )

    PartitionCheckpoint.objects.filter(pk=group["first"].pk).update(next_offset=1100, ledger_end=1100)
    expect(cell(page, 0, "next")).to_have_text("1,100")
    Worker.objects.filter(pk="w-7f2a91bc").update(heartbeat_at=ago(600))

    expect(page.locator("#announcer")).to_contain_text("engagement-0 is OWNER DEAD")
    assert len(page.evaluate("window.said")) == 1


def test_it_can_be_worked_by_keyboard_alone(group, operator):
    page = operator()
    lag = page.get_by_role("columnheader", name="Lag")

    lag.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(lag).to_have_attribute("aria-sort", "descending")
    page.keyboard.press("Enter")
    expect(lag).to_have_attribute("aria-sort", "ascending")
    assert names(page)[-1] == "engagement-2"
    seen = []
    page.get_by_role("button", name="engagement-2", exact=True).focus()
    for _ in range(3):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert "Resume engagement-2" in seen
    page.get_by_role("button", name="Resume engagement-2").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Resume engagement-2")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen(group, operator, scheme, width):
    page = operator(viewport={"width": width, "height": 844}, color_scheme=scheme)

    page.get_by_role("button", name="engagement-2", exact=True).click()
    expect(row(page, 2).locator(".ranges")).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("status", "lag", "next", "action"):
        box = cell(page, 2, name).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


CONTRASTS = """() => {
    const channels = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b]
        .map((one) => one / 255)
        .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
        .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const found = channels(getComputedStyle(node).backgroundColor);
            if (found.length < 4 || found[3] > 0) return found;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
        const [a, b] = [light(channels(getComputedStyle(node).color)), light(ground(node))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
    return faint;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_words_can_be_read(group, operator, scheme):
    worker = make_worker("w-dead", silent_for=90, last_error="OperationalError: gone")
    make_partition(8, owner=worker)
    make_partition(9, owner=group["worker"], halt_reason="expired")
    for level in ("info", "warning", "error"):
        JournalEntry.objects.create(group_id=GROUP, level=level, kind="test", message=f"At level {level}")
    page = operator(color_scheme=scheme)

    page.get_by_role("button", name="engagement-2", exact=True).click()
    expect(row(page, 2).locator(".ranges")).to_be_visible()

    assert page.evaluate(CONTRASTS) == []


def test_it_switches_the_theme_and_remembers(group, operator):
    page = operator(color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    before = page.evaluate(ground)

    page.get_by_role("button", name="Switch between dark and light").click()

    dark = page.evaluate(ground)
    assert dark != before
    page.reload()
    assert page.evaluate(ground) == dark


def test_it_stays_smooth_with_many_partitions(operator):
    worker = make_worker("w-many", silent_for=-60)
    PartitionCheckpoint.objects.bulk_create(
        PartitionCheckpoint(
            group_id=GROUP,
            topic="engagement",
            partition=number,
            topic_id="topic-id",
            baseline_offset=0,
            baseline_kind="earliest",
            next_offset=1000,
            ledger_end=1000,
            epoch=1,
            owner=worker,
        )
        for number in range(500)
    )
    page = operator()
    expect(page.locator(".partitions > tbody")).to_have_count(500)
    rows = page.evaluate("window.rows = [...document.querySelectorAll('.partitions > tbody')]; rows.length")

    PartitionCheckpoint.objects.filter(group_id=GROUP).update(next_offset=2000, ledger_end=2000)

    expect(cell(page, 499, "next")).to_have_text("2,000")
    assert page.evaluate("rows.every((row) => row.isConnected)"), rows
    page.get_by_role("searchbox", name="Filter by partition, status or owner").fill("engagement-49")
    expect(page.locator(".partitions > tbody:visible")).to_have_count(11)
