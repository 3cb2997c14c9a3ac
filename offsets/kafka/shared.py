"""Clients that a process makes once and keeps. Threads and sockets of a client do not survive a fork: each process has
its own, made when it is first used.
"""

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from offsets.clock import monotonic
from offsets.errors import ServiceUnavailableError
from offsets.kafka.config import client_config

T = TypeVar("T")

#: An admin client is replaced no sooner than after this time.
RENEW_SECONDS = 5.0
#: Clients of a parent process. Kept unused: to free one would wait for threads that this process does not have.
_inherited: list[object] = []


class PerProcess(Generic[T]):
    """One value per process and key; another key replaces it. `close` frees it, also when the process ends."""

    def __init__(self, make: Callable[[Any], T], close: Callable[[T], object] = lambda value: None) -> None:
        self._make = make
        self._close = close
        self._lock = threading.RLock()
        self._held: tuple[Any, T] | None = None
        self._made_at = float("-inf")
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.drop)

    def _forget(self) -> None:
        """In a forked child; the parent's lock may be held by a thread that is not here."""
        _inherited.append(self._held)
        self._lock, self._held = threading.RLock(), None

    def get(self, key: Any) -> T:
        with self._lock:
            if self._held is None or self._held[0] != key:
                self.drop()
                self._held = (key, self._make(key))
                self._made_at = monotonic()
            return self._held[1]

    def drop(self) -> None:
        """Close the value; the next use makes another."""
        with self._lock:
            held, self._held = self._held, None
            if held is not None:
                self._close(held[1])

    def renew(self, min_age_seconds: float) -> bool:
        """Drop a value of this age or older; False for a younger one."""
        with self._lock:
            old = self._held is not None and monotonic() - self._made_at >= min_age_seconds
            if old:
                self.drop()
            return old

    @contextmanager
    def alone(self, key: Any, timeout_seconds: float) -> Iterator[T]:
        """The value, for one thread at a time; dropped if the body raises. Raises ServiceUnavailableError."""
        lock = self._lock
        if not lock.acquire(timeout=timeout_seconds):
            raise ServiceUnavailableError(f"Kafka did not answer within {timeout_seconds:.0f} s.")
        try:
            yield self.get(key)
        except BaseException:
            self.drop()
            raise
        finally:
            lock.release()


def _key() -> tuple[tuple[str, str], ...]:
    """Which cluster, and how it is reached."""
    return tuple(sorted((name, str(value)) for name, value in client_config().items() if name != "logger"))


_admin = PerProcess(lambda _: AdminClient(client_config()))
_reader = PerProcess(
    lambda key: Consumer({**client_config(), "group.id": key[0], "enable.auto.commit": False}), lambda one: one.close()
)


def admin_client() -> AdminClient:
    """The admin client of this process. It may be used from several threads."""
    return _admin.get(_key())


def renew_admin_client() -> bool:
    """Replace the admin client, which may know a topic no longer; at most every RENEW_SECONDS. False if it is young."""
    return _admin.renew(RENEW_SECONDS)


@contextmanager
def group_reader(group_id: str, timeout_seconds: float) -> Iterator[Consumer]:
    """A consumer that never joins `group_id`, to ask for the group's offsets.

    Closed after an error: one that has lost the group's coordinator may look for it for a minute.
    """
    with _reader.alone((group_id, _key()), timeout_seconds) as consumer:
        yield consumer


def drop_clients() -> None:
    """Close the clients of this process; the next use makes others."""
    _admin.drop()
    _reader.drop()
