"""`manage.py stack`: the embedded services of this checkout. Needs neither a database nor any service."""

import json
import os
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from streamsocial.environment import stack_dir
from streamsocial.stack import Stack, StackError, StackStatus, frontend

UNAVAILABLE = 3


class TerminalReporter:
    """Steps as lines, countable work as a progress bar. On standard error: standard output is for data."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def advance(self, item: str, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task("", total=total)
        self._progress.update(self._task, completed=done, total=total, description=item[:40])


class Command(BaseCommand):
    help = "Run real Apache Kafka, PostgreSQL and Valkey for this checkout; their data is kept in .stack/."
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="up|down|status|env")
        up = actions.add_parser("up", help="start what is not running, and wait until it responds")
        up.add_argument("--wipe", action="store_true", help="delete all data of the stack first")
        up.add_argument("--no-frontend", action="store_true", help="do not download the chart library of the dashboard")
        actions.add_parser("down", help="stop what this stack started; the data is kept")
        status = actions.add_parser("status", help="show the services; exit 3 if one that should run does not")
        status.add_argument("--json", action="store_true", help="print JSON")
        actions.add_parser("env", help="print the settings as KEY=VALUE lines")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        stack = Stack(stack_dir(), environ=os.environ)
        try:
            match action:
                case "up":
                    self._up(stack, wipe=options["wipe"], with_frontend=not options["no_frontend"])
                case "down":
                    self._down(stack)
                case "status":
                    self._status(stack, as_json=options["json"])
                case "env":
                    self._env(stack)
        except StackError as error:
            raise CommandError(str(error), returncode=UNAVAILABLE) from error
        except OSError as error:
            raise CommandError(f"Cannot use the folder of the stack: {error}", returncode=UNAVAILABLE) from error
        except KeyboardInterrupt as error:
            raise CommandError(
                "Interrupted. Started services keep running; stop them with `manage.py stack down`.", returncode=130
            ) from error

    def _up(self, stack: Stack, *, wipe: bool, with_frontend: bool) -> None:
        with TerminalReporter() as report:
            status = stack.up(report, wipe=wipe)
            if with_frontend:
                with stack.alone(report):
                    frontend.ensure(report)
        if not status.started:
            self.stdout.write("The stack is already running.")
        self._print(status)

    def _down(self, stack: Stack) -> None:
        with TerminalReporter() as report:
            stopped = stack.down(report)
        if not stopped:
            self.stdout.write("No service of this stack was running.")

    def _status(self, stack: Stack, *, as_json: bool) -> None:
        status = stack.status()
        if as_json:
            services = {service.name: asdict(service) for service in status.services}
            self.stdout.write(json.dumps({"ok": status.ok, "services": services}))
        else:
            self._print(status)
        if not status.ok:
            if not as_json:
                self.stderr.write("Not all services are running. Start them with `manage.py stack up`.")
            sys.exit(UNAVAILABLE)

    def _env(self, stack: Stack) -> None:
        for name, value in stack.plan().items():
            self.stdout.write(f"{name}={value}")

    def _print(self, status: StackStatus) -> None:
        for service in status.services:
            details = [service.address or "", f"pid {service.pid}" if service.pid else "", service.data_dir or ""]
            self.stdout.write(f"{service.name:<10}{service.state:<14}" + "  ".join(filter(None, details)))
