"""The limits of the login, and the secret key of a web process. Without Redis: the counters of this process."""

import subprocess
import sys

import pytest
from django.core.cache import caches
from redis.exceptions import ConnectionError as RedisConnectionError

from streamsocial import login, safety
from streamsocial.environment import BASE_DIR, deployment_name
from streamsocial.login import LIMITS, WINDOW_SECONDS, Attempt, begin, over_limit, seconds_left, succeeded
from tests.support.documents import REFERENCE, text_of

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _without_redis(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise RedisConnectionError("refused")

    monkeypatch.setattr(type(caches["default"]), "add", refuse)
    caches["local"].clear()
    yield
    caches["local"].clear()


@pytest.mark.parametrize(
    ("counts", "over"),
    [
        ({}, False),
        ({"name and address": 10}, False),
        ({"name and address": 11}, True),
        ({"name and address": 1, "address": 100, "name": 100}, False),
        ({"name and address": 1, "address": 101, "name": 1}, True),
        ({"name and address": 1, "address": 1, "name": 101}, True),
    ],
)
def test_any_exceeded_limit_stops_an_attempt(counts, over):
    assert over_limit(counts) is over


def test_a_name_from_one_address_is_locked_after_its_limit_and_unlocks_by_itself():
    attempt = Attempt("olga", "10.0.0.1")

    allowed = [begin(attempt, NOW) for _ in range(LIMITS["name and address"] + 1)]

    assert allowed == [True] * LIMITS["name and address"] + [False]
    assert not begin(Attempt("OLGA", "10.0.0.1"), NOW), "another spelling is the same name"
    assert begin(Attempt("olga", "10.0.0.2"), NOW), "from elsewhere the same user still logs in"
    assert begin(Attempt("victor", "10.0.0.1"), NOW)
    assert begin(attempt, NOW + seconds_left(NOW))
    assert 0 < seconds_left(NOW) <= WINDOW_SECONDS


def test_guessing_many_names_from_one_address_is_stopped():
    allowed = [begin(Attempt(f"user-{number}", "10.0.0.1"), NOW) for number in range(LIMITS["address"] + 1)]

    assert allowed.count(False) == 1
    assert not allowed[-1]


def test_guessing_one_name_from_many_addresses_is_stopped():
    allowed = [begin(Attempt("olga", f"10.0.0.{number}"), NOW) for number in range(LIMITS["name"] + 1)]

    assert allowed.count(False) == 1
    assert not allowed[-1]


def test_successful_logins_are_not_counted():
    attempt = Attempt("olga", "10.0.0.1")
    for _ in range(3 * LIMITS["address"]):
        assert begin(attempt, NOW)
        succeeded(attempt, NOW)


def test_a_success_forgives_the_failures_before_it():
    attempt = Attempt("olga", "10.0.0.1")
    for _ in range(LIMITS["name and address"]):
        begin(attempt, NOW)
    succeeded(attempt, NOW)

    assert [begin(attempt, NOW) for _ in range(LIMITS["name and address"])] == [True] * LIMITS["name and address"]


def test_keys_hold_neither_names_nor_addresses():
    keys = Attempt("olga", "10.0.0.1").keys(1).values()

    assert len(set(keys)) == len(LIMITS)
    assert not any("olga" in key or "10.0.0.1" in key for key in keys)


def test_the_limits_are_documented():
    text = text_of(REFERENCE / "http-api.md")

    assert f"{login.LIMITS['name and address']} failed attempts" in text
    assert f"{login.LIMITS['address']} from" in text


# --- Secret key -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("debug", "key", "refused"), [(False, None, True), (True, None, False), (False, "x", False)])
def test_the_built_in_secret_key_is_for_debugging_only(settings, debug, key, refused):
    settings.DEBUG, settings.SECRET_KEY = debug, key or safety.BUILT_IN_SECRET_KEY

    assert bool(safety.refused_secret_key()) is refused


def test_the_built_in_secret_key_is_the_default_of_the_settings():
    assert f'"{safety.BUILT_IN_SECRET_KEY}"' in text_of(BASE_DIR / "streamsocial" / "settings.py")


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "daphne", "-p", "0", "streamsocial.asgi:application"),
        ("manage.py", "runserver", "--noreload", "127.0.0.1:0"),
        ("manage.py", "runserver", "127.0.0.1:0"),
    ],
    ids=["daphne", "runserver", "runserver with reload"],
)
def test_no_web_server_starts_with_the_built_in_secret_key(tmp_path, command):
    environ = {"PATH": "/usr/bin:/bin", "STACK_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "streamsocial.settings"}

    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        env=environ,
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "SECRET_KEY is not set. Set it to any long random text before you start a web server."
    ]


# --- Deployments ----------------------------------------------------------------------------------

DATABASE = {"HOST": "db", "PORT": 5432, "NAME": "streamsocial", "USER": "streamsocial", "PASSWORD": "secret"}


@pytest.mark.parametrize("other", [{"HOST": "db-2"}, {"PORT": 5433}, {"NAME": "staging"}])
def test_deployments_with_other_databases_have_other_names(other):
    assert deployment_name(DATABASE) != deployment_name(DATABASE | other)


@pytest.mark.parametrize("other", [{"PORT": "5432"}, {"PASSWORD": "changed"}, {"USER": "web"}, {"CONN_MAX_AGE": 0}])
def test_the_processes_of_a_deployment_have_the_same_name(other):
    assert deployment_name(DATABASE) == deployment_name(DATABASE | other)


def test_this_machine_has_several_spellings():
    local = [{**DATABASE, "HOST": host, "PORT": port} for host in ("", "localhost", "127.0.0.1") for port in ("", 5432)]

    assert len({deployment_name(database) for database in local}) == 1
