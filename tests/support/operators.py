"""What the tests of evictions and accepted losses share."""

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from offsets.actions.guards import Actor
from offsets.models import (
    OperatorAction,
)

OPERATOR = Actor("olga", allowed=True)


VIEWER = Actor("victor", allowed=False)


def run(command: str, *arguments: str) -> Any:
    out = io.StringIO()
    call_command(command, *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def in_words(command: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def refused(command: str, *arguments: str, status: int = 2) -> str:
    with pytest.raises(CommandError) as error:
        call_command(command, *arguments, stdout=io.StringIO())
    assert error.value.returncode == status
    return str(error.value)


def audit() -> list[tuple[str, str, str]]:
    return list(OperatorAction.objects.order_by("pk").values_list("kind", "outcome", "username"))
