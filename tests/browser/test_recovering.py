"""Recovering on the page, in a real browser, on a real topic: each button from its preview to its outcome."""

import re
import uuid

import pytest
from confluent_kafka import Producer
from django.conf import settings
from playwright.sync_api import expect

from analytics.models import EngagementDelta
from offsets import workers
from offsets.kafka.admin import KafkaAdmin
from offsets.models import DeadLetter, LedgerRange, OperatorAction, PartitionCheckpoint, Replay, StoreOffset, Worker
from offsets.monitoring import incidents
from offsets.monitoring.finding import Finding
from offsets.monitoring.group_state import AffectedRange
from offsets.replays import runner
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_range, make_sample, make_user, make_worker
from tests.support.processes import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

EVENT = b'{"event_type":"like","user_id":1,"content_id":1,"occurred_at":1}'
RECORDS = 50


class Group:
    """One partition with 50 records: 20 counted, 10 failed, 10 skipped, 10 not read yet; two dead letters."""

    def __init__(self) -> None:
        topic = f"mends-{uuid.uuid4().hex[:8]}"
        admin = KafkaAdmin()
        admin.create_topic(topic, 1)
        wait_for("the topic", lambda: admin.describe_topics([topic]))
        producer = Producer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
        for _ in range(RECORDS):
            producer.produce(topic, EVENT, partition=0)
        assert producer.flush(30) == 0
        self.worker = make_worker("w-7f2a91bc", silent_for=-60)
        self.checkpoint = make_checkpoint(
            0,
            topic=topic,
            topic_id=admin.describe_topic(topic).topic_id,
            next_offset=40,
            owner=self.worker,
            dimensions=["content"],
        )
        self.name = f"{topic}-0"
        make_range(self.checkpoint, 0, 20, records=18, failed_records=2)
        make_range(self.checkpoint, 20, 30, "failed", detail="DataError: out of range", attempts=8, retry_at=None)
        make_range(self.checkpoint, 30, 40, "skipped", detail="action 1")
        # A little in the future, so that it stays fresh however slow the machine is.
        make_sample(self.checkpoint, -60, RECORDS, 40)
        self.fit = self._letter(5, "handler_failed", EVENT)
        self.unfit = self._letter(6, "malformed", b"not json")

    def _letter(self, offset: int, code: str, value: bytes) -> DeadLetter:
        return DeadLetter.objects.create(
            checkpoint=self.checkpoint, offset=offset, error_code=code, error_detail="It failed.", value=value, key=b"1"
        )

    def kinds(self) -> list[tuple[str, int, int]]:
        rows = LedgerRange.objects.filter(checkpoint=self.checkpoint).order_by("offsets")
        return [(row.kind, row.offsets.lower, row.offsets.upper) for row in rows]


@pytest.fixture
def group(transactional_db, stack):
    return Group()


def row(page, listed, *texts):
    found = page.locator(f"#{listed} tbody tr")
    for text in texts:
        found = found.filter(has_text=text)
    return found


def details(page, group):
    page.get_by_role("button", name=group.name, exact=True).click()


def give_reason(page, reason="A test"):
    """Wait for the preview, say why, and do it; returns the dialog."""
    dialog = page.get_by_role("dialog")
    button = dialog.locator("#action-apply")
    expect(button).to_be_enabled()
    dialog.get_by_label("Reason").fill(reason)
    button.click()
    return dialog


