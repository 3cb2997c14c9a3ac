"""Offsets in one file per group, for offline work with one worker at a time."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from offsets.clock import monotonic
from offsets.configuration import CAPABILITIES
from offsets.errors import CorruptStoreError, RefusedError, ServiceUnavailableError
from offsets.stores.base import refusal, stale_epoch
from offsets.types import StoreCommit, StoredOffset, TopicPartition

FORMAT = "streamsocial-offsets-1"
#: How long an operation waits for the lock. Operations take milliseconds, unless their process is stopped.
LOCK_TIMEOUT_SECONDS = 5.0
_MAX = 2**63 - 1
#: About 500,000 partitions.
MAX_BYTES = 64 * 1024 * 1024
Offsets = dict[TopicPartition, StoredOffset]


class FileStore:
    """One JSON file per group, replaced atomically: a temporary file is written, synced and renamed.

    Each operation holds an exclusive lock. The file has a checksum of its content. A file that is truncated or was
    edited is reported, and never overwritten.
    """

    name = "file"
    capabilities = CAPABILITIES["file"]

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(settings.OFFSET_FILE_DIR)
        self._held: dict[str, int] = {}

    def path(self, group_id: str) -> Path:
        """A safe file name for any group: a readable part, and a digest that makes it unique."""
        readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in group_id)[:60]
        return self.folder / f"{readable}-{hashlib.sha256(group_id.encode()).hexdigest()[:16]}.json"

    def read(self, group_id: str, partitions: Collection[TopicPartition]) -> Offsets:
        wanted = set(partitions)
        with self._locked(group_id):
            return {tp: stored for tp, stored in self._load(group_id).items() if tp in wanted}

    def commit(self, group_id: str, commits: Sequence[StoreCommit]) -> dict[TopicPartition, str]:
        with self._locked(group_id):
            held = self._load(group_id)
            refused = {}
            for commit in commits:
                reason = refusal(self.name, commit, held.get(commit.topic_partition))
                if reason:
                    refused[commit.topic_partition] = reason
                else:
                    held[commit.topic_partition] = StoredOffset(commit.next_offset, commit.epoch, commit.worker_id)
            if len(refused) < len(commits):
                self._save(group_id, held)
            return refused

    def put(self, group_id: str, offsets: Mapping[TopicPartition, StoredOffset]) -> dict[TopicPartition, str]:
        with self._locked(group_id):
            held = self._load(group_id)
            refused = {
                tp: stale_epoch(self.name, offset.epoch, held[tp].epoch)
                for tp, offset in offsets.items()
                if tp in held and held[tp].epoch > offset.epoch
            }
            if len(refused) < len(offsets):
                self._save(group_id, held | {tp: offset for tp, offset in offsets.items() if tp not in refused})
            return refused

    def forget(self, group_id: str, partitions: Collection[TopicPartition]) -> None:
        forgotten = set(partitions)
        with self._locked(group_id):
            held = self._load(group_id)
            self._save(group_id, {tp: stored for tp, stored in held.items() if tp not in forgotten})

    def warnings(self) -> list[str]:
        return ["The file store serves one worker on one machine. If the disk is lost, so are its offsets."]

    def hold(self, group_id: str) -> None:
        """Register as the group's only worker until `close`. Raises RefusedError with the id of another process."""
        path = self.path(group_id).with_suffix(".owner")
        with _translated_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            owner = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(owner, 20, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(owner)
                raise RefusedError(
                    f"Process {pid} already uses the file store for group {group_id!r}, and the file store serves one "
                    "worker. Stop that process, or use another store."
                ) from None
            try:
                os.ftruncate(owner, 0)
                os.pwrite(owner, str(os.getpid()).encode(), 0)
            except OSError:
                os.close(owner)
                raise
            self._held[group_id] = owner

    def close(self) -> None:
        for owner in self._held.values():
            os.close(owner)
        self._held.clear()

    # --- The file ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, group_id: str) -> Iterator[None]:
        """Hold a lock on a separate file: a lock on the offset file would be lost when that is replaced."""
        path = self.path(group_id).with_suffix(".lock")
        with _translated_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _wait_for(lock, path)
                yield
            finally:
                os.close(lock)

    def _load(self, group_id: str) -> Offsets:
        path = self.path(group_id)
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        if len(raw) > MAX_BYTES:
            raise CorruptStoreError(_corrupt(path, f"it is larger than {MAX_BYTES >> 20} MiB"))
        return _parse(raw, path, group_id)

    def _save(self, group_id: str, offsets: Offsets) -> None:
        for tp, offset in offsets.items():
            if not all(0 <= number <= _MAX for number in (tp.partition, offset.next_offset, offset.epoch)):
                # Once written, it would make the whole file invalid.
                raise RefusedError(f"Invalid offset for {tp}: {offset}. Nothing was stored.")
        path = self.path(group_id)
        rows = [[tp.topic, tp.partition, s.next_offset, s.epoch, s.worker_id] for tp, s in sorted(offsets.items())]
        body = {"format": FORMAT, "group": group_id, "offsets": rows}
        text = json.dumps({**body, "sha256": _digest(body)}, indent=1)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{path.stem}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        _sync_folder(self.folder)


def _parse(raw: bytes, path: Path, group_id: str) -> Offsets:
    try:
        body = json.loads(raw)
        digest = body.pop("sha256")
        rows = body["offsets"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CorruptStoreError(_corrupt(path, "it is truncated, or not an offset file")) from None
    if body.get("format") != FORMAT:
        raise CorruptStoreError(_corrupt(path, f"its format is {body.get('format')!r}, not {FORMAT!r}"))
    if digest != _digest(body):
        raise CorruptStoreError(_corrupt(path, "its checksum does not match its content"))
    if body.get("group") != group_id:
        raise CorruptStoreError(_corrupt(path, f"it belongs to group {body.get('group')!r}"))
    try:
        return dict(_offset(*row) for row in rows)
    except (TypeError, ValueError):
        raise CorruptStoreError(_corrupt(path, "it contains an invalid row")) from None


def _offset(
    topic: Any, partition: Any, next_offset: Any, epoch: Any, worker: Any
) -> tuple[TopicPartition, StoredOffset]:
    numbers_ok = all(type(number) is int and 0 <= number <= _MAX for number in (partition, next_offset, epoch))
    if not (numbers_ok and isinstance(topic, str) and isinstance(worker, str)):
        raise ValueError
    return TopicPartition(topic, partition), StoredOffset(next_offset, epoch, worker)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _corrupt(path: Path, why: str) -> str:
    return f"The offset file {path} is corrupt: {why}. Restore a backup, or move the file away and reconcile the store."


def _wait_for(lock: int, path: Path) -> None:
    deadline = monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > deadline:
                raise ServiceUnavailableError(
                    f"No lock on {path} within {LOCK_TIMEOUT_SECONDS:.0f} s: it is held by a process that does not "
                    "respond."
                ) from None
            time.sleep(0.005)
        else:
            return


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServiceUnavailableError(f"The file store cannot use {path}: {error.strerror or error}.") from error
