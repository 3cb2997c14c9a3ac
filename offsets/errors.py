"""One tree of exceptions. A docstring says what happened; the message says what to do."""

import traceback


def told(error: BaseException) -> str:
    """Somebody else's error in one line, `Type: text`; also one that cannot be printed, or that quotes a record."""
    return storable(" ".join(traceback.format_exception_only(error)[-1].split()))


def storable(text: str) -> str:
    """A text that quotes what nobody has checked, without what PostgreSQL refuses in a text: NUL, half a character."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\0")


class OffsetsError(Exception):
    """Base of every error that this package raises on purpose."""

    #: Exit status of a command that ends with this error (design: 1 aim not met, 2 refused, 3 unavailable).
    exit_status = 1


class RefusedError(OffsetsError):
    """The request cannot be carried out as it was asked; nothing was changed."""

    exit_status = 2


class StalePreviewError(RefusedError):
    """The partition has changed since the operator looked at it; nothing was changed."""


class NotAllowedError(RefusedError):
    """The user has no permission for this action; nothing was changed."""


class ServiceUnavailableError(OffsetsError):
    """Kafka, PostgreSQL or Redis does not answer."""

    exit_status = 3


class CorruptStoreError(OffsetsError):
    """What an offset store holds cannot be trusted; nothing overwrites it."""


class TopicNotFoundError(RefusedError):
    """The topic does not exist on this cluster."""


class FencedError(OffsetsError):
    """A commit named an epoch or an offset that is no longer current: another owner has taken over."""

    def __init__(self, misses: "dict[int, str]") -> None:
        self.misses = misses
        super().__init__("; ".join(misses.values()))


class CommitOutcomeUnknownError(OffsetsError):
    """The connection was lost before the outcome of a transaction was seen."""


class LedgerConflictError(OffsetsError):
    """A row that the ledger had locked did not look as it must: a bug or a hand-made change."""
