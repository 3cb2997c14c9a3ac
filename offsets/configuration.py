"""Which settings can be combined: semantics with stores, mirrors, slots, the group protocol (design §6)."""

from collections.abc import Mapping, Sequence

from offsets.errors import RefusedError
from offsets.types import Semantics, StoreCapabilities

SEMANTICS = tuple(mode.value for mode in Semantics)
GROUP_PROTOCOLS = ("classic", "consumer")
BASELINES = ("earliest", "latest", "group")
#: What each offset store can do; semantics and the contract suite go by it.
CAPABILITIES: Mapping[str, StoreCapabilities] = {
    "postgres": StoreCapabilities(
        transactional=True, compare_and_set=True, writable_from_outside=False, several_workers=True
    ),
    "kafka": StoreCapabilities(
        transactional=False, compare_and_set=False, writable_from_outside=False, several_workers=True
    ),
    "redis": StoreCapabilities(
        transactional=False, compare_and_set=True, writable_from_outside=True, several_workers=True
    ),
    "file": StoreCapabilities(
        transactional=False, compare_and_set=True, writable_from_outside=True, several_workers=False
    ),
}
STORES = tuple(CAPABILITIES)


def refusal(semantics: str, store: str) -> str:
    """Why this combination cannot keep its promise; empty when it can. Pure."""
    if semantics not in SEMANTICS:
        return f"Unknown processing semantics {semantics!r}. Use one of: {', '.join(SEMANTICS)}."
    if store not in STORES:
        return unknown_store(store)
    if semantics == Semantics.EXACTLY_ONCE and not capabilities_of(store).transactional:
        return (
            f"Offset store {store!r} cannot keep exactly_once: metrics and offsets must move in one transaction, which "
            "only the postgres store can. Use it, or choose at_least_once or at_most_once."
        )
    return ""


def refused_mirrors(mirrors: Sequence[str], store: str) -> str:
    """Why the offsets cannot be mirrored so; empty when they can. Pure."""
    for name in mirrors:
        if name not in STORES or name == "postgres":
            others = ", ".join(store for store in STORES if store != "postgres")
            return f"OFFSET_MIRRORS names {name!r}; it may name: {others}."
        if name == store and name != "kafka":
            return f"OFFSET_MIRRORS names {name!r}, which is the offset store itself. Leave it out."
    return ""


def refused_slots(store: str, slots: int) -> str:
    """Why this many slots cannot share the store; empty when they can. Pure."""
    if slots > 1 and store in STORES and not capabilities_of(store).several_workers:
        return f"Offset store {store!r} serves one worker; CONSUMER_SLOTS is {slots}. Set it to 1 or use another store."
    return ""


def misconfiguration(group_protocol: str, baseline: str, instance_id: str = "") -> str:
    """What is wrong with the group's settings; empty when nothing is. Pure."""
    if group_protocol not in GROUP_PROTOCOLS:
        return f"GROUP_PROTOCOL is {group_protocol!r}; it must be one of: {', '.join(GROUP_PROTOCOLS)}."
    if instance_id and group_protocol != "classic":
        return (
            "GROUP_INSTANCE_ID needs GROUP_PROTOCOL=classic: under the consumer protocol a static member's successor "
            "dies while its predecessor still lives, and closing leaves its partitions idle."
        )
    if baseline not in BASELINES:
        return f"OFFSET_BASELINE is {baseline!r}; it must be one of: {', '.join(BASELINES)}."
    return ""


def refused_timeouts(group_protocol: str, session_ms: int, max_poll_ms: int) -> str:
    """Why the client cannot be a group member with these timeouts; empty when it can. Pure."""
    if group_protocol == "classic" and session_ms > max_poll_ms:
        return (
            f"SESSION_TIMEOUT_MS ({session_ms}) must not be greater than MAX_POLL_INTERVAL_MS ({max_poll_ms}): "
            "Kafka's client rejects that."
        )
    return ""


def refuse(*reasons: str) -> None:
    """Raises RefusedError with the first reason that is not empty."""
    for reason in filter(None, reasons):
        raise RefusedError(reason)


def capabilities_of(store: str) -> StoreCapabilities:
    """What the offset store of this name can do. Raises RefusedError for an unknown one."""
    if store not in CAPABILITIES:
        raise RefusedError(unknown_store(store))
    return CAPABILITIES[store]


def unknown_store(store: str) -> str:
    """The error message for a store name that does not exist."""
    return f"Unknown offset store {store!r}. Use one of: {', '.join(STORES)}."
