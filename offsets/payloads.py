"""Bytes that somebody else wrote, made safe to show. Pure."""

import base64

PREVIEW_CHARACTERS = 200


def preview_text(payload: bytes | None, limit: int = PREVIEW_CHARACTERS) -> str | None:
    """UTF-8 text with control characters escaped, base64 where it is no text; cut to `limit`. None stays None."""
    if payload is None:
        return None
    # Four bytes are the longest UTF-8 character: never decode a megabyte to show a line of it.
    head = payload[: 4 * limit]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        cut_inside_a_character = len(head) < len(payload) and error.start >= len(head) - 3
        text = head[: error.start].decode() if cut_inside_a_character else f"base64:{base64.b64encode(head).decode()}"
    shown = "".join(character if character.isprintable() else _escaped(character) for character in text[:limit])
    return f"{shown}…" if len(text) > limit or len(head) < len(payload) else shown


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
