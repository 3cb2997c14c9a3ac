"""Reading the documents: their text, links, tables, sections and quoted paths."""

import re
from collections.abc import Iterator
from pathlib import Path

from streamsocial.environment import BASE_DIR

DOCS = BASE_DIR / "docs"
REFERENCE = DOCS / "reference"
DOCUMENTS = [BASE_DIR / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.rglob("*.md"))

_FENCED = re.compile(r"^ *```.*?^ *```", re.M | re.S)
_HEADING = re.compile(r"^#+ +(.+)$", re.M)
#: Folders and endings that make a quoted word a path of this repository.
_FOLDERS = r"offsets|analytics|streamsocial|tests|templates|static|docs|benchmarks|scripts|\.ci"
_ENDINGS = "py|md|html|js|css|yaml|toml|txt|in|json|svg|png"
_PATH = re.compile(rf"(?:{_FOLDERS})/[\w./*-]*|[\w./*-]+\.(?:{_ENDINGS})")


def name_of(path: Path) -> str:
    return str(path.relative_to(BASE_DIR))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """The text without its code blocks."""
    return _FENCED.sub("", text_of(path))


def links_of(path: Path) -> Iterator[tuple[Path, str]]:
    """Target and anchor of each link within the repository."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose_of(path)):
        if "://" not in target:
            yield (path.parent / target if target else path), anchor


def anchors_of(path: Path) -> set[str]:
    """The anchors of a document's headings, spelled as GitHub does."""
    headings = [re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in _HEADING.findall(prose_of(path))]
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def paths_of(path: Path) -> set[str]:
    """The paths of this repository that the prose quotes."""
    return {word for word in quoted(prose_of(path)) if _PATH.fullmatch(word)}


def sections(text: str, level: int) -> dict[str, str]:
    """Text by heading of this level, without what follows a heading of a higher level."""
    found = {}
    marks = "#" * level
    for part in re.split(rf"^{marks} ", text, flags=re.M)[1:]:
        heading, _, body = part.partition("\n")
        found[heading.strip().strip("`")] = re.split(rf"^#{{1,{level}}} ", body, flags=re.M)[0]
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of the table rows, without headers and rulers."""
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        header = number + 1 < len(lines) and re.fullmatch(r"\|[ :|-]+\|", lines[number + 1])
        if line.startswith("|") and not header and not re.fullmatch(r"\|[ :|-]+\|", line):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found
