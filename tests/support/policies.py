"""Policies and a receiver such as users write, for the workers of tests/integration/test_commit_policy.py."""

import json
import os

from django.dispatch import receiver

from offsets.policies import ByCount, Progress
from offsets.signals import Committed, batch_committed

by_count = ByCount(1500)
#: More than there ever is.
by_too_many = ByCount(10**12)


class Raising:
    def due(self, progress: Progress) -> bool:
        raise RuntimeError("out of ideas")


@receiver(batch_committed)
def write_down(committed: Committed, **_: object) -> None:
    """One line a commit, for the test that reads it; then an error, which must change nothing."""
    if "COMMITS_FILE" not in os.environ:
        return
    with open(os.environ["COMMITS_FILE"], "a", encoding="utf-8") as file:
        rows = [
            [str(b.topic_partition), b.start, b.end, b.stats.records + b.stats.failed_records, dict(b.stats.by_type)]
            for b in committed.batches
        ]
        file.write(json.dumps(rows) + "\n")
    raise RuntimeError("a receiver fails")
