"""What the models share."""

from django.db import models
from django.db.models import Func


class DatabaseTime(Func):
    """`clock_timestamp()`: the only clock by which processes judge each other."""

    function = "clock_timestamp"
    arity = 0
    output_field = models.DateTimeField()


def choices(kind: type) -> list[tuple[str, str]]:
    return [(member.value, member.value.replace("_", " ") or "none") for member in kind]  # type: ignore[attr-defined]
