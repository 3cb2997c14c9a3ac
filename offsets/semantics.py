"""Which promise a group is given, and which combinations can keep it (docs/architecture.md)."""

from offsets.errors import RefusedError

#: Offered now. The other modes and stores of the design are refused rather than half kept.
SEMANTICS = ("exactly_once",)
STORES = ("postgres",)


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


def refuse_unsupported(semantics: str, store: str) -> None:
    """Raises RefusedError with the reason."""
    reason = refusal(semantics, store)
    if reason:
        raise RefusedError(reason)
