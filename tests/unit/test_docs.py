"""The documents, compared with the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands

from streamsocial.environment import BASE_DIR
from tests.support.command_options import OURS, options_of
from tests.support.documents import (
    DOCS,
    DOCUMENTS,
    anchors_of,
    links_of,
    name_of,
    paths_of,
    prose_of,
    quoted,
    rows,
    sections,
    text_of,
)

documents = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


@documents
def test_it_links_only_to_what_exists(path: Path) -> None:
    for target, anchor in links_of(path):
        assert target.exists(), target
        if anchor:
            assert anchor in anchors_of(target), f"{target.name}#{anchor}"


@documents
def test_it_quotes_only_paths_that_exist(path: Path) -> None:
    if path.name == "CHANGELOG.md":
        return  # it names the paths of the past, too
    missing = {
        quoted for quoted in paths_of(path) if not any(BASE_DIR.glob(quoted)) and not quoted.startswith(".stack/")
    }
    assert missing == set()


def _module_map() -> dict[str, set[str]]:
    """Each folder of the module map with the modules that its row names after the colon."""
    map_ = sections(text_of(DOCS / "explanation" / "architecture.md"), 2)["Module map"]
    return {
        folder: set(quoted(row[1].partition(": ")[2]))
        for row in rows(map_)
        for folder in quoted(row[0])
        if folder.endswith("/")
    }


def test_the_module_map_names_every_module_of_every_room_and_no_other() -> None:
    rooms = {
        f"{path.parent.relative_to(BASE_DIR)}/"
        for package in ("offsets", "analytics")
        for path in (BASE_DIR / package).glob("*/__init__.py")
        if path.parent.name not in ("migrations", *(("management",) if package == "analytics" else ()))
    }
    described = _module_map()
    assert rooms <= set(described)
    modules_of = {room: {path.stem for path in (BASE_DIR / room).glob("*.py")} - {"__init__"} for room in rooms}
    assert {room: modules - described[room] for room, modules in modules_of.items() if modules - described[room]} == {}
    missing = {
        f"{folder}{module}"
        for folder, modules in described.items()
        for module in modules
        if not any(BASE_DIR.glob(f"{folder}{module}*"))
    }
    assert missing == set()


def test_every_document_is_in_the_index() -> None:
    index = BASE_DIR / "docs" / "README.md"
    decisions = BASE_DIR / "docs" / "adr" / "README.md"
    linked = {target.resolve() for page in (index, decisions) for target, _ in links_of(page)}
    assert {name_of(path) for path in DOCUMENTS if path.is_relative_to(DOCS) and path not in {index, *linked}} == set()


@pytest.mark.parametrize("path", sorted((BASE_DIR / "docs" / "adr").glob("0*.md")), ids=name_of)
def test_a_decision_has_status_and_date(path: Path) -> None:
    title, _, status, date, *_ = text_of(path).splitlines()
    assert title.startswith(f"# {int(path.name[:4])}. ")
    assert re.fullmatch(r"- Status: (accepted|superseded by .+)", status)
    assert re.fullmatch(r"- Date: \d{4}-\d\d-\d\d", date)
    assert f"[{title.removeprefix('# ')}]({path.name})" in text_of(path.parent / "README.md")


@documents
def test_it_names_only_commands_and_options_that_exist(path: Path) -> None:
    for name, rest in re.findall(r"manage\.py (\w+)([^\n`&|]*)", text_of(path)):
        assert name in get_commands(), name
        if name in OURS:
            for option in re.findall(r"--[a-z-]+", rest):
                assert option in options_of(name), f"{name} {option}"


@documents
def test_it_names_only_make_targets_that_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of(BASE_DIR / "Makefile"), re.M))
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text_of(path), re.M):
        assert target in targets, f"make {target}"


def test_the_readme_fits_on_a_screen() -> None:
    assert len(text_of(BASE_DIR / "README.md").splitlines()) <= 50


def _named_documents() -> Iterator[tuple[str, str]]:
    """Each document that code or configuration names: where, and the document."""
    for folder in (
        "offsets",
        "analytics",
        "streamsocial",
        "tests",
        "templates",
        "static",
        ".env.example",
        "compose.yaml",
    ):
        root = BASE_DIR / folder
        for path in [root] if root.is_file() else root.rglob("*"):
            if path.suffix in (".py", ".html", ".js", ".yaml") or path.name == ".env.example":
                for document in re.findall(r"\bdocs/[\w/.-]*\w", text_of(path)):
                    yield name_of(path), document


def test_code_names_only_documents_that_exist() -> None:
    # A decision may be named by its number, as docs/adr/0005.
    missing = {(where, document) for where, document in _named_documents() if not any(BASE_DIR.glob(f"{document}*"))}
    assert missing == set()


def test_rules_that_the_code_names_are_explained() -> None:
    explained = set(re.findall(r"^\| (R\d+) \|", text_of(BASE_DIR / "docs/explanation/architecture.md"), re.M))
    named: set[str] = set()
    for folder in ("offsets", "analytics"):
        for path in (BASE_DIR / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(text_of(path))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    named |= set(re.findall(r"\(.*?\b(R\d+)\b.*?\)", node.value))
    assert named <= explained


def test_prose_uses_no_phrase_of_the_barred_list() -> None:
    barred = re.compile(r"\b(so many\b|does not tell|somebody|for ever\b|what became)", re.I)
    found = {(name_of(path), match) for path in DOCUMENTS for match in barred.findall(prose_of(path))}
    assert found == set()
