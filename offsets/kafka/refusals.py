"""Why the broker refuses a consumer as a member of its group, from the errors that the client reports."""

from confluent_kafka import KafkaError

from offsets.clock import monotonic

_REFUSALS = frozenset(
    {
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.GROUP_MAX_SIZE_REACHED,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.UNSUPPORTED_ASSIGNOR,
        KafkaError.UNRELEASED_INSTANCE_ID,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)
#: The client joins again every 2 or 3 s and repeats the error each time.
REPEATED_SECONDS = 30.0
#: It reports these once, and again only after another outcome.
_ONCE = "FindCoordinator"


class GroupRefusal:
    """The last refusal, until the member has joined. Any thread may read it."""

    def __init__(self) -> None:
        self._text = ""
        self._until: float | None = None

    def note(self, error: KafkaError) -> bool:
        """Keep an error that is a refusal. False for any other."""
        if error.code() not in _REFUSALS:
            return False
        text = error.str()
        self._until = None if text.startswith(_ONCE) else monotonic() + REPEATED_SECONDS
        self._text = text
        return True

    def joined(self) -> None:
        self._text = ""

    @property
    def text(self) -> str:
        """In the client's words; empty for a member. A member without partitions is known by the end of the errors."""
        if self._until is not None and monotonic() > self._until:
            return ""
        return self._text
