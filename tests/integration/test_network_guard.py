"""No network call is made inside a transaction: every test holds that, and these hold the guard itself."""

import smtplib
import threading
from collections.abc import Callable

import pytest
import redis
import urllib3
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection, transaction

from analytics.dashboard import broadcast
from analytics.dashboard.broadcast import Packet
from offsets import tasks
from offsets.kafka.admin import KafkaAdmin
from offsets.kafka.group_offsets import committed_offsets
from offsets.kafka.producer import EventProducer
from offsets.kafka.reader import RangeReader
from offsets.types import TopicPartition
from tests.support import network_guard

pytestmark = pytest.mark.django_db

PLACE = TopicPartition("no-topic", 0)
CALLS: list[Callable[[], object]] = [
    lambda: KafkaAdmin(1.0).describe_topics(["no-topic"]),
    lambda: KafkaAdmin(1.0).log_bounds([PLACE]),
    lambda: committed_offsets("no-group", [PLACE], 1.0),
    lambda: RangeReader().read(PLACE, 0, 1, 1),
    lambda: EventProducer("no-topic").flush(),
    lambda: redis.Redis.from_url(settings.REDIS_URL).ping(),
    lambda: smtplib.SMTP("127.0.0.1", 1, timeout=1),
    lambda: EmailMessage("s", "b", "a@example.org", ["b@example.org"]).send(),
    lambda: urllib3.PoolManager(retries=False).request("GET", "http://127.0.0.1:1/", timeout=1),
    lambda: tasks.run_replay.apply_async((1,)),
    lambda: broadcast.send("no-group", Packet(1, "{}")),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_inside_a_transaction_is_noticed(call: Callable[[], object], stack: object) -> None:
    with pytest.raises(network_guard.NetworkInTransactionError), transaction.atomic():
        call()

    assert network_guard.violations
    network_guard.violations.clear()


def test_a_call_in_the_transaction_of_the_test_itself_is_none(stack: object) -> None:
    assert connection.in_atomic_block
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        assert client.ping()


@pytest.mark.django_db(transaction=True)
def test_another_threads_transaction_does_not_count(stack: object) -> None:
    answers: list[bool] = []

    def ping() -> None:
        with redis.Redis.from_url(settings.REDIS_URL) as client:
            answers.append(bool(client.ping()))

    with transaction.atomic():
        thread = threading.Thread(target=ping)
        thread.start()
        thread.join(30)
    assert answers == [True]
