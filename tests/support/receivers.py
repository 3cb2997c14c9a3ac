"""Receivers that do what they must not, for the workers of tests/integration/test_commit_policy.py."""

import itertools

from django.db import connection, transaction
from django.dispatch import receiver

from offsets.policies import ByCount
from offsets.signals import batch_committed

by_count = ByCount(200)
_turns = itertools.count()


@receiver(batch_committed)
def leave_a_transaction_open(**_: object) -> None:
    """In the two ways there are, one after the other."""
    if next(_turns) % 2:
        transaction.set_autocommit(autocommit=False)
    else:
        transaction.atomic().__enter__()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
