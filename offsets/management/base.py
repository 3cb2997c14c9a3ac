"""What every management command shares: exit statuses, `--json`, errors in one sentence."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from rich.console import Console

from offsets.checks import refused_settings
from offsets.configuration import refuse
from offsets.database import DATABASE_LOST, describe_outage
from offsets.errors import OffsetsError, RefusedError
from offsets.names import refuse_group, refuse_topic
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
    except OSError as error:
        # A file that an option names; other errors of the system are bugs.
        if not error.filename:
            raise
        # A temporary file stands for the one that it replaces.
        name = error.filename2 or error.filename
        raise CommandError(f"Cannot use {name}: {error.strerror}.", returncode=EXIT_REFUSED) from error


class OperatorCommand(BaseCommand):
    """Base of the commands. Subclasses implement `run(**options)` and may return an exit status."""

    #: Settings that cannot work are refused before `run`.
    refuses_bad_settings = True
    #: Adds `--json`.
    json_option = True
    # System checks of the database would turn "PostgreSQL is down" into a stack trace.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        if self.json_option:
            parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")

    def handle(self, *args: Any, **options: Any) -> None:
        with errors_as_exit_status():
            if self.refuses_bad_settings:
                refuse(refused_settings())
            refuse_bad_names(options)
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


def refuse_bad_names(options: Mapping[str, Any]) -> None:
    """Raises RefusedError for an invalid group or topic name, or text that is not UTF-8, among a command's options."""
    for name, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str | Path) and any(0xD800 <= ord(character) < 0xE000 for character in str(text)):
                raise RefusedError(f"--{name.replace('_', '-')} is not UTF-8 text.")
    if (group := options.get("group")) is not None:
        refuse_group(group, "--group")
    topics = options.get("topic") or []
    for topic in [topics] if isinstance(topics, str) else topics:
        # The commands on partitions take `topic:0,1`, and refuse `:0` themselves.
        name, colon, _ = topic.partition(":")
        if name or not colon:
            refuse_topic(name, "--topic")


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
