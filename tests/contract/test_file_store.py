"""What only the file store does."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from offsets.errors import CorruptStoreError, RefusedError, ServiceUnavailableError
from offsets.stores import file as file_module
from offsets.stores.file import FileStore
from offsets.types import StoreCommit, StoredOffset, TopicPartition
from streamsocial.environment import BASE_DIR
from tests.contract.conftest import GROUP, PLACE


def test_every_cut_and_every_changed_byte_is_noticed(written: tuple[FileStore, Path]) -> None:
    _, path = written
    whole = path.read_bytes()
    truth = {PLACE: StoredOffset(12345, 3, "w-1")}
    cut = [whole[:length] for length in range(len(whole))]
    changed = [
        whole[:at] + bytes([byte]) + whole[at + 1 :]
        for at in range(len(whole))
        for byte in range(256)
        if byte != whole[at]
    ]
    believed = 0
    for text in cut + changed:
        try:
            assert file_module._parse(text, path, GROUP) == truth, text
            believed += 1
        except CorruptStoreError:
            continue
    # White space may be another white space; nothing else may be anything else.
    assert believed < 4 * whole.count(b" ") + 4 * whole.count(b"\n")


def test_nothing_overwrites_a_file_that_cannot_be_trusted(written: tuple[FileStore, Path]) -> None:
    store, path = written
    whole = path.read_bytes()
    for text in (
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        whole.replace(b"12345", b"12346"),
        b"\xff" * 9,
        b"[" * 9999,
    ):
        path.write_bytes(text)
        calls = (
            lambda: store.read(GROUP, [PLACE]),
            lambda: store.put(GROUP, {PLACE: StoredOffset(1, 9)}),
            lambda: store.commit(GROUP, [StoreCommit(PLACE, 12345, 12346, 9)]),
            lambda: store.forget(GROUP, [PLACE]),
        )
        for call in calls:
            with pytest.raises(CorruptStoreError, match=re.escape(path.name)):
                call()
        assert path.read_bytes() == text


@pytest.mark.parametrize(
    "stored", [StoredOffset(2**63), StoredOffset(-1), StoredOffset(1, 2**63), StoredOffset(1, -1)], ids=str
)
def test_a_file_never_takes_what_it_could_not_read_again(written: tuple[FileStore, Path], stored: StoredOffset) -> None:
    store, path = written
    whole = path.read_bytes()
    with pytest.raises(RefusedError, match="Invalid offset"):
        store.put(GROUP, {TopicPartition("t", 1): stored})
    assert path.read_bytes() == whole


def test_a_file_of_another_format_or_group_is_not_believed(written: tuple[FileStore, Path]) -> None:
    store, path = written
    other = store.path("other")
    other.write_bytes(path.read_bytes())
    with pytest.raises(CorruptStoreError, match="belongs to group 'group'"):
        store.read("other", [PLACE])
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "format": "streamsocial-offsets-2"}))
    with pytest.raises(CorruptStoreError, match="format"):
        store.read(GROUP, [PLACE])


_CRASHING = """
import os, sys
from pathlib import Path
from offsets.stores.base import StoredOffset
from offsets.stores.file import FileStore
from offsets.types import TopicPartition
os.replace = lambda *paths: os._exit(9)
FileStore(Path(sys.argv[1])).put(sys.argv[2], {TopicPartition("t", 0): StoredOffset(99999, 9)})
"""


def test_a_crash_before_the_rename_leaves_what_was(written: tuple[FileStore, Path]) -> None:
    store, path = written
    done = subprocess.run(
        [sys.executable, "-c", _CRASHING, str(path.parent), GROUP], cwd=BASE_DIR, timeout=30, check=False
    )
    assert done.returncode == 9
    assert list(path.parent.glob("*.tmp")) or list(path.parent.glob(".*.tmp")), "it did get as far as that"
    assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}
    assert store.commit(GROUP, [StoreCommit(PLACE, 12345, 12346, 3)]) == {}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_leaves_what_was(
    written: tuple[FileStore, Path], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store, path = written

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(ServiceUnavailableError, match="No space left"):
            store.commit(GROUP, [StoreCommit(PLACE, 12345, 12346, 3)])
    assert not list(path.parent.glob(".*.tmp"))
    assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}


def test_a_lock_that_is_never_given_back_is_a_store_that_is_down(
    written: tuple[FileStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that was stopped in the middle: a worker must not hang with it."""
    store, path = written
    monkeypatch.setattr(file_module, "LOCK_TIMEOUT_SECONDS", 0.2)
    with path.with_suffix(".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ServiceUnavailableError, match="held by a process"):
            store.read(GROUP, [PLACE])
    assert store.read(GROUP, [PLACE]) == {PLACE: StoredOffset(12345, 3, "w-1")}


_STEPPING = """
import sys
from pathlib import Path
from offsets.stores.base import StoreCommit
from offsets.stores.file import FileStore
from offsets.types import TopicPartition
store, place, wins = FileStore(Path(sys.argv[1])), TopicPartition("t", 0), []
print("ready", flush=True)
sys.stdin.readline()
for step in range(50):
    if not store.commit(sys.argv[2], [StoreCommit(place, step, step + 1, 1, sys.argv[3])]):
        wins.append(step)
print(*wins)
"""


def test_of_two_processes_one_wins_each_step(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put(GROUP, {PLACE: StoredOffset(0, 1)})
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _STEPPING, str(tmp_path), GROUP, f"w-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=BASE_DIR,
        )
        for number in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        wins = [int(step) for process in processes for step in process.communicate(timeout=30)[0].split()]
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=30)
    assert len(wins) == len(set(wins)), "a step was won twice"
    # A process that has fallen behind wins nothing more; the steps of the other go on to the end.
    assert sorted(wins) == list(range(len(wins)))
    stored = store.read(GROUP, [PLACE])[PLACE]
    assert stored.next_offset == len(wins) > 0


