"""A worker behind PgBouncer in transaction mode, where each transaction may have another server connection."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from streamsocial.environment import BASE_DIR
from streamsocial.stack.ports import choose
from tests.support.cases import Case
from tests.support.processes import assert_exactly_once, manage_json, wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed"),
]
MakeCase = Callable[..., Case]


@pytest.fixture
def pooled_url(transactional_db: None, service_env: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The database behind a PgBouncer of two server connections."""
    url = urlsplit(service_env["DATABASE_URL"])
    port, folder = choose([], []), tmp_path / "pgbouncer"
    folder.mkdir(mode=0o755)
    (folder / "users.txt").write_text(f'"{url.username}" "{url.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={url.hostname} port={url.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
        f"auth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\n"
    )
    for path in (*folder.parents, folder):
        if path.is_relative_to(tmp_path.parents[1]):
            path.chmod(0o755)
    user = ["-u", "nobody"] if Path.home() == Path("/root") else []
    with subprocess.Popen(["pgbouncer", *user, str(folder / "pgbouncer.ini")], stderr=subprocess.PIPE) as bouncer:
        through = service_env["DATABASE_URL"].replace(f"{url.hostname}:{url.port}", f"127.0.0.1:{port}")
        wait_for("PgBouncer takes connections", lambda: _answers(through), 20)
        yield through
        bouncer.terminate()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def test_it_counts_exactly_once_and_names_its_sessions(case: MakeCase, pooled_url: str) -> None:
    this = case(20_000, COMMIT_MAX_RECORDS="500", COMMIT_INTERVAL_MS="10")
    pooled = {**this.env, "DATABASE_URL": pooled_url}
    summary = manage_json(pooled, *this.run_consumer("--exit-when-caught-up"))
    assert summary["events"] + summary["dead_letters"] == 20_000
    for command in ("offsets_status", "verify_offsets"):
        manage_json(pooled, command, "--group", this.group)
    assert manage_json(pooled, "run_recovery_manager", "--group", this.group, "--once")["leading"]
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def test_each_transaction_has_the_settings_of_its_session_and_leaves_none_behind(
    pooled_url: str, case: MakeCase
) -> None:
    program = (
        "import django; django.setup()\n"
        "from django.db import connection\n"
        "from offsets.database import WorkerSession\n"
        "names = ['application_name', 'lock_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout']\n"
        "with WorkerSession('w-pooled').transaction(), connection.cursor() as cursor:\n"
        "    cursor.execute('SELECT ' + ', '.join(f\"current_setting('{name}')\" for name in names))\n"
        "    print(connection.pooled, *cursor.fetchone())\n"
        "connection.close()\n"
        "with connection.cursor() as cursor:\n"
        "    cursor.execute('SHOW statement_timeout')\n"
        "    print(*cursor.fetchone())\n"
    )
    this = case(10)
    env = {**this.env, "DATABASE_URL": pooled_url, "DJANGO_SETTINGS_MODULE": "streamsocial.settings"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=env,
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "w-pooled", "15s", "15s", "20s", "0"], done.stderr
