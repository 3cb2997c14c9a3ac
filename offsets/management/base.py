"""Shared by all management commands: exit statuses, `--json`, and errors as one sentence."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis.exceptions import RedisError
from rich.console import Console

from offsets.database import DATABASE_LOST
from offsets.errors import OffsetsError

EXIT_AIM_NOT_MET = 1
EXIT_REFUSED = 2
EXIT_UNAVAILABLE = 3
PIPED_WIDTH = 180
#: Printed after a preview that was not applied.
DRY_RUN = "Dry run: nothing was changed. To apply, add --execute --reason '…'."


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"Cannot write {type(value).__name__} as JSON.")


@contextmanager
def errors_as_exit_status() -> Iterator[None]:
    """Report an error as one sentence on stderr, with its documented exit status."""
    try:
        yield
    except OffsetsError as error:
        raise CommandError(str(error), returncode=error.exit_status) from error
    except DATABASE_LOST as error:
        raise CommandError(
            f"PostgreSQL is not available: {' '.join(str(error).split())}. Check DATABASE_URL, or run "
            "`manage.py stack up`.",
            returncode=EXIT_UNAVAILABLE,
        ) from error
    except RedisError as error:
        raise CommandError(
            f"Redis is not available: {error}. Check REDIS_URL, or run `manage.py stack up`.",
            returncode=EXIT_UNAVAILABLE,
        ) from error


class OperatorCommand(BaseCommand):
    """Base class of the commands. Subclasses implement `run(**options)`, which may return an exit status."""

    #: Whether to add `--json`.
    json_option = True
    # Database checks would report an unavailable PostgreSQL as a stack trace.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        if self.json_option:
            parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")

    def handle(self, *args: Any, **options: Any) -> None:
        with errors_as_exit_status():
            status = self.run(**options)
        if status:
            sys.exit(status)

    def run(self, **options: Any) -> int | None:
        raise NotImplementedError

    def emit(self, data: object, show: Callable[[Console], None], *, as_json: bool) -> None:
        """Print `data` as JSON, or let `show` print it as text."""
        if as_json:
            self.stdout.write(json.dumps(data, default=_plain))
        else:
            # A pipe or file gets a fixed, large width: a truncated offset would be a wrong offset.
            width = None if self.stdout.isatty() else PIPED_WIDTH
            show(Console(file=cast("IO[str]", self.stdout), highlight=False, width=width))


def positive(text: str) -> int:
    """Argparse type: a whole number from 1 to 2^62."""
    return _whole(text, 1)


def non_negative(text: str) -> int:
    """Argparse type: a whole number from 0 to 2^62."""
    return _whole(text, 0)


def _whole(text: str, minimum: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not minimum <= number <= 2**62:
        raise argparse.ArgumentTypeError(f"{number} is out of range; use a number from {minimum} to 2^62")
    return number
