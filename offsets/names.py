"""Names of topics and consumer groups: Kafka's rules, and the length of our columns. Pure."""

import re

from offsets.errors import RefusedError

MAX_TOPIC_LENGTH = 249
#: Kafka allows 32,767 bytes; the columns hold this many characters.
MAX_GROUP_LENGTH = 255
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def topic_problem(name: str) -> str:
    """What a topic's name must be, if `name` is not valid; else empty."""
    if _TOPIC.fullmatch(name) and name not in (".", ".."):
        return ""
    return (
        f"must be a Kafka topic name, 1 to {MAX_TOPIC_LENGTH} of the characters a-z, A-Z, 0-9, '.', '_' and '-', "
        f"not {shortened(name)}"
    )


def group_problem(name: str) -> str:
    """What a group's id must be, if `name` is not valid; else empty."""
    # librdkafka strips space at the start for some requests and not for others.
    if 0 < len(name) <= MAX_GROUP_LENGTH and name.isprintable() and name == name.strip():
        return ""
    return (
        f"must be a consumer group id, 1 to {MAX_GROUP_LENGTH} printable characters without space around them, "
        f"not {shortened(name)}"
    )


def instance_problem(name: str) -> str:
    """What the prefix of a static member's id must be, if `name` is not valid; else empty."""
    # Slots append a dash and their number; the broker applies the rule of topic names to the whole.
    return "" if not name else topic_problem(name + "-9999").replace("topic name", "group instance id")


def refuse_topic(name: str, subject: str = "The topic") -> None:
    """Raises RefusedError for an invalid topic name."""
    if problem := topic_problem(name):
        raise RefusedError(f"{subject} {problem}.")


def refuse_group(name: str, subject: str = "The group") -> None:
    """Raises RefusedError for an invalid group id."""
    if problem := group_problem(name):
        raise RefusedError(f"{subject} {problem}.")


def shortened(text: str) -> str:
    """`text` in quotes and escaped, cut after 60 characters with its length."""
    return repr(text) if len(text) <= 60 else f"{text[:60] + '…'!r} ({len(text):,} characters)"
