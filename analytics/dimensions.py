"""The dimensions and event types, with the numbers stored for them. Pure, and cheap to import."""

from collections.abc import Sequence

EVENT_TYPES = ("view", "like", "comment", "share")

#: Stored numbers of the dimensions (analytics.models.Dimension) and the event field each counts by.
DIMENSIONS = {"content": (1, "content_id"), "user": (2, "user_id")}


def refused_dimensions(names: Sequence[str]) -> str:
    """Why these dimensions are invalid; empty when they are valid."""
    if set(names) <= set(DIMENSIONS) and len(set(names)) == len(names):
        return ""
    return f"ENGAGEMENT_DIMENSIONS must name each of {', '.join(DIMENSIONS)} at most once, not '{','.join(names)}'."
