"""Actions of the application itself: through the same door as people, and audited like theirs."""

import logging

from offsets.actions import pause
from offsets.actions.guards import Actor, Request, Source
from offsets.actions.pause import ActionKind
from offsets.errors import OffsetsError
from offsets.types import CIRCUIT_BREAKER

logger = logging.getLogger(__name__)

#: Names in the audit, not users: Django's logins cannot hold a colon.
MANAGER = Actor("auto:recovery-manager", allowed=True)
BREAKER = Actor(CIRCUIT_BREAKER, allowed=True)


def request(reason: str, actor: Actor = MANAGER) -> Request:
    """A request of the application itself."""
    return Request(actor, reason, Source.AUTOMATIC)


def pause_automatically(checkpoint_id: int, why: str, *, actor: Actor = BREAKER, epoch: int | None = None) -> bool:
    """Pause a partition until a person resumes it. False where it is paused already or has just changed, or where
    `epoch` has ended: a zombie must not pause its successor's partition.
    """
    try:
        shown = pause.preview(ActionKind.PAUSE, checkpoint_id, actor)
        if epoch is not None and shown.seen.epoch != epoch:
            return False
        pause.set_paused(ActionKind.PAUSE, checkpoint_id, request(why, actor), seen=shown.seen)
    except OffsetsError as error:
        logger.warning("Checkpoint %d was not paused (%s): %s", checkpoint_id, why, error)
        return False
    return True
