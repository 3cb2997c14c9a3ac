import logging

import pytest
from django.db import DatabaseError, connection, transaction

from offsets import journal, purging
from offsets.kafka.admin import LogBounds
from offsets.models import DatabaseTime, JournalEntry, LagSample
from offsets.monitoring import lag_samples
from offsets.types import TopicPartition
from tests.support.page_rows import GROUP, ago, make_checkpoint, make_sample

pytestmark = pytest.mark.django_db


def test_it_samples_every_live_checkpoint_of_the_group_in_one_statement(django_assert_num_queries):
    first, second = make_checkpoint(0, next_offset=10), make_checkpoint(1, next_offset=20)
    unknown = make_checkpoint(2)
    retired = make_checkpoint(3, retired_at=DatabaseTime(), retired_reason="rebuilt")
    other = make_checkpoint(0, group_id="other")
    watermarks = {TopicPartition("engagement", number): LogBounds(5, 100 + number) for number in (0, 1, 3, 9)}

    with django_assert_num_queries(1):
        assert lag_samples.sample(GROUP, watermarks) == 2

    rows = LagSample.objects.values_list("checkpoint_id", "log_start_offset", "log_end_offset", "next_offset")
    assert list(rows.order_by("checkpoint_id")) == [(first.pk, 5, 100, 10), (second.pk, 5, 101, 20)]
    assert LagSample.objects.values("sampled_at").distinct().count() == 1, "a sweep is one moment"
    assert not LagSample.objects.filter(checkpoint__in=[unknown, retired, other]).exists()


def test_it_samples_nothing_without_watermarks():
    make_checkpoint()

    assert lag_samples.sample(GROUP, {}) == 0


def test_it_drops_the_samples_of_before_the_clock_was_set_back():
    """An hour back: the newest samples lie in the future, and those of an hour ago among the new ones."""
    checkpoint = make_checkpoint(next_offset=2311)
    for seconds_ago in (-3600, -3590, 20, 290, 310):
        make_sample(checkpoint, seconds_ago, 100, 100)

    assert lag_samples.sample(GROUP, {TopicPartition("engagement", 0): LogBounds(0, 2400, high_watermark=2450)}) == 1

    assert ages(checkpoint) == [0, 310], "older ones are thinned, and too old to mix with new ones"
    assert JournalEntry.objects.get(kind="clock_set_back").message == (
        "The database's clock was set back by about 60 min; the last samples were dropped."
    )
    newest = LagSample.objects.latest("pk")
    assert (newest.log_end_offset, newest.high_watermark, newest.next_offset) == (2400, 2450, 2311)


def test_it_keeps_all_samples_while_the_clock_goes_on():
    checkpoint = make_checkpoint()
    for seconds_ago in (-1, 20, 290):
        make_sample(checkpoint, seconds_ago, 100, 100)

    lag_samples.sample(GROUP, {TopicPartition("engagement", 0): LogBounds(0, 100)})

    assert not JournalEntry.objects.exists()
    assert len(ages(checkpoint)) == 4, "a neighbour's statement may have begun a moment later"


def ages(checkpoint):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT round(extract(epoch FROM statement_timestamp() - sampled_at)) FROM offsets_lagsample"
            " WHERE checkpoint_id = %s ORDER BY 1",
            [checkpoint.pk],
        )
        return [int(row[0]) for row in cursor.fetchall()]


def test_it_thins_to_the_first_sample_of_each_minute_and_forgets_after_a_day():
    checkpoint, other = make_checkpoint(0), make_checkpoint(1)
    for seconds_ago in (1, 2, 3, 290):
        make_sample(checkpoint, seconds_ago, 100, 100)
    with connection.cursor() as cursor:
        # Whole minutes ten minutes back, so that the test does not depend on the second at which it runs.
        cursor.execute(
            "INSERT INTO offsets_lagsample"
            " (checkpoint_id, sampled_at, log_start_offset, log_end_offset, next_offset)"
            " SELECT id, date_trunc('minute', statement_timestamp()) - make_interval(mins => 10)"
            " + make_interval(secs => s), 0, s, 0"
            " FROM generate_series(5, 119) AS s, unnest(%s::bigint[]) AS id",
            [[checkpoint.pk, other.pk]],
        )
    make_sample(checkpoint, 86_390, 1, 1)
    make_sample(checkpoint, 86_410, 1, 1)

    assert lag_samples.thin() == 2 * 113 + 1

    # 5 s past the one minute is its first sample, 0 s (the 60th) past the next one is that one's.
    kept = LagSample.objects.filter(checkpoint=checkpoint, sampled_at__lt=ago(300), sampled_at__gt=ago(3600))
    assert list(kept.order_by("sampled_at").values_list("log_end_offset", flat=True)) == [5, 60]
    assert LagSample.objects.filter(checkpoint=other).count() == 2
    assert len(ages(checkpoint)) == 4 + 2 + 1
    assert lag_samples.thin() == 0


def test_it_journals_in_the_table_and_in_the_log(caplog):
    with caplog.at_level(logging.INFO, logger="offsets.journal"):
        assert journal.record(
            GROUP, "halted", "It \x00 stopped", level="error", worker_id="w-1", topic="t", partition=0
        )

    entry = JournalEntry.objects.get()
    assert (entry.level, entry.kind, entry.worker_id, entry.topic, entry.partition) == (
        "error",
        "halted",
        "w-1",
        "t",
        0,
    )
    assert entry.message == "It \\0 stopped"
    assert entry.created_at is not None
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "[w-1] t-0 halted: It \x00 stopped")
    ]


def test_it_never_disturbs_the_transaction_it_reports_on(monkeypatch, caplog):
    def refuse(self, **_):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM no_such_table")

    with transaction.atomic():
        checkpoint = make_checkpoint()
        with monkeypatch.context() as patched:
            patched.setattr(JournalEntry, "save", refuse)
            assert journal.record(GROUP, "claimed", "Mine") is False

    checkpoint.refresh_from_db()
    assert "was not stored" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_it_survives_a_lost_connection_and_writes_again(caplog):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    finally:
        other.close()

    assert journal.record(GROUP, "claimed", "Lost") is False
    assert journal.record(GROUP, "claimed", "Kept") is True
    assert list(JournalEntry.objects.values_list("message", flat=True)) == ["Kept"]


def test_it_forgets_the_journal_after_a_week(monkeypatch):
    monkeypatch.setattr(purging, "CHUNK", 2)
    for days in (0, 6.9, 7.1, 8, 9, 30, 31):
        JournalEntry.objects.create(group_id=GROUP, kind="k", message=str(days), created_at=ago(days * 86_400))

    assert journal.purge() == 5
    assert sorted(JournalEntry.objects.values_list("message", flat=True)) == ["0", "6.9"]


def test_it_really_raises_where_the_journal_does_not_catch():
    """Guards the two tests above: the database does refuse."""
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM no_such_table")
