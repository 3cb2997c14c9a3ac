"""The documents, held against the code."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from streamsocial.environment import BASE_DIR

DOCUMENTS = [BASE_DIR / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (BASE_DIR / "docs").rglob("*.md")
)
READ_BY_SETTINGS = re.compile(r"env\.(?:text|flag|integer|words|choice|prefixed)\(\s*\"(\w+)\"")
OURS = {name for name, app in get_commands().items() if app in {"offsets", "analytics", "streamsocial"}}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_it_names_every_variable_that_settings_read_and_no_other() -> None:
    read = set(READ_BY_SETTINGS.findall(_text(BASE_DIR / "streamsocial" / "settings.py")))
    table = _text(BASE_DIR / "README.md").split("## Settings")[1].split("\n## ")[0]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    named = {name.removesuffix("*") for name in re.findall(r"`([A-Z_]+\*?)`", first_cells)}
    assert named == read


def test_it_names_every_command() -> None:
    readme = _text(BASE_DIR / "README.md")
    assert {name for name in OURS if f"`{name}" not in readme} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_it_names_only_commands_and_options_that_exist(path: Path) -> None:
    for name, rest in re.findall(r"manage\.py (\w+)([^\n`&|]*)", _text(path)):
        assert name in get_commands(), name
        if name not in OURS:
            continue
        options = load_command_class(get_commands()[name], name).create_parser("manage.py", name).format_help()
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in options, f"{name} {option}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_it_links_only_to_what_exists(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", _text(path)):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_it_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _text(BASE_DIR / "Makefile"), re.M))
    for path in DOCUMENTS:
        for target in re.findall(r"`make ([a-z-]+)", _text(path)):
            assert target in targets, f"{path.name}: make {target}"
