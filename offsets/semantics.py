"""Which promise a group is given, and which combinations can keep it (docs/architecture.md)."""

from offsets.errors import RefusedError

#: Offered now. The other modes and stores of the design are refused rather than half kept.
SEMANTICS = ("exactly_once",)
STORES = ("postgres",)
GROUP_PROTOCOLS = ("classic", "consumer")
BASELINES = ("earliest", "latest", "group")


def refusal(semantics: str, store: str) -> str:
    """Why this combination cannot keep its promise; empty when it can. Pure."""
    if semantics not in SEMANTICS:
        return f"Processing semantics {semantics!r} are not offered; use one of: {', '.join(SEMANTICS)}."
    if store not in STORES:
        return (
            f"Offset store {store!r} cannot keep {semantics}: metrics and offsets must move in one transaction. "
            f"Use one of: {', '.join(STORES)}."
        )
    return ""


def misconfiguration(group_protocol: str, baseline: str) -> str:
    """What is wrong with how the group is set up; empty when nothing is. Pure."""
    if group_protocol not in GROUP_PROTOCOLS:
        return f"GROUP_PROTOCOL is {group_protocol!r}; it must be one of: {', '.join(GROUP_PROTOCOLS)}."
    if baseline not in BASELINES:
        return f"OFFSET_BASELINE is {baseline!r}; it must be one of: {', '.join(BASELINES)}."
    return ""


def refuse(*reasons: str) -> None:
    """Raises RefusedError with the first reason that there is."""
    for reason in filter(None, reasons):
        raise RefusedError(reason)
