"""Jars are used only if they are exactly the ones that were meant."""

import hashlib
from pathlib import Path

import pytest
import requests

from streamsocial.stack import StackError, jars
from streamsocial.stack.jars import Jar

CONTENT = b"a jar"
JAR = Jar("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())


class Repository:
    """Stands in for the network: gives out `contents` one after the other."""

    def __init__(self, folder: Path, contents: list[bytes | Exception]) -> None:
        self.folder, self.contents, self.asked = folder, contents, 0

    def resolve(self, jar: Jar, repository: Path) -> None:
        self.asked += 1
        path = jar.path(repository)
        assert not path.exists(), "the resolver would keep what is there"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = self.contents.pop(0)
        if isinstance(content, Exception):
            path.write_bytes(CONTENT[:2])
            raise content
        path.write_bytes(content)


class Steps:
    def __init__(self) -> None:
        self.advanced: list[tuple[str, int, int]] = []

    def say(self, text: str) -> None:
        pass

    def advance(self, item: str, done: int, total: int) -> None:
        self.advanced.append((item, done, total))


def _with(monkeypatch: pytest.MonkeyPatch, folder: Path, *contents: bytes | Exception) -> Repository:
    repository = Repository(folder, list(contents))
    monkeypatch.setattr(jars, "_repository", lambda: folder)
    monkeypatch.setattr(jars, "_resolve", repository.resolve)
    monkeypatch.setattr(jars, "required", lambda: [JAR])
    return repository


def test_a_missing_jar_is_fetched_and_progress_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, steps = _with(monkeypatch, tmp_path, CONTENT), Steps()
    jars.ensure(steps)
    jars.ensure(steps)
    assert repository.asked == 1
    assert steps.advanced == [("thing-1.0.jar", 1, 1)]
    assert JAR.path(tmp_path).read_bytes() == CONTENT


def test_a_wrong_jar_is_deleted_and_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = _with(monkeypatch, tmp_path, CONTENT)
    JAR.path(tmp_path).parent.mkdir(parents=True)
    JAR.path(tmp_path).write_bytes(CONTENT[:3])
    jars.ensure(Steps())
    assert repository.asked == 1
    assert JAR.is_right(tmp_path)


def test_a_jar_that_stays_wrong_is_refused_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = _with(monkeypatch, tmp_path, b"evil", b"evil")
    with pytest.raises(StackError, match=r"SHA-256 of thing-1\.0\.jar"):
        jars.ensure(Steps())
    assert repository.asked == 2
    assert not JAR.path(tmp_path).exists()


def test_no_network_names_the_jar_and_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with(monkeypatch, tmp_path, requests.ConnectionError("unreachable"))
    with pytest.raises(StackError, match=r"Cannot download thing-1\.0\.jar.*only what is missing"):
        jars.ensure(Steps())
    assert not JAR.path(tmp_path).exists()


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _with(monkeypatch, tmp_path, OSError(28, "No space left on device"))
    with pytest.raises(StackError, match=r"Cannot write .*: No space left"):
        jars.ensure(Steps())


def test_the_list_of_jars_is_complete_and_names_no_address() -> None:
    text = jars.CHECKSUMS.read_text()
    listed = {jar.artifact: jar for jar in jars.required()}
    assert {"kafka_2.13", "kafka-clients", "kafka-tools", "log4j-slf4j-impl"} <= set(listed)
    assert {jar.version for name, jar in listed.items() if jar.group == "org.apache.kafka"} == {"4.1.0"}
    assert all(len(jar.sha256) == 64 for jar in listed.values())
    assert "://" not in text
