"""Foreign bytes and errors, made safe to show and to store; durations and counts in words. Pure."""

import base64
import traceback

PREVIEW_CHARACTERS = 200
NEWLINE = b"\n"


def preview_text(payload: bytes | None, limit: int = PREVIEW_CHARACTERS) -> str | None:
    """UTF-8 text with control characters escaped, base64 where it is not text; cut to `limit`. None stays None."""
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


def describe_error(error: BaseException) -> str:
    """Any error in one line, `Type: text`; also one that cannot be printed, or that quotes a record."""
    return postgres_text(" ".join(traceback.format_exception_only(error)[-1].split()))


def postgres_text(text: str) -> str:
    """An unchecked text without what PostgreSQL refuses in a text: NUL, half a character."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\0")


class InvalidTextError(ValueError):
    """A file's content is not text; the message names the line."""


def file_text(raw: bytes) -> str:
    """The text of a file in UTF-8, with or without a byte order mark. Raises InvalidTextError."""
    for place, why in ((raw.find(b"\0"), "a NUL character"), (_not_utf8(raw), "not UTF-8 text")):
        if place >= 0:
            before = raw[:place].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            raise InvalidTextError(f"line {before.count(NEWLINE) + 1}: {why}")
    return raw.decode("utf-8-sig")


def _not_utf8(raw: bytes) -> int:
    """Where `raw` is not valid UTF-8; -1 where it is."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return -1


def whole_number(text: str, minimum: int = 0, maximum: int = 2**63 - 1) -> int | None:
    """The number that `text` writes in decimal digits; None for any other text, and outside of the bounds."""
    # Python itself also reads signs, spaces, underscores and the digits of other scripts, and refuses a long text.
    if not (text.isascii() and text.isdigit() and len(text) <= 25):
        return None
    number = int(text)
    return number if minimum <= number <= maximum else None


def duration(seconds: float) -> str:
    """`0.4 s`, `38 s`, `4 min`, `2 h`, `3 d`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, name in ((99.5, 1, "s"), (5970, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def counted(number: int, noun: str) -> str:
    """`1 record`, `1,204 records`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
