"""Fails a test whose process calls Kafka, Redis, SMTP, a webhook or Celery inside a database transaction.

Such a call holds row locks for as long as the other service takes. The transaction of the test itself does not count.
"""

import functools
import http.client
import smtplib
import traceback
from collections.abc import Callable
from typing import Any

import celery.app.task
import confluent_kafka
import redis.asyncio.connection
import redis.connection
import urllib3.connectionpool
from confluent_kafka.admin import AdminClient
from django.core.mail import EmailMessage
from django.db import connection

#: Calls that were made inside a transaction since the list was last cleared.
violations: list[str] = []


class NetworkInTransactionError(AssertionError):
    """A network call was made while a transaction was open."""


def check(call: str) -> None:
    """Record and raise a violation if this thread's connection is in a transaction of the application."""
    if any(not vars(block)["_from_testcase"] for block in connection.atomic_blocks):
        where = "".join(traceback.format_stack()[:-2][-12:])
        violations.append(f"{call} inside a transaction:\n{where}")
        raise NetworkInTransactionError(violations[-1])


def _guarded(owner: Any, name: str) -> Callable[..., Any]:
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*arguments: Any, **options: Any) -> Any:
        check(f"{owner.__name__}.{name}")
        return original(*arguments, **options)

    return call


_ADMIN = [name for name in dir(AdminClient) if not name.startswith("_") and name != "set_sasl_credentials"]
_METHODS: list[tuple[Any, list[str]]] = [
    (AdminClient, _ADMIN),
    (redis.connection.AbstractConnection, ["connect", "send_packed_command"]),
    (redis.asyncio.connection.AbstractConnection, ["connect", "send_packed_command"]),
    (smtplib.SMTP, ["connect", "sendmail"]),
    (EmailMessage, ["send"]),
    (http.client.HTTPConnection, ["connect"]),
    (urllib3.connectionpool.HTTPConnectionPool, ["urlopen"]),
    (celery.app.task.Task, ["apply_async"]),
]
#: Types of C, whose methods cannot be replaced: a subclass takes their place where our modules have imported them.
_WAITING = (
    "committed",
    "consume",
    "poll",
    "flush",
    "close",
    "list_topics",
    "get_watermark_offsets",
    "offsets_for_times",
)


def _subclass(kind: type) -> type:
    names = [name for name in _WAITING if hasattr(kind, name)]
    return type(kind.__name__, (kind,), {name: _guarded(kind, name) for name in names})


def install() -> None:
    """Guard this process from now on."""
    from analytics.dashboard import broadcast
    from offsets.kafka import client, producer, reader, shared

    for owner, names in _METHODS:
        for name in names:
            setattr(owner, name, _guarded(owner, name))
    consumer = _subclass(confluent_kafka.Consumer)
    for module in (client, reader, shared):
        vars(module)["Consumer"] = consumer
    vars(producer)["Producer"] = _subclass(confluent_kafka.Producer)
    # The channel layer runs in a thread of its own, which has no transaction: the caller's counts.
    vars(broadcast)["send"] = _guarded(broadcast, "send")
