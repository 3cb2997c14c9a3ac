"""The login behind its limits, with Redis and without."""

import pytest
import redis
from django.conf import settings
from django.core.cache import caches
from redis.exceptions import ConnectionError as RedisConnectionError

from offsets import clock
from streamsocial import login
from tests.support.page_rows import make_user

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]

ADDRESS = "10.1.2.3"


@pytest.fixture(autouse=True)
def moment(stack, monkeypatch):
    monkeypatch.setitem(login.LIMITS, "name and address", 3)
    now = [1_800_000_000.0]
    monkeypatch.setattr(clock, "wall", lambda: now[0])
    for cache in caches.all(initialized_only=False):
        cache.clear()
    yield now
    for cache in caches.all(initialized_only=False):
        cache.clear()


@pytest.fixture
def user():
    user = make_user("olga", "operator", is_staff=True)
    user.set_password("correct horse")
    user.save()
    return user


def log_in(client, password, path="/accounts/login/", address=ADDRESS):
    return client.post(path, {"username": "olga", "password": password}, REMOTE_ADDR=address)


@pytest.mark.parametrize("path", ["/accounts/login/", "/admin/login/"])
@pytest.mark.parametrize("with_redis", [True, False], ids=["Redis", "no Redis"])
def test_it_locks_after_some_failures_and_unlocks_by_itself(client, user, monkeypatch, moment, path, with_redis):
    if not with_redis:

        def refuse(*_args, **_kwargs):
            raise RedisConnectionError("refused")

        monkeypatch.setattr(type(caches["default"]), "add", refuse)

    failed = [log_in(client, "guess", path) for _ in range(3)]
    locked = log_in(client, "correct horse", path)

    assert [response.status_code for response in failed] == [200] * 3
    assert locked.status_code == 429
    assert 0 < int(locked["Retry-After"]) <= login.WINDOW_SECONDS + 1
    assert "Too many failed logins. Try again in" in locked.content.decode()
    assert "_auth_user_id" not in client.session
    assert log_in(client, "correct horse", path, address="10.9.9.9").status_code == 302, "others are not locked out"
    client.logout()
    moment[0] += login.WINDOW_SECONDS
    assert log_in(client, "correct horse", path).status_code == 302


def test_the_page_and_the_admin_share_the_limit(client, user):
    for _ in range(3):
        log_in(client, "guess")

    assert log_in(client, "correct horse", "/admin/login/").status_code == 429


def test_the_counters_are_shared_by_all_web_processes_and_expire(client, user):
    log_in(client, "guess")

    with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True) as redis_client:
        keys = list(redis_client.scan_iter(f"{settings.REDIS_PREFIX}:*:login:*"))
        assert len(keys) == len(login.LIMITS)
        assert all(0 < redis_client.ttl(key) <= login.WINDOW_SECONDS for key in keys)
