"""The options of this project's management commands, read from their parsers."""

import argparse
from collections.abc import Iterator
from functools import cache

from django.core.management import BaseCommand, get_commands, load_command_class

OURS = {name for name, app in get_commands().items() if app in {"offsets", "analytics", "streamsocial"}}


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _options(subparser)
        yield from action.option_strings


@cache
def _of_every_command() -> frozenset[str]:
    return frozenset(_options(BaseCommand().create_parser("manage.py", "any")))


@cache
def options_of(name: str) -> frozenset[str]:
    """The options of a command that Django does not give to every command."""
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    return frozenset(_options(parser)) - _of_every_command()
