"""What operators read is plain English: phrases that the language guide of CONTRIBUTING.md bars do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsocial.environment import BASE_DIR

#: Where a reader stumbles: riddles, stories and personification in place of the usual noun.
BARRED = (
    r"\bis no\b(?! longer)",
    r"\bare no\b(?! longer)",
    r"\bso many\b",
    r"\bdoes not tell\b",
    r"\bsomebody\b",
    r"\bfor ever\b",
    r"\bwhat became\b",
    r"\bgoodbye\b",
    r"\bfor want of\b",
    r"\bwait for a decision\b",
    r"\bLook again\b",
    r"\bSay (why|where)\b",
    r"\blook again\b",
    r"\bnobody\s",
    r"\bis told\b|\bnot told\b|\btold to\b",
    r"\bset apart\b",
    r"\bTo before\b|\bNext try\b|\bWanted state\b",
)
PHRASES = re.compile("|".join(BARRED), re.IGNORECASE)
PACKAGES = ("offsets", "analytics", "streamsocial")
PAGES = sorted([*(BASE_DIR / "templates").rglob("*.html"), *(BASE_DIR / "static" / "js").rglob("*.js")])


def _modules() -> list[Path]:
    return [p for name in PACKAGES for p in (BASE_DIR / name).rglob("*.py") if "migrations" not in p.parts]


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string but docstrings and SQL: messages, help, log lines, labels."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def _barred(tree: ast.AST) -> list[str]:
    return [f"{line}: {text.strip()[:100]}" for line, text in _texts(tree) if PHRASES.search(text)]


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_messages_help_and_log_lines_are_in_plain_english(path: Path) -> None:
    assert _barred(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_the_page_is_in_plain_english(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [f"{number}: {line.strip()}" for number, line in enumerate(lines, start=1) if PHRASES.search(line)] == []


@pytest.mark.parametrize("code", ["raise ValueError(f'{x!r} is no offset')", "add(help='At most so many.')"])
def test_it_would_notice_a_barred_phrase(code: str) -> None:
    assert _barred(ast.parse(code))
