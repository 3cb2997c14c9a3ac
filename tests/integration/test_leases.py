"""Leases on the real database: one holder at a time, and a former holder can tell that it is one."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F

from offsets import leases
from offsets.models import Lease

EXPIRED = -1.0

pytestmark = pytest.mark.django_db


def test_a_free_lease_is_taken():
    token = leases.acquire("slot", "me", 60)

    assert token == leases.LeaseToken("slot", "me", 1)
    assert leases.live(["slot", "other"]) == {"slot"}


def test_a_live_lease_is_refused_to_others_and_stays_as_it_was():
    leases.acquire("slot", "me", 60)
    before = Lease.objects.values().get()

    assert leases.acquire("slot", "you", 60) is None
    assert Lease.objects.values().get() == before


def test_its_holder_may_take_it_again_without_a_new_epoch():
    leases.acquire("slot", "me", 5)
    before = Lease.objects.get().expires_at

    assert leases.acquire("slot", "me", 60) == leases.LeaseToken("slot", "me", 1)
    assert Lease.objects.get().expires_at > before


def test_a_takeover_adds_one_to_the_epoch_and_the_former_holder_learns_of_it():
    former = leases.acquire("slot", "me", EXPIRED)
    token = leases.acquire("slot", "you", 60)

    assert token == leases.LeaseToken("slot", "you", 2)
    assert former is not None
    assert not leases.renew(former, 60)


def test_a_former_holder_cannot_release_its_successors_lease():
    former = leases.acquire("slot", "me", EXPIRED)
    leases.acquire("slot", "you", 60)
    assert former is not None

    leases.release(former)

    assert Lease.objects.get().holder == "you"
    assert leases.live(["slot"]) == {"slot"}


def test_an_expired_lease_can_be_renewed_while_nobody_has_taken_it():
    token = leases.acquire("slot", "me", EXPIRED)
    assert token is not None
    assert not leases.live(["slot"])

    assert leases.renew(token, 60)
    assert leases.live(["slot"]) == {"slot"}


def test_a_lease_that_came_back_to_its_holder_is_not_the_one_it_had():
    """Me, then you, then me again: the first token is of an older epoch, and no good any more."""
    first = leases.acquire("slot", "me", EXPIRED)
    leases.acquire("slot", "you", EXPIRED)
    last = leases.acquire("slot", "me", 60)

    assert first is not None
    assert last is not None
    assert last.epoch == 3
    assert not leases.renew(first, 60)
    assert leases.renew(last, 60)


def test_a_released_lease_is_free_at_once_under_a_new_epoch_even_for_its_former_holder():
    token = leases.acquire("slot", "me", 60)
    assert token is not None

    leases.release(token)

    assert not leases.live(["slot"])
    assert not leases.renew(token, 60)
    assert leases.acquire("slot", "me", 60) == leases.LeaseToken("slot", "me", 2)


def test_a_dropped_lease_is_free_whoever_held_it():
    token = leases.acquire("start", "me", 60)
    assert token is not None

    leases.drop("start")

    assert not leases.renew(token, 60)
    assert leases.acquire("start", "you", 60) is not None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("state", ["missing", "expired"])
def test_of_many_that_reach_for_it_at_once_one_gets_it(state):
    if state == "expired":
        leases.acquire("slot", "nobody", EXPIRED)
    barrier = threading.Barrier(8)
    tokens = []

    def reach(holder):
        try:
            connection.ensure_connection()
            barrier.wait(10)
            tokens.append(leases.acquire("slot", holder, 60))
        finally:
            connection.close()

    threads = [threading.Thread(target=reach, args=(f"holder-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(tokens) == 8
    (winner,) = [token for token in tokens if token]
    assert Lease.objects.get().holder == winner.holder
    assert winner.epoch == (2 if state == "expired" else 1)


# --- A clock that was set back --------------------------------------------------------------------


def set_clock_back(hours: int = 1) -> None:
    """What a database's clock leaves behind that is set back: everything lies ahead by as much."""
    Lease.objects.update(expires_at=F("expires_at") + timedelta(hours=hours))


def test_a_lease_that_nobody_renews_ends_although_the_clock_was_set_back():
    leases.acquire("slot", "dead", 60)
    set_clock_back()

    assert not leases.live(["slot"])
    assert leases.acquire("slot", "you", 60) == leases.LeaseToken("slot", "you", 2)


def test_its_holder_goes_on_when_the_clock_was_set_back():
    token = leases.acquire("slot", "me", 60)
    assert token is not None
    set_clock_back()

    assert leases.renew(token, 60)

    assert leases.live(["slot"]) == {"slot"}
    assert leases.acquire("slot", "you", 60) is None


def test_a_lease_is_measured_by_the_time_that_it_was_taken_for_not_by_the_askers():
    leases.acquire("slot", "me", 300)

    assert leases.acquire("slot", "you", 5) is None
    assert leases.live(["slot"]) == {"slot"}
