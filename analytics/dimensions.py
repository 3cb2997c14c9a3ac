"""What events are counted by, and as: names and numbers that rows and readers share. Pure, and light to import."""

from collections.abc import Sequence

EVENT_TYPES = ("view", "like", "comment", "share")

#: Stored numbers of the dimensions (analytics.models.Dimension) and the event field each counts by.
DIMENSIONS = {"content": (1, "content_id"), "user": (2, "user_id")}


def refused_dimensions(names: Sequence[str]) -> str:
    """Why these dimensions cannot be kept; empty when they can."""
    if set(names) <= set(DIMENSIONS) and len(set(names)) == len(names):
        return ""
    return f"ENGAGEMENT_DIMENSIONS is {', '.join(names)}; it may name each of {', '.join(DIMENSIONS)} once."
