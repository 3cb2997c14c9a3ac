"""What the tests' own stack promises to every other test."""

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection

from streamsocial.environment import BASE_DIR
from streamsocial.stack import Stack

#: Runs beside each other have a stack each, and a database of their own name.
DATABASE = "_".join(filter(None, ["test_streamsocial", os.environ.get("PYTEST_XDIST_WORKER")]))


@pytest.mark.django_db
def test_a_database_test_works_on_the_stack_of_this_run() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), current_setting('port'), current_setting('synchronous_commit')")
        database, port, synchronous = cursor.fetchone()
    assert database == DATABASE
    assert int(port) == settings.DATABASES["default"]["PORT"]
    assert synchronous == "on"


def test_settings_point_at_the_stack_of_this_run(stack: Stack) -> None:
    values = stack.plan()
    assert values["KAFKA_BOOTSTRAP_SERVERS"] == settings.KAFKA_BOOTSTRAP_SERVERS
    assert values["REDIS_URL"] == settings.REDIS_URL
    assert str(stack.directory.root) == os.path.realpath(os.environ["STACK_DIR"])
    assert stack.status().ok


def test_a_subprocess_sees_the_test_database(service_env: dict[str, str]) -> None:
    code = (
        "import django; django.setup()\n"
        "from django.db import connection\n"
        "with connection.cursor() as cursor:\n"
        "    cursor.execute('SELECT current_database()')\n"
        "    print(cursor.fetchone()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BASE_DIR, env=service_env, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == DATABASE, done.stderr
