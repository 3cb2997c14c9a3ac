"""What every action checks: who acts, why, and whether the partition is still as it was seen."""

import enum
import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from django.conf import settings
from django.db import OperationalError, connection

from offsets.errors import NotAllowedError, RefusedError, ServiceUnavailableError, StalePreviewError
from offsets.models import PartitionCheckpoint
from offsets.permissions import AnyUser, can_operate
from offsets.types import RETIRED

MAX_REASON_LENGTH = 500
_LOCK_NOT_AVAILABLE = "55P03"


class UnknownPartitionError(RefusedError):
    """No checkpoint has this id."""

    http_status = 404


class ReasonError(RefusedError):
    """The reason is missing or too long."""

    http_status = 400


class Source(enum.StrEnum):
    """Through which door an action came."""

    ADMIN = "admin"
    API = "api"
    COMMAND = "command"
    #: The application itself: the circuit breaker, the recovery manager.
    AUTOMATIC = "automatic"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and whether they may. Audit rows keep the name: it must outlive the user."""

    name: str
    allowed: bool

    @classmethod
    def of_user(cls, user: AnyUser) -> "Actor":
        return cls(user.get_username(), can_operate(user))

    @classmethod
    def of_operating_system(cls) -> "Actor":
        """A user with a shell on the host can do anything; the audit still needs a name."""
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = "unknown"
        return cls(f"os:{name}"[:150], allowed=True)


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for an action, why, and through which door. The reason is cleaned here, once for all actions."""

    actor: Actor
    reason: str
    source: Source

    def __post_init__(self) -> None:
        # PostgreSQL text refuses NUL.
        object.__setattr__(self, "reason", self.reason.replace("\x00", "").strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an action would do, in words. Subclasses add the numbers, and the token to apply exactly that."""

    kind: str
    target: str
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "target": self.target, "text": self.text}


@dataclass(frozen=True, slots=True)
class Seen:
    """What an operator saw of a partition: actions compare it with the locked row."""

    epoch: int
    owner: str | None
    desired_state: str
    #: Compared by moves alone, and with tolerance: a running partition keeps advancing.
    next_offset: int | None = None

    @classmethod
    def of(cls, checkpoint: PartitionCheckpoint) -> "Seen":
        return cls(checkpoint.epoch, checkpoint.owner_id, checkpoint.desired_state, checkpoint.next_offset)


# --- Checks ---------------------------------------------------------------------------------------


def check_allowed(kind: str, actor: Actor) -> None:
    if not actor.allowed:
        raise NotAllowedError(
            f"{actor.name or 'An anonymous user'} may not {kind.replace('_', ' ')} partitions. "
            "Ask to join the group 'operator'."
        )


def check_reason(reason: str) -> None:
    if not reason:
        raise ReasonError("Enter a reason. It is saved in the audit log.")
    if len(reason) > MAX_REASON_LENGTH:
        raise ReasonError(f"The reason has {len(reason)} characters; the maximum is {MAX_REASON_LENGTH}.")


def check_unchanged(checkpoint: PartitionCheckpoint, seen: Seen) -> None:
    now = Seen.of(checkpoint)
    moved = [
        f"{name} was {was if was is not None else 'none'}, is {value if value is not None else 'none'}"
        for (name, was), value in zip(asdict(seen).items(), asdict(now).values(), strict=True)
        if was != value and name != "next_offset"
    ]
    if moved:
        raise StalePreviewError(
            f"{checkpoint.name} has changed since you looked: {'; '.join(moved)}. Nothing was changed; refresh the "
            "preview."
        )


@contextmanager
def bounded_wait() -> Iterator[None]:
    """Bound the wait for locked rows: a stopped worker may hold a lock for many seconds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(settings.CLAIM_LOCK_TIMEOUT_MS)])
    try:
        yield
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise ServiceUnavailableError(
            "Another transaction has locked this row and does not end. Nothing was changed; try again."
        ) from error


def require_live(checkpoint_id: int, checkpoint: PartitionCheckpoint | None) -> PartitionCheckpoint:
    """The checkpoint, if there is one that can be acted on. Raises UnknownPartitionError, RefusedError."""
    if checkpoint is None:
        raise UnknownPartitionError(f"Unknown checkpoint {checkpoint_id}.")
    if checkpoint.retired_reason == RETIRED:
        raise RefusedError(f"{checkpoint.name} is retired. Undo action {checkpoint.last_action_id} first.")
    if checkpoint.retired_at is not None:
        raise RefusedError(
            f"{checkpoint.name}: this checkpoint was retired ({checkpoint.retired_reason or 'unknown reason'}); "
            "use the live one."
        )
    return checkpoint
