"""`manage.py demo`: services, workers, page and events, in the foreground until Ctrl-C."""

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from offsets.commands import EXIT_REFUSED, EXIT_UNAVAILABLE, positive
from streamsocial.demo.children import Child, Children, manage, module
from streamsocial.environment import Environment, stack_dir
from streamsocial.management.commands.stack import TerminalReporter
from streamsocial.stack import Stack, StackError, StackStatus, frontend
from streamsocial.stack.state import write_private

LOGINS = ("viewer", "operator", "admin")
READY_SECONDS = 90.0


class Command(BaseCommand):
    help = "Run everything on this machine: embedded services, workers, page and a stream of events. Ctrl-C ends it."
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rate", type=positive, default=2000, help="Events per second to produce (default 2000).")
        parser.add_argument("--partitions", type=positive, default=6, help="Partitions of a new topic (default 6).")
        parser.add_argument("--port", type=positive, default=8000, help="Port of the page; another if it is taken.")
        parser.add_argument("--no-generator", action="store_true", help="Produce no events.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["port"] > 65535:
            raise CommandError("--port must be at most 65535.", returncode=EXIT_REFUSED)
        self.console = Console(highlight=False)
        self.stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopping.set())
        folder = stack_dir()
        stack = Stack(folder, environ=os.environ)
        started: StackStatus | None = None
        children: Children | None = None
        try:
            with TerminalReporter() as reporter:
                started = stack.up(reporter)
                frontend.ensure(reporter)
            environ = {**os.environ, **stack.plan()}
            children = Children(folder / "demo.json", environ, self._say)
            children.clean_leftovers()
            self._prepare(folder, environ, options)
            self._run(children, folder, environ, options)
        except StackError as error:
            raise CommandError(str(error), returncode=EXIT_UNAVAILABLE) from error
        finally:
            if children is not None:
                children.stop()
            if started is not None and started.started:
                self._say("Stopping the services that this demo started; their data stays …")
                stack.down(only=started.started)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _prepare(self, folder: Path, environ: dict[str, str], options: dict[str, Any]) -> None:
        self._say("Preparing database, topic and logins …")
        self._manage(environ, "migrate", "--verbosity", "0")
        passwords = _passwords(folder / "demo-logins")
        self._manage(environ, "demo_logins", stdin=json.dumps(passwords))
        topic = Environment(environ).text("ENGAGEMENT_TOPIC", "engagement")
        self._manage(environ, "ensure_topic", topic, "--partitions", str(options["partitions"]))

    def _manage(self, environ: dict[str, str], *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            manage(*arguments), env=environ, input=stdin, text=True, capture_output=True, check=False, timeout=120
        )
        if done.returncode:
            raise CommandError(
                f"`manage.py {arguments[0]}` failed:\n{done.stderr.strip()[-2000:]}", returncode=EXIT_UNAVAILABLE
            )
        return done.stdout

    def _run(self, children: Children, folder: Path, environ: dict[str, str], options: dict[str, Any]) -> None:
        port = _free_port(options["port"])
        slots = Environment(environ).integer("CONSUMER_SLOTS", 2, minimum=1, maximum=1000)
        logs = folder / "logs"
        celery = ("-A", "streamsocial", "worker", "--loglevel", "INFO")
        self._say(f"Starting {slots} consumer slots, control, beat and the page …")
        children.start(
            Child(
                "web",
                module(
                    "daphne", "-b", "127.0.0.1", "-p", str(port), "--no-server-name", "streamsocial.asgi:application"
                ),
                logs / "web.log",
            )
        )
        children.start(
            Child(
                "slots",
                module(
                    "celery",
                    *celery,
                    "-Q",
                    "slots",
                    "-c",
                    str(slots + 1),
                    "--prefetch-multiplier",
                    "1",
                    "-n",
                    "slots@%h",
                ),
                logs / "slots.log",
                stop_seconds=40,
            )
        )
        control = module("celery", *celery, "-Q", "control", "-c", "2", "-n", "control@%h")
        children.start(Child("control", control, logs / "control.log"))
        beat = module("celery", "-A", "streamsocial", "beat", "--schedule", str(folder / "beat-schedule"), "--pidfile=")
        children.start(Child("beat", beat, logs / "beat.log", stop_seconds=5))
        if not options["no_generator"]:
            rate = str(options["rate"])
            seed = str(secrets.randbelow(2**31))
            generator = manage("produce_events", "--count", "0", "--rate", rate, "--seed", seed, "--json")
            children.start(Child("generator", generator, logs / "generator.log", stop_seconds=10))
        url = f"http://127.0.0.1:{port}/"
        if self._wait_until_ready(children, environ, url, counting=not options["no_generator"]):
            self._tell(folder, url, options)
            while not self.stopping.wait(1.0):
                children.watch()

    def _wait_until_ready(self, children: Children, environ: dict[str, str], url: str, *, counting: bool) -> bool:
        """Wait for the page and, with a generator, for counted events. False when asked to stop meanwhile."""
        deadline = time.monotonic() + READY_SECONDS
        page = counted = False
        while not self.stopping.wait(0.5):
            children.watch()
            page = page or _answers(url + "healthz")
            if page and not counted:
                counted = not counting or sum(self._totals(environ).values()) > 0
            if page and counted:
                return True
            if time.monotonic() > deadline:
                what = "no event was counted" if page else "the page does not answer"
                raise CommandError(
                    f"After {READY_SECONDS:.0f} s {what}. The logs are in {stack_dir() / 'logs'}.",
                    returncode=EXIT_UNAVAILABLE,
                )
        return False

    def _totals(self, environ: dict[str, str]) -> dict[str, int]:
        totals: dict[str, int] = json.loads(self._manage(environ, "engagement_totals", "--json"))["totals"]
        return totals

    def _tell(self, folder: Path, url: str, options: dict[str, Any]) -> None:
        self._say("")
        self.console.print(f"[bold green]Ready.[/] The live dashboard: [bold]{url}[/]")
        for name, password in _passwords(folder / "demo-logins").items():
            self._say(f"  {name:<9} {password}")
        if not options["no_generator"]:
            self._say(f"{options['rate']:,} events a second are being produced and counted. Logs: {folder / 'logs'}")
        self._say("Ctrl-C ends it.")


def _passwords(file: Path) -> dict[str, str]:
    """The demo logins, made once and kept, readable by their owner only."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {name: str(stored[name]) for name in LOGINS}
    except (OSError, ValueError, KeyError):
        made = {name: secrets.token_urlsafe(9) for name in LOGINS}
        write_private(file, json.dumps(made, indent=2) + "\n")
        return made


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise CommandError("No port is free for the page.", returncode=EXIT_UNAVAILABLE)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
