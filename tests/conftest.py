"""Fixtures of all tests; the stack itself comes from `tests.stack_plugin`."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from offsets.kafka import shared
from tests.support import network_guard
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


@pytest.fixture(scope="session", autouse=True)
def _network_guard() -> Iterator[None]:
    network_guard.install()
    yield
    # While the stack is up, and log lines of a lost connection have somewhere to go.
    shared.drop_clients()


@pytest.fixture(autouse=True)
def _no_network_in_a_transaction() -> Iterator[None]:
    """Also where the application caught the error, or made the call in a thread."""
    network_guard.violations.clear()
    yield
    assert not network_guard.violations, network_guard.violations[0]