def test_it_replays_what_failed_with_a_live_bar_and_tells_the_outcome(group, operator, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK_RECORDS", 4)
    page = operator()
    expect(page.locator("#uncounted-sum")).to_have_text("20 offsets in 2 ranges")
    failed = row(page, "uncounted", "failed")
    expect(failed).to_contain_text("none left, tried 8 times")

    failed.get_by_role("button", name=f"Replay {group.name} from 20").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("10 offsets are counted (10 failed). The live offset does not move.")
    give_reason(page, "The cause is gone")

    expect(dialog.get_by_role("alert")).to_contain_text("It continues if you close this page")
    [replay] = Replay.objects.all()
    chunks = iter([False, False])
    runner.run(replay.pk, should_stop=lambda: next(chunks, True))
    expect(dialog.locator("#action-progress-text")).to_contain_text("8 of 10 offsets")
    expect(dialog.get_by_role("progressbar")).to_have_attribute("value", "8")
    expect(row(page, "replays", "The cause is gone").get_by_role("progressbar")).to_have_attribute("value", "8")
    runner.run(replay.pk)
    replay.refresh_from_db()
    assert replay.status == "done"
    expect(dialog.get_by_role("alert")).to_contain_text(f"Replay {replay.pk} is done: 10 events counted")
    dialog.get_by_role("button", name="Close").click()
    expect(row(page, "uncounted")).to_have_count(1)
    expect(row(page, "replays", "done")).to_contain_text("by olga")
    assert not LedgerRange.objects.filter(checkpoint=group.checkpoint, kind="failed").exists()


def test_it_replays_a_range_that_the_operator_names_and_refuses_nonsense(group, operator, visits):
    page = operator()
    details(page, group)
    page.get_by_role("button", name=f"Replay offsets of {group.name}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("From offset").fill("45")
    expect(dialog).to_contain_text("Enter the first offset")
    dialog.get_by_label("To offset (exclusive)").fill("50")
    expect(dialog.get_by_role("alert")).to_contain_text("nothing to replay")
    dialog.get_by_label("From offset").fill("35")
    dialog.get_by_label("To offset (exclusive)").fill("20")
    expect(dialog.get_by_role("alert")).to_contain_text("Invalid range")
    dialog.get_by_label("From offset").fill("10")
    dialog.get_by_label("To offset (exclusive)").fill("40")
    dialog.get_by_label("Maximum records per second").fill("none")
    expect(dialog.get_by_role("alert")).to_contain_text("Invalid rate 'none'")
    dialog.get_by_label("Maximum records per second").fill("5000")
    expect(dialog).to_contain_text("20 offsets are counted (10 failed, 10 skipped); 10 are already counted")
    give_reason(page)
    expect(dialog.get_by_role("alert")).to_contain_text("It continues if you close this page")
    replay = Replay.objects.get()
    assert replay.records_per_second == 5000
    runner.run(replay.pk)
    expect(dialog.get_by_role("alert")).to_contain_text("20 events counted")
    forget_refusals(visits)


def test_it_tells_that_the_partition_moved_since_the_preview_of_a_replay(group, operator, visits):
    page = operator()
    row(page, "uncounted", "skipped").get_by_role("button", name=re.compile("Replay")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("10 offsets are counted (10 skipped)")
    LedgerRange.objects.filter(checkpoint=group.checkpoint, kind="skipped").update(kind="processed", records=10)

    give_reason(page)

    expect(dialog.get_by_role("alert")).to_contain_text("has changed since you looked: 10 offsets were to be counted")
    assert not Replay.objects.exists()
    assert OperatorAction.objects.get().outcome == "refused"
    forget_refusals(visits)


def test_it_cancels_a_replay(group, operator):
    page = operator()
    row(page, "uncounted", "skipped").get_by_role("button", name=re.compile("Replay")).click()
    dialog = give_reason(page)
    expect(dialog.get_by_role("alert")).to_contain_text("It continues if you close this page")
    dialog.get_by_role("button", name="Close").click()

    page.get_by_role("button", name=re.compile("Cancel replay")).click()
    expect(dialog).to_contain_text("10 of 10 offsets are not replayed")
    give_reason(page, "Not now")

    expect(dialog.get_by_role("alert")).to_contain_text("is cancelled: Cancelled before it began.")
    assert Replay.objects.get().status == "cancelled"


def test_it_accepts_that_failed_offsets_are_not_counted(group, operator):
    page = operator()
    row(page, "uncounted", "failed").get_by_role("button", name=re.compile("Accept")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Accept that 10 failed offsets")
    give_reason(page, "Known bad import")

    expect(dialog.get_by_role("alert")).to_contain_text("shows no failed offsets")
    assert [kind for kind, *_ in group.kinds()] == ["processed", "skipped", "skipped"]


def test_it_inspects_requeues_and_discards_dead_letters_and_undoes_it(group, operator, visits):
    page = operator()
    expect(page.locator("#dead-letters-sum")).to_contain_text("2 pending")
    row(page, "dead-letters", "malformed").get_by_role("button", name=re.compile("Inspect")).click()
    record = page.get_by_role("dialog")
    expect(record).to_contain_text("malformed: It failed.")
    expect(record).to_contain_text("Not valid JSON:")
    expect(record).to_contain_text("bm90IGpzb24=")
    record.get_by_role("button", name="Close").click()

    row(page, "dead-letters", "handler_failed").get_by_role("button", name=re.compile("Requeue")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Requeue 1 dead letter: counted now, from the bytes that were kept.")
    give_reason(page, "The handler is mended")
    expect(dialog.get_by_role("alert")).to_contain_text("Done: 1 dead letter changed")
    dialog.get_by_role("button", name="Close").click()
    expect(row(page, "dead-letters")).to_have_count(1)
    group.fit.refresh_from_db()
    assert group.fit.status == "counted"
    assert EngagementDelta.objects.filter(checkpoint=group.checkpoint).count() == 1

    row(page, "dead-letters").get_by_role("button", name=re.compile("Requeue")).click()
    expect(dialog).to_contain_text("1 would fail again and stay as they are")
    expect(dialog.locator("#action-apply")).to_be_disabled()
    dialog.get_by_role("button", name="Cancel").click()

    page.locator("#dead-letters-code").select_option("malformed")
    page.get_by_role("button", name="Discard all matching").click()
    expect(dialog).to_contain_text("Discard 1 dead letter: never counted")
    give_reason(page, "Nonsense")
    expect(dialog.get_by_role("alert")).to_contain_text("Done: 1 dead letter changed")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator("#dead-letters-empty")).to_be_visible()

    row(page, "actions", "Discard").get_by_role("button", name=re.compile("Undo")).click()
    expect(dialog).to_contain_text("Reopen 1 discarded dead letter")
    give_reason(page, "Not nonsense")
    expect(dialog.get_by_role("alert")).to_contain_text("is undone by action")
    group.unfit.refresh_from_db()
    assert group.unfit.status == "pending"


def test_it_refuses_to_requeue_what_somebody_else_requeued_meanwhile(group, operator, visits):
    page = operator()
    row(page, "dead-letters", "handler_failed").get_by_role("button", name=re.compile("Requeue")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Requeue 1 dead letter")
    DeadLetter.objects.filter(pk=group.fit.pk).update(status="counted")

    give_reason(page)

    expect(dialog.get_by_role("alert")).to_contain_text("is already counted; nothing was changed")
    assert not EngagementDelta.objects.exists()
    forget_refusals(visits)


def test_it_evicts_a_worker(group, operator):
    page = operator()
    page.get_by_role("button", name="Evict w-7f2a91bc").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"{group.name}")
    expect(dialog).to_contain_text("fenced at once")
    give_reason(page, "It does not move")

    expect(dialog.get_by_role("alert")).to_contain_text("the ledger shows no partition of w-7f2a91bc")
    group.checkpoint.refresh_from_db()
    assert (group.checkpoint.owner_id, group.checkpoint.epoch) == (None, 4)
    assert Worker.objects.get().evicted_at is not None
    assert workers.heartbeat("w-7f2a91bc", workers.WorkerStats()).evicted


def test_it_shows_an_incident_with_its_timeline_and_leads_to_what_helps(group, operator):
    finding = Finding(
        "failed_ranges",
        group.name,
        f"10 offsets of {group.name} could not be applied.",
        PartitionCheckpoint.objects.get(pk=group.checkpoint.pk).created_at,
        checkpoint_id=group.checkpoint.pk,
        ranges=[AffectedRange(group.checkpoint.topic, 0, "failed", 20, 30)],
        evidence="Traceback: here",
    )
    incidents.reconcile(GROUP, [finding])
    page = operator()
    expect(page.locator("#incidents-sum")).to_contain_text("1 open")
    shown = row(page, "incidents", "Failed ranges")
    expect(shown).to_contain_text("open for")

    shown.get_by_role("button", name=re.compile("Timeline")).click()
    record = page.get_by_role("dialog")
    expect(record).to_contain_text(f"{group.name} [20, 30) failed")
    expect(record).to_contain_text("manager: Detected: 10 offsets")
    expect(record).to_contain_text("Traceback: here")
    record.get_by_role("button", name="Close").click()
    shown.get_by_role("button", name=re.compile(" to resolve ")).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("10 offsets are counted (10 failed)")
    dialog.get_by_role("button", name="Cancel").click()

    incidents.reconcile(GROUP, [])
    expect(page.locator("#incidents-sum")).to_contain_text("None open")
    expect(shown.get_by_role("button", name=re.compile(" to resolve "))).to_be_hidden()


def test_it_skips_accepts_a_loss_and_rebuilds_from_the_partition(group, operator):
    page = operator()
    details(page, group)
    dialog = page.get_by_role("dialog")

    page.get_by_role("button", name=f"Skip offsets of {group.name}").click()
    dialog.get_by_label("Next offset to read").fill("45")
    expect(dialog).to_contain_text("5 offsets are not counted and are recorded as skipped")
    give_reason(page, "Poison")
    expect(dialog.get_by_role("alert")).to_contain_text("at offset 45")
    dialog.get_by_role("button", name="Close").click()

    PartitionCheckpoint.objects.filter(pk=group.checkpoint.pk).update(owner=None)
    page.get_by_role("button", name=f"Rebuild {group.name}").click()
    expect(dialog).to_contain_text("Totals are too low until it has caught up")
    give_reason(page, "Count it again")
    expect(dialog.get_by_role("alert")).to_contain_text("Done: the ledger shows")
    group.checkpoint.refresh_from_db()
    assert group.checkpoint.retired_reason == "rebuilt"
    kinds = OperatorAction.objects.filter(outcome="applied").order_by("pk").values_list("kind", flat=True)
    assert list(kinds) == ["skip", "rebuild"]


def test_it_tells_another_store_what_the_ledger_says(group, operator, visits):
    PartitionCheckpoint.objects.filter(pk=group.checkpoint.pk).update(owner=None)
    StoreOffset.objects.create(
        checkpoint=group.checkpoint, store="redis", next_offset=None, epoch=None, ledger_next_offset=40, seen_at=ago(0)
    )
    page = operator()
    details(page, group)
    page.get_by_role("button", name=f"Reconcile Redis store of {group.name}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("has no offset, the ledger 40")
    give_reason(page, "It was emptied")
    expect(dialog.get_by_role("alert")).to_contain_text("it is set to 40")
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name=f"Reconcile Redis store of {group.name}").click()
    expect(dialog.get_by_role("alert")).to_contain_text("agrees with the ledger")
    forget_refusals(visits)


def test_it_gives_viewers_the_lists_without_buttons(group, visits):
    page = visits.log_in(visits.page(), make_user("victor", "viewer"))

    expect(row(page, "dead-letters")).to_have_count(2)
    expect(row(page, "dead-letters").first.get_by_role("button", name=re.compile("Inspect"))).to_be_visible()
    forbidden = re.compile("^(Requeue|Discard|Replay|Accept|Evict|Cancel|Undo|Restart|Seek|Resume)| to resolve ")
    expect(page.get_by_role("button", name=forbidden)).to_have_count(0)


def test_it_becomes_cards_on_a_narrow_screen(group, operator):
    page = operator(viewport={"width": 390, "height": 844})

    expect(row(page, "uncounted", "failed")).to_contain_text("20")
    wider = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wider, "nothing is cut off to the right"


def forget_refusals(visits):
    """The answers 400 and 409 are meant; the browser reports them all the same."""
    visits.complaints[:] = [text for text in visits.complaints if "409" not in text and "400" not in text]
