"""Targets of a reset, as kafka-consumer-groups takes them: times, durations, and its CSV. Pure."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from offsets.errors import RefusedError
from offsets.names import refuse_topic, shortened
from offsets.text import whole_number
from offsets.types import TopicPartition

MAX_OFFSET = 2**63 - 1
MAX_ROWS = 100_000
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_HEADERS = (["topic", "partition", "offset"], ["group", "topic", "partition", "offset"])


def timestamp_ms(text: str, now: datetime) -> int:
    """An ISO 8601 timestamp with a zone, in milliseconds. Raises RefusedError without a zone, or in the future."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RefusedError(
            f"Invalid timestamp {text!r}. Use ISO 8601 with a zone, e.g. 2026-11-23T14:30:00Z."
        ) from None
    if moment.tzinfo is None:
        raise RefusedError(f"The timestamp {text!r} has no zone. Add one, e.g. 2026-11-23T14:30:00Z.")
    if moment > now:
        raise RefusedError(f"The timestamp {text!r} is in the future. Use --to-latest for the end of the log.")
    return max(0, int(moment.timestamp() * 1000))


def duration_ms(text: str, now: datetime) -> int:
    """The time that long before `now` (`P1DT2H30M10S`), in milliseconds. Raises RefusedError."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise RefusedError(f"Invalid duration {text!r}. Use days, hours, minutes and seconds, e.g. P1DT2H30M10S.")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    try:
        moment = now - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        moment = datetime.fromtimestamp(0, UTC)
    return max(0, int(moment.timestamp() * 1000))


def read_csv(text: str, group_id: str) -> dict[TopicPartition, int]:
    """`topic,partition,offset`, or the same after the group; a header line is ignored.

    Raises RefusedError naming the line and what is wrong with it.
    """
    targets: dict[TopicPartition, int] = {}
    lines = 0
    for line, row in _rows(text):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        lines += 1
        if lines > MAX_ROWS:
            raise RefusedError(f"The file has more than {MAX_ROWS:,} rows.")
        if lines == 1 and [cell.lower() for cell in cells] in _HEADERS:
            continue
        tp, offset = _row(line, cells, group_id)
        if tp in targets:
            raise RefusedError(f"Line {line}: duplicate partition {tp}.")
        targets[tp] = offset
    if not targets:
        raise RefusedError("The file names no partitions. Each line is topic,partition,offset.")
    return targets


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the number of its first line. Lines end with LF, CR LF or CR. Raises RefusedError."""
    # Strict: without it a quote that is not closed would swallow the following lines.
    reader = csv.reader(io.StringIO(text, newline=None), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise RefusedError(f"Line {line}: {_csv_problem(str(error))}. Use topic,partition,offset.") from None


def _csv_problem(error: str) -> str:
    """The csv module's words, or clearer ones."""
    if "unexpected end of data" in error:
        return "a quote is not closed"
    if "field larger than" in error:
        return "a value is too long"
    return error


def _row(line: int, cells: Sequence[str], group_id: str) -> tuple[TopicPartition, int]:
    if len(cells) == 4:
        group, *cells = cells
        if group != group_id:
            raise RefusedError(f"Line {line} is for group {shortened(group)}, not {group_id!r}.")
    if len(cells) != 3:
        raise RefusedError(f"Line {line} has {len(cells)} columns. Use topic,partition,offset.")
    topic, partition, offset = cells
    if not topic:
        raise RefusedError(f"Line {line} names no topic.")
    refuse_topic(topic, f"Line {line}: the topic")
    return TopicPartition(topic, _number(line, "partition", partition)), _number(line, "offset", offset)


def _number(line: int, what: str, text: str) -> int:
    number = whole_number(text, maximum=MAX_OFFSET)
    if number is None:
        raise RefusedError(f"Line {line}: invalid {what} {shortened(text)}. Use a whole number from 0.")
    return number


def write_csv(targets: Mapping[TopicPartition, int]) -> str:
    """What `read_csv` and kafka-consumer-groups read: no header, one partition a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows((tp.topic, tp.partition, offset) for tp, offset in sorted(targets.items()))
    return out.getvalue()


def unknown(wanted: Iterable[TopicPartition], known: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Those of `wanted` that the group does not have."""
    return sorted(set(wanted) - set(known))
