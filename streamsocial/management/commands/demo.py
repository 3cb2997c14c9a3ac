"""`manage.py demo`: services, workers, dashboard and events, in the foreground until Ctrl-C."""

import contextlib
import fcntl
import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from offsets.checks import refused_settings
from offsets.management.base import EXIT_REFUSED, EXIT_UNAVAILABLE, positive
from streamsocial.demo.children import Children, manage
from streamsocial.demo.interruption import Interrupted, Interruption
from streamsocial.demo.plan import free_port, processes, slot_count
from streamsocial.demo.steps import StepFailed, run_step
from streamsocial.environment import Environment, stack_dir
from streamsocial.management.commands.demo_logins import LOGINS
from streamsocial.stack import Stack, StackError
from streamsocial.stack.state import write_private

READY_SECONDS = 120.0
COMMAND_SECONDS = 120.0
#: The first download takes long on a slow connection.
SERVICES_SECONDS = 1800.0


class Command(BaseCommand):
    help = "Run everything on this machine: embedded services, workers, dashboard and events. Stop it with Ctrl-C."
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rate", type=positive, default=2000, help="Events per second to produce (default: 2000).")
        parser.add_argument("--partitions", type=positive, default=6, help="Partitions of a new topic (default: 6).")
        parser.add_argument(
            "--port",
            type=positive,
            default=8000,
            help="Port of the dashboard (default: 8000); another if it is in use.",
        )
        parser.add_argument("--no-generator", action="store_true", help="Produce no events.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["port"] > 65535:
            raise CommandError("--port must be at most 65535.", returncode=EXIT_REFUSED)
        if reason := refused_settings():
            raise CommandError(reason, returncode=EXIT_REFUSED)
        self.console = Console(highlight=False)
        self.interruption = Interruption()
        self.interruption.listen()
        self.began = time.monotonic()
        stack = Stack(stack_dir(), environ=os.environ)
        try:
            stack.directory.create()
            with _the_only_demo(stack.directory.root / "demo.lock"), self._services(stack) as environ:
                self._run(stack.directory.root, environ, options)
        except Interrupted:
            self._say("Stopped before it was ready.")
        except (StackError, StepFailed, OSError) as error:
            raise CommandError(str(error), returncode=EXIT_UNAVAILABLE) from error

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not prevent the processes from being stopped
            self.console.print(text, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def _services(self, stack: Stack) -> Iterator[dict[str, str]]:
        """Start the stack, and stop afterwards what was not running before. Yields the environment of all processes."""
        self._say(
            "Starting Kafka, PostgreSQL and Valkey; the first time they are downloaded, which takes a minute or two …"
        )
        ours = {service.name for service in stack.status().services if service.state in ("stopped", "unresponsive")}
        try:
            run_step(
                "Starting the services",
                manage("stack", "up"),
                os.environ,
                self.interruption,
                seconds=SERVICES_SECONDS,
                shows_progress=True,
            )
            yield {**stack.plan(), **{name: value for name, value in os.environ.items() if value}}
        finally:
            if ours and stack.down(only=ours):
                self._say("Stopped the services that this demo started. Their data is kept.")

    def _run(self, folder: Path, environ: dict[str, str], options: dict[str, Any]) -> None:
        children = Children(folder / "demo.json", environ, self._say, in_a_hurry=lambda: self.interruption.impatient)
        children.clean_leftovers()
        self._prepare(folder, environ, options)
        counted_before = self._counted(environ)
        port = free_port(options["port"])
        if port is None:
            raise CommandError("No free port for the dashboard.", returncode=EXIT_UNAVAILABLE)
        if port != options["port"]:
            self._say(f"Port {options['port']} is in use; the dashboard uses {port}.")
        rate = None if options["no_generator"] else options["rate"]
        self._say(f"Starting the dashboard, {slot_count(environ)} consumer slots, control, recovery and beat …")
        try:
            for child in processes(folder, environ, port=port, rate=rate):
                children.start(child)
            url = f"http://127.0.0.1:{port}/"
            counted = self._wait_until_ready(children, environ, url, counted_before if rate else -1)
            if counted is not None:
                self._print_summary(folder, url, counted, rate)
                while not self.interruption.wait(1.0):
                    children.watch()
        finally:
            children.stop()

    def _prepare(self, folder: Path, environ: dict[str, str], options: dict[str, Any]) -> None:
        self._say("Preparing the database, logins and topic …")
        self._manage(environ, "migrate", "--verbosity", "0")
        self._manage(environ, "demo_logins", stdin=json.dumps(_passwords(folder / "demo-logins")))
        topic = Environment(environ).text("ENGAGEMENT_TOPIC", "engagement")
        self._manage(environ, "ensure_topic", topic, "--partitions", str(options["partitions"]))

    def _manage(self, environ: dict[str, str], *arguments: str, stdin: str = "") -> str:
        return run_step(
            f"`manage.py {arguments[0]}`",
            manage(*arguments),
            environ,
            self.interruption,
            seconds=COMMAND_SECONDS,
            stdin=stdin,
        )

    def _wait_until_ready(
        self, children: Children, environ: dict[str, str], url: str, counted_before: int
    ) -> int | None:
        """Wait for the dashboard, and until more events are counted than before. None when interrupted."""
        self._say(
            "Waiting for the dashboard and the first counted events …"
            if counted_before >= 0
            else "Waiting for the dashboard …"
        )
        deadline = time.monotonic() + READY_SECONDS
        page = False
        while not self.interruption.wait(0.5):
            children.watch()
            page = page or _answers(url + "healthz")
            if page and (counted := self._counted(environ)) > counted_before:
                return counted
            if time.monotonic() > deadline:
                what = "no event was counted" if page else "the dashboard does not respond"
                raise CommandError(
                    f"Not ready after {READY_SECONDS:.0f} s: {what}. See the logs in {stack_dir() / 'logs'}.",
                    returncode=EXIT_UNAVAILABLE,
                )
        return None

    def _counted(self, environ: dict[str, str]) -> int:
        return sum(json.loads(self._manage(environ, "engagement_totals", "--json"))["totals"].values())

    def _print_summary(self, folder: Path, url: str, counted: int, rate: int | None) -> None:
        with contextlib.suppress(OSError):
            self.console.print(
                f"\n[bold green]Ready[/] after {time.monotonic() - self.began:.0f} s. Dashboard: [bold]{url}[/]"
            )
        for name, password in _passwords(folder / "demo-logins").items():
            self._say(f"  {name:<9} {password}")
        self._say(f"{counted:,} events counted so far." + (f" Producing {rate:,} events per second." if rate else ""))
        self._say(f"Logs: {folder / 'logs'}. Press Ctrl-C to stop.")


@contextlib.contextmanager
def _the_only_demo(file: Path) -> Iterator[None]:
    """Allow one demo: a second one would stop the first one's processes. The system frees the lock of a dead one."""
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CommandError(
                f"A demo of this checkout is already running (process {lock.read().strip() or 'unknown'}).",
                returncode=EXIT_REFUSED,
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _passwords(file: Path) -> dict[str, str]:
    """The demo logins: generated once, then kept in a file that only its owner can read."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {name: str(stored[name]) for name in LOGINS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        made = {name: secrets.token_urlsafe(9) for name in LOGINS}
        write_private(file, json.dumps(made, indent=2) + "\n")
        return made


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
