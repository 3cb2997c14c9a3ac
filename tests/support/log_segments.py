"""Damages the files of a partition's log while its broker is down: cuts its end off, or flips a byte of a batch."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from offsets.types import TopicPartition
from streamsocial.stack.supervisor import Stack

#: Base offset, length, leader epoch, magic, checksum, attributes, last offset delta of a record batch.
_HEADER = struct.Struct(">qiibIhi")
#: What precedes the length's own count: base offset and length.
_PREFIX_BYTES = 12


@dataclass(frozen=True)
class SegmentBatch:
    """One record batch in a segment file: `[start, end)` of the log, and where it lies in the file."""

    segment: Path
    place: int
    size: int
    start: int
    end: int
    leader_epoch: int


def log_folder(stack: Stack, tp: TopicPartition) -> Path:
    return stack.directory.root / "kafka" / "data" / str(tp)


def batches(folder: Path) -> Iterator[SegmentBatch]:
    """The batches of a log, in offset order."""
    for segment in sorted(folder.glob("*.log")):
        data, place = segment.read_bytes(), 0
        while place + _HEADER.size <= len(data):
            base, length, epoch, _, _, _, last = _HEADER.unpack_from(data, place)
            if length <= 0:
                break
            yield SegmentBatch(segment, place, _PREFIX_BYTES + length, base, base + last + 1, epoch)
            place += _PREFIX_BYTES + length


def cut_log(folder: Path, at: int) -> int:
    """Cut the log off before the batch that holds offset `at`. Returns where it ends now."""
    first = next(batch for batch in batches(folder) if batch.end > at)
    for later in folder.glob("*.log"):
        if later.name > first.segment.name:
            later.unlink()
    with first.segment.open("r+b") as file:
        file.truncate(first.place)
    _forget_recovery(folder)
    return first.start


def flip_byte(folder: Path, at: int) -> SegmentBatch:
    """Change the last byte of the batch that holds offset `at`: its checksum is wrong from now on."""
    batch = next(batch for batch in batches(folder) if batch.end > at)
    with batch.segment.open("r+b") as file:
        file.seek(batch.place + batch.size - 1)
        last = file.read(1)[0]
        file.seek(batch.place + batch.size - 1)
        file.write(bytes([last ^ 0xFF]))
    return batch


def _forget_recovery(folder: Path) -> None:
    """Have Kafka build again what it derives from the segments, as after a crash."""
    for name in ("*.index", "*.timeindex", "*.txnindex", "*.snapshot"):
        for file in folder.glob(name):
            file.unlink()
    data = folder.parent
    (data / ".kafka_cleanshutdown").unlink(missing_ok=True)
    for checkpoint in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        _drop_from_checkpoint(data / checkpoint, folder.name)


def _drop_from_checkpoint(file: Path, name: str) -> None:
    """Remove one partition's line. The file is its version, the number of lines, and the lines."""
    if not file.exists() or not file.read_text():
        return  # Kafka has not written it yet
    topic, _, number = name.rpartition("-")
    version, _, *lines = file.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(f"{topic} {number} ")]
    file.write_text("\n".join([version, str(len(kept)), *kept]) + "\n")
