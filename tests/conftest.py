"""Fixtures of all tests; the stack itself comes from `tests.stack_plugin`."""

from typing import Any

from django.db.backends.signals import connection_created
from django.dispatch import receiver

from tests.support.cases import case
from tests.support.forkserver import end_server

__all__ = ["case"]


def pytest_unconfigure() -> None:
    end_server()


@receiver(connection_created)
def wait_as_long_as_it_takes(connection: Any, **_: object) -> None:
    """A test holds one transaction from end to end, also while it waits for a slow machine."""
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = 0")
