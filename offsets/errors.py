"""One tree of exceptions. A docstring says what happened; the message says what to do."""


class OffsetsError(Exception):
    """Base of every error that this package raises on purpose."""

    #: Exit status of a command that ends with this error (1 failed, 2 refused, 3 unavailable).
    exit_status = 1
    #: Status of an API response that reports this error.
    http_status = 500


class RefusedError(OffsetsError):
    """The request cannot be carried out as it was asked; nothing was changed."""

    exit_status = 2
    http_status = 409


class StalePreviewError(RefusedError):
    """The partition has changed since the preview; nothing was changed."""


class NotAllowedError(RefusedError):
    """The user has no permission for this action; nothing was changed."""

    http_status = 403


class ServiceUnavailableError(OffsetsError):
    """Kafka, PostgreSQL or Redis does not answer."""

    exit_status = 3
    http_status = 503


class CorruptStoreError(OffsetsError):
    """What an offset store holds cannot be read; nothing overwrites it."""


class TopicNotFoundError(RefusedError):
    """The topic does not exist on this cluster."""


class FencedError(OffsetsError):
    """A commit named an epoch or an offset that is not current any more: another owner has taken over."""

    def __init__(self, misses: "dict[int, str]") -> None:
        self.misses = misses
        super().__init__("; ".join(misses.values()))


class LedgerConflictError(OffsetsError):
    """A row that the ledger had locked was not as it must be: a bug or a manual change."""
