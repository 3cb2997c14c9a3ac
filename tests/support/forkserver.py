"""Starts `manage.py` by forking a process that has imported the libraries: each start saves a second of CPU.

What is started is a process of its own all the same: it reads its settings from its own environment, and can be
killed, stopped and waited for by its pid. Only libraries are imported ahead, never the project.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_ROOT = Path(__file__).resolve().parent.parent.parent
#: None of them needs settings to be imported, starts a thread, or opens a file that stays open.
_LIBRARIES = (
    "django.contrib.postgres.fields",
    "django.core.management.commands.check",
    "django.db.backends.postgresql.base",
    "django.http",
    "django.template.backends.django",
    "django.test.signals",
    "django.urls",
    "channels.layers",
    "channels_redis.core",
    "celery.app.trace",
    "celery.bin.celery",
    "confluent_kafka.admin",
    "dj_database_url",
    "dotenv",
    "kombu.transport.redis",
    "orjson",
    "polars",
    "psycopg.types.json",
    "redis",
    "whitenoise.middleware",
)
_LARGEST_REQUEST = 1 << 20


# --- The test's side ------------------------------------------------------------------------------


class ForkedProcess:
    """A process that the server started, with the part of `subprocess.Popen`'s interface that tests use."""

    def __init__(self, answers: int) -> None:
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self.pid = int(self._line())
        self.returncode: int | None = None

    def _line(self) -> bytes:
        line = self._answers.readline()
        if not line:
            raise RuntimeError("The fork server ended.")
        return line

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = int(self._line())
            self._answers.close()
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class _Server:
    """The test run's end of the server's socket. The server ends, with what it started, when this is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST_REQUEST)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=_ROOT,
            )

    def start(
        self, arguments: Sequence[str], env: Mapping[str, str], stdout: IO[Any], stderr: IO[Any]
    ) -> ForkedProcess:
        answers, theirs = os.pipe()
        request = json.dumps({"arguments": list(arguments), "env": dict(env)}).encode()
        try:
            with self._lock:
                socket.send_fds(self._socket, [request], [stdout.fileno(), stderr.fileno(), theirs])
        finally:
            os.close(theirs)
        return ForkedProcess(answers)

    def end(self) -> None:
        self._socket.close()
        self._process.wait(10)


_server: _Server | None = None
_starting = threading.Lock()


def start_manage(arguments: Sequence[str], env: Mapping[str, str], stdout: IO[Any], stderr: IO[Any]) -> ForkedProcess:
    """Start `manage.py …` as the leader of a session of its own, with nothing on its standard input."""
    global _server
    with _starting:
        if _server is None:
            _server = _Server()
    return _server.start(arguments, env, stdout, stderr)


def run_manage(arguments: Sequence[str], env: Mapping[str, str], seconds: float) -> "subprocess.CompletedProcess[str]":
    """Run `manage.py …` to its end; kill it after `seconds`. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = start_manage(arguments, env, stdout, stderr)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return subprocess.CompletedProcess(list(arguments), status, _text(stdout), _text(stderr))


def _text(output: IO[str]) -> str:
    output.seek(0)
    return output.read()


def end_server() -> None:
    """End the server, if one was started, and everything that it has started."""
    global _server
    if _server is not None:
        _server.end()
        _server = None


# --- The server's side ----------------------------------------------------------------------------


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request. Returns the arguments in the child; None in the server, when the test run is over."""
    children: dict[int, tuple[int, int]] = {}  # pidfd → pid, where its status goes
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    _report(selector, key.fd, *children.pop(key.fd))
                    continue
                message, fds, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 3)
                if not message:
                    _kill_all(children)
                    return None
                stdout, stderr, answers = fds
                pid = os.fork()
                if pid == 0:
                    return _become(json.loads(message), stdout, stderr)
                os.close(stdout)
                os.close(stderr)
                os.write(answers, b"%d\n" % pid)
                pidfd = os.pidfd_open(pid)
                children[pidfd] = (pid, answers)
                selector.register(pidfd, selectors.EVENT_READ)


def _report(selector: selectors.BaseSelector, pidfd: int, pid: int, answers: int) -> None:
    _, status = os.waitpid(pid, 0)
    selector.unregister(pidfd)
    os.close(pidfd)
    with contextlib.suppress(BrokenPipeError):
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    os.close(answers)


def _kill_all(children: Mapping[int, tuple[int, int]]) -> None:
    for pid, _ in children.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _become(request: dict[str, Any], stdout: int, stderr: int) -> list[str]:
    """Make this child what `subprocess` would have made of it: its session, output, environment, and no other file."""
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, 4096)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[1:1] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    time.tzset()
    return list(request["arguments"])


def _main() -> None:
    for name in _LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy the pages of everything imported
    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        # Not in `_serve`: the command ends as any program does, with its threads waited for and `atexit` run.
        sys.argv = [str(_ROOT / "manage.py"), *arguments]
        sys.path[0] = str(_ROOT)  # beside those of PYTHONPATH
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _main()