_HOLDER = """
import sys, django
django.setup()
from pathlib import Path
from offsets.stores.file import FileStore
store = FileStore(Path(sys.argv[1]))
store.hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_worker_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    before = FileStore(tmp_path)
    before.hold(GROUP)
    before.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path), GROUP],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "streamsocial.settings"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=BASE_DIR,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RefusedError, match=f"Process {holder.pid} already uses the file store"):
            FileStore(tmp_path).hold(GROUP)
        FileStore(tmp_path).hold("another group")
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    FileStore(tmp_path).hold(GROUP)


def test_a_folder_that_is_none_is_a_store_that_is_down(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ServiceUnavailableError, match="file store cannot use"):
        FileStore(file / "folder").read(GROUP, [PLACE])


@hypothesis_settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["commit", "put"]), st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)),
        max_size=20,
    )
)
def test_the_file_behaves_like_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, int]]
) -> None:
    store = FileStore(tmp_path_factory.mktemp("model"))
    model: dict[TopicPartition, StoredOffset] = {}
    for what, partition, offset, epoch in steps:
        tp = TopicPartition("t", partition)
        held = model.get(tp)
        stale = held is not None and held.epoch > epoch
        new = StoredOffset(offset + 1, epoch, "w")
        if what == "put":
            refused = store.put(GROUP, {tp: new})
        else:
            refused = store.commit(GROUP, [StoreCommit(tp, offset or None, offset + 1, epoch, "w")])
            stale = stale or (held != new and (held.next_offset if held else None) != (offset or None))
        assert bool(refused) == stale
        if not stale:
            model[tp] = new
    assert store.read(GROUP, [TopicPartition("t", number) for number in range(3)]) == model


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf{}", b"{}\r\n", b'{"sha256": "unclosed', b"\0" * 100, b"\xff\xfe{\0}\0", b"[" * 100_000, b"", b"5"],
    ids=lambda content: repr(content[:20]),
)
def test_a_file_that_is_not_an_offset_file_is_reported_and_kept(tmp_path: Path, content: bytes) -> None:
    store = FileStore(tmp_path)
    store.path(GROUP).write_bytes(content)
    with pytest.raises(CorruptStoreError, match="is corrupt"):
        store.read(GROUP, [PLACE])
    assert store.path(GROUP).read_bytes() == content


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with store.path(GROUP).open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    with pytest.raises(CorruptStoreError, match="it is larger than 64 MiB"):
        store.read(GROUP, [PLACE])
