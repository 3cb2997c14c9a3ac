"""Passwords of the demo, from standard input: what is not a JSON object of them is refused before the database."""

import io

import pytest
from django.core.management import CommandError, call_command


@pytest.mark.parametrize(
    "text",
    ["", "[]", "5", '{"viewer": "a"', "[" * 100_000, '{"root": "a"}', '{"' + "u" * 300 + '": "a"}', '{"a\\u0000": ""}'],
)
def test_it_refuses_anything_else(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(CommandError, match="must be a JSON object of passwords") as refused:
        call_command("demo_logins")
    assert refused.value.returncode == 2
    assert len(str(refused.value)) < 300
