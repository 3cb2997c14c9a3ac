"""Apache Kafka's jars: the list, the checksums and the download.

`jars.sha256` pins names and content. The jars are in Maven's usual local cache, which all checkouts share. The
resolver's download is neither atomic nor verified, so each jar is compared with its checksum before use; a wrong one is
deleted and downloaded again, once.

After a change of version: `python -m streamsocial.stack.jars > jars.sha256`, then review the diff.
"""

import hashlib
import importlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamsocial.stack.errors import MissingPackage, StackError
from streamsocial.stack.report import Reporter

CHECKSUMS = Path(__file__).with_name("jars.sha256")
_KAFKA = "4.1.0"
#: Never log4j alone: its own dependencies would downgrade the clients.
_ENDPOINT = (
    f"org.apache.kafka:kafka_2.13:{_KAFKA}+org.apache.kafka:kafka-clients:{_KAFKA}"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
)
#: Without its dependencies: Kafka Connect and a web server, which our tools do not need.
_TOOLS = f"org.apache.kafka:kafka-tools:{_KAFKA}"
_DOWNLOADS_AT_ONCE = 4
_TIMEOUT_SECONDS = 30
_LOCK_SECONDS = 600


@dataclass(frozen=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def path(self, repository: Path) -> Path:
        return repository.joinpath(*self.group.split("."), self.artifact, self.version, self.file_name)

    def is_right(self, repository: Path) -> bool:
        try:
            return sha256(self.path(repository)) == self.sha256
        except FileNotFoundError:
            return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(text: str) -> list[Jar]:
    """Lines of `sha256  group:artifact:version`."""
    jars = []
    for line in text.splitlines():
        checksum, coordinate = line.split()
        group, artifact, version = coordinate.split(":")
        jars.append(Jar(group, artifact, version, checksum))
    return jars


def required() -> list[Jar]:
    return listed(CHECKSUMS.read_text(encoding="utf-8"))


def paths() -> list[Path]:
    repository = _repository()
    return [jar.path(repository) for jar in required()]


def ensure(report: Reporter) -> None:
    """Make sure that every jar is in the local cache, with the right content."""
    repository = _repository()
    if not _wrong(repository):
        return
    filelock = _module("filelock")
    repository.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(repository / ".streamsocial.lock", timeout=_LOCK_SECONDS):
            # Another checkout may have downloaded them in the meantime.
            _download(_wrong(repository), repository, report)
    except filelock.Timeout as error:
        raise StackError("Another process has been downloading Apache Kafka for ten minutes. Try again.") from error


def _wrong(repository: Path) -> list[Jar]:
    return [jar for jar in required() if not jar.is_right(repository)]


def _download(missing: list[Jar], repository: Path, report: Reporter) -> None:
    if not missing:
        return
    report.say(f"Downloading Apache Kafka {_KAFKA} ({len(missing)} jars, once)")
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        jobs = {pool.submit(_fetch, jar, repository): jar for jar in missing}
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                report.advance(jobs[job].file_name, done, len(missing))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(jar: Jar, repository: Path) -> None:
    path = jar.path(repository)
    for _attempt in range(2):
        path.unlink(missing_ok=True)
        try:
            _resolve(jar, repository)
        except BaseException as error:
            path.unlink(missing_ok=True)  # a partial download
            if not isinstance(error, OSError | RuntimeError):
                raise
            # Network errors are OSErrors, too, but without an errno.
            if isinstance(error, OSError) and error.errno is not None:
                raise StackError(f"Cannot write {path}: {error.strerror}.") from error
            raise StackError(
                f"Cannot download {jar.file_name} ({_reason(error)}). Check the network, or the proxy in "
                "HTTPS_PROXY, then run the command again; it downloads only what is missing."
            ) from error
        if jar.is_right(repository):
            return
    path.unlink(missing_ok=True)
    raise StackError(
        f"The SHA-256 of {jar.file_name} differs from the one in {CHECKSUMS.name}, after two downloads. Something "
        "between this machine and the repository changes files; nothing was started."
    )


def _resolve(jar: Jar, repository: Path) -> None:
    context = _module("jgo.maven").MavenContext(repo_cache=repository, timeout=_TIMEOUT_SECONDS)
    context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()


def _reason(error: OSError | RuntimeError) -> str:
    return "the repository does not provide it" if isinstance(error, RuntimeError) else type(error).__name__


def _repository() -> Path:
    path: Path = _module("jgo.config").GlobalSettings.load().repo_cache
    return path


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(name.partition(".")[0]) from error


def _lock_lines() -> Iterator[str]:
    """Resolve Kafka again and list its jars, for `jars.sha256`."""
    jgo = _module("jgo")
    artifacts = {str(artifact): artifact for artifact in jgo.resolve(_ENDPOINT)}
    tools = _module("jgo.maven").MavenContext(repo_cache=_repository())
    group, name, version = _TOOLS.split(":")
    artifacts[_TOOLS] = tools.project(group, name).at_version(version).artifact()
    for artifact in artifacts.values():
        checksum = sha256(artifact.resolve())
        yield f"{checksum}  {artifact.groupId}:{artifact.artifactId}:{artifact.version}"


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in sorted(_lock_lines(), key=lambda line: line.split()[1])))
