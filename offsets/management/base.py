"""What every management command shares: exit statuses, `--json`, errors in one sentence."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from rich.console import Console

from offsets.database import DATABASE_LOST, describe_outage
from offsets.errors import OffsetsError
from offsets.text import whole_number

EXIT_AIM_NOT_MET = 1
EXIT_REFUSED = 2
EXIT_UNAVAILABLE = 3
PIPED_WIDTH = 180


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


@contextmanager
def errors_as_exit_status() -> Iterator[None]:
    """Turn errors and unavailable services into one sentence on stderr and the documented exit status."""
    try:
        yield
    except OffsetsError as error:
        raise CommandError(str(error), returncode=error.exit_status) from error
    except DATABASE_LOST as error:
        raise CommandError(
            f"{describe_outage(error)}. Check DATABASE_URL, or run `manage.py stack up`.",
            returncode=EXIT_UNAVAILABLE,
        ) from error
    except (RedisError, BrokerError) as error:
        raise CommandError(
            f"Redis is not available: {error}. Check REDIS_URL, or run `manage.py stack up`.",
            returncode=EXIT_UNAVAILABLE,
        ) from error


class OperatorCommand(BaseCommand):
    """Base of the commands. Subclasses implement `run(**options)` and may return an exit status."""

    #: Adds `--json`.
    json_option = True
    # System checks of the database would turn "PostgreSQL is down" into a stack trace.
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
        """Print `data` as JSON, or let `show` draw it for a person."""
        if as_json:
            self.stdout.write(json.dumps(data, default=_plain))
        else:
            # Never cut a column in a pipe or a file: a cut-off offset is a wrong offset.
            width = None if self.stdout.isatty() else PIPED_WIDTH
            show(Console(file=cast("IO[str]", self.stdout), highlight=False, width=width))


def positive(text: str) -> int:
    """An argparse type: a whole number above zero."""
    return _whole(text, 1)


def non_negative(text: str) -> int:
    """An argparse type: a whole number from zero, at most 2^62."""
    return _whole(text, 0)


def _whole(text: str, minimum: int) -> int:
    number = whole_number(text.strip(), minimum, 2**62)
    if number is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum} and at most 2^62")
    return number
