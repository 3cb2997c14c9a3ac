"""Several deployments on one Redis: each has its own queues, if it has a name."""

import subprocess
import sys

import pytest

from streamsocial.environment import BASE_DIR

pytestmark = pytest.mark.django_db

SEND = "app.send_task('offsets.tasks.supervise')"
TAKE = """
from queue import Empty
with app.connection_for_read() as connection:
    queue = connection.SimpleQueue('control')
    try:
        print(queue.get(timeout=2).headers['task'])
    except Empty:
        print('nothing')
"""


def run(service_env: dict[str, str], deployment: str, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"from streamsocial.celery import app\n{code}"],
        env={**service_env, "DEPLOYMENT": deployment},
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("sender", "other"),
    [("staging", "production"), ("staging", ""), ("", "staging")],
    ids=["named", "to none", "of none"],
)
def test_no_deployment_takes_the_tasks_of_another(service_env: dict[str, str], sender: str, other: str) -> None:
    run(service_env, sender, SEND)

    assert run(service_env, other, TAKE) == "nothing"
    assert run(service_env, sender, TAKE) == "offsets.tasks.supervise"
