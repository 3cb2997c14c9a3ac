"""Gives the tests a stack of their own: planned before settings are read, started by the first test in need.

Loaded with `-p`, ahead of pytest-django, so that settings see this run's folder and none of the
user's variables: a test never touches the user's services or the checkout's own stack.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from streamsocial.environment import BASE_DIR, SERVICE_VARIABLES
from streamsocial.stack import Stack
from streamsocial.stack.processes import Identity
from streamsocial.stack.state import MARKER

# Helpers assert as well; without this their failures would show no values.
pytest.register_assert_rewrite("tests.support", "tests.faults.scene")

_PREFIX = "streamsocial-test-"
_OWNER = "owner"
_READ_BY_SETTINGS = re.compile(r"env\.\w+\(\s*\"(\w+)\"")


def _settings_variables() -> set[str]:
    """Every variable that settings read, so that a new one cannot be forgotten here."""
    settings = (BASE_DIR / "streamsocial" / "settings.py").read_text(encoding="utf-8")
    # A proxy is also needed to fetch the stack's programs.
    proxies = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}
    return (set(_READ_BY_SETTINGS.findall(settings)) | {"STACK_DIR", *SERVICE_VARIABLES}) - proxies


def _forget_users_variables() -> None:
    ours = _settings_variables()
    for name in list(os.environ):
        if name in ours or name.startswith(("KAFKA_", "ENGAGEMENT_")):
            del os.environ[name]


class _Run:
    """This run's folder: `owner` says which process it belongs to, `stack/` is the stack's."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        identity = Identity.of(os.getpid())
        assert identity is not None
        (self.folder / _OWNER).write_text(f"{identity.pid} {identity.created}", encoding="utf-8")
        # Ports of its own choice: the usual ones belong to the checkout's own stack, up or down.
        self.stack = Stack(self.folder / "stack", environ={}, usual_ports=False)

    def end(self) -> None:
        _remove(self.folder)


def _remove(folder: Path) -> None:
    """Stop every stack in the folder (tests of the stack itself make more than one) and delete it."""
    for marker in folder.glob(f"*/{MARKER}"):
        Stack(marker.parent, environ={}).down(immediate=True)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers() -> None:
    """Stop and delete what runs that were killed have left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            pid, created = (folder / _OWNER).read_text(encoding="utf-8").split()
            mine = folder.stat().st_uid == os.geteuid()
        except (OSError, ValueError):
            continue
        if mine and not Identity(int(pid), float(created)).is_alive():
            _remove(folder)


_run_key = pytest.StashKey[_Run]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    _remove_leftovers()
    _forget_users_variables()
    run = _Run()
    early_config.stash[_run_key] = run
    # Also where pytest gives up before it is configured, and so never unconfigures.
    early_config.add_cleanup(run.end)
    os.environ["STACK_DIR"] = str(run.stack.directory.root)
    run.stack.plan()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """A test that uses the database brings the stack up; a pure one starts nothing."""
    # A fixture of the same name would not do: pytest-django is loaded later, and so its own would win.
    if fixturedef.argname == "django_db_setup":
        request.getfixturevalue("stack")


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Stack:
    """Real Kafka, PostgreSQL and Valkey for this run; up from the first test that asks."""
    run = request.config.stash[_run_key]
    run.stack.up()
    return run.stack


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest) -> Path:
    """Stacks that are started in folders of this one are stopped with the run, even if the run is killed."""
    return request.config.stash[_run_key].folder


@pytest.fixture
def service_env(stack: Stack, django_db_setup: None) -> dict[str, str]:
    """The environment of a subprocess (`manage.py …`) that shall see this run's services and *test* database."""
    from django.conf import settings
    from django.db import connection

    values = stack.plan()
    base, _, _ = values["DATABASE_URL"].rpartition("/")
    return {
        **os.environ,
        **values,
        "DATABASE_URL": f"{base}/{connection.settings_dict['NAME']}",
        "SECRET_KEY": settings.SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "streamsocial.settings",
    }
