"""The one door of every action: permission first, then the reason, and an audit row for a refusal.

Nothing is locked, and Kafka is asked nothing, for a user who may not act.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import transaction

from offsets.actions import audit
from offsets.actions.guards import Request, bounded_wait, check_allowed, check_reason
from offsets.errors import RefusedError


@dataclass(slots=True)
class Attempt:
    """One attempt to change something. A refusal is audited under its target as it is then."""

    kind: str
    request: Request
    #: The partition at hand: an action on several moves it on.
    checkpoint_id: int | None
    target: str = ""
    #: Shared by all rows of one change, which are undone together.
    change_id: uuid.UUID = field(default_factory=uuid.uuid4)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing. Waits briefly for locked rows: raises ServiceUnavailableError."""
        with transaction.atomic(), bounded_wait():
            yield


@contextmanager
def attempt(
    kind: str, request: Request, checkpoint_id: int | None = None, *, target: str = "", audited: bool = True
) -> Iterator[Attempt]:
    """Let the body try the action: what Kafka must be asked first, then the rest in `transaction()`.

    Raises RefusedError, having audited the refusal after the rollback.
    """
    change = Attempt(kind, request, checkpoint_id, target)
    try:
        check_allowed(kind, request.actor)
        check_reason(request.reason)
        yield change
    except RefusedError as error:
        if audited:
            audit.refused(kind, change.checkpoint_id, request, detail=str(error), target=change.target)
        raise
