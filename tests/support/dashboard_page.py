"""What the tests of the live page share: partitions as workers leave them, and where to find their rows."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection

from tests.support.page_rows import ago, make_checkpoint, make_range, make_sample

MINUTE_SECONDS = 60


def make_partition(partition, *, owner, next_offset=1000, log_end=None, **fields):
    """A partition that is read up to `next_offset` of a log that was sampled just now and a minute ago."""
    checkpoint = make_checkpoint(partition, next_offset=next_offset, owner=owner, committed_at=ago(1), **fields)
    make_range(checkpoint, 0, next_offset)
    end = next_offset if log_end is None else log_end
    make_sample(checkpoint, MINUTE_SECONDS, next_offset, next_offset)
    sample(checkpoint, end)
    return checkpoint


def sample(checkpoint, log_end):
    make_sample(checkpoint, 0, log_end, checkpoint.next_offset)


@contextmanager
def sampling() -> Iterator[Callable[[], None]]:
    """Keep the newest samples fresh, as the sampler does by taking others, however slow the machine is. Yields what
    ends that.
    """
    over = threading.Event()

    def keep_fresh() -> None:
        try:
            while not over.wait(0.5):
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE offsets_lagsample SET sampled_at = statement_timestamp() WHERE id IN"
                        " (SELECT max(id) FROM offsets_lagsample GROUP BY checkpoint_id)"
                        " AND sampled_at > statement_timestamp() - interval '30 seconds'"
                    )
        finally:
            connection.close()

    thread = threading.Thread(target=keep_fresh, name="sampling")
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    try:
        yield end
    finally:
        end()


def row(page, partition):
    return page.locator(".partitions > tbody", has=page.get_by_role("rowheader", name=f"engagement-{partition}"))


def names(page):
    return page.locator(".partitions > tbody th.partition").all_inner_texts()


def cell(page, partition, name):
    return row(page, partition).locator(f"td.{name}").first
