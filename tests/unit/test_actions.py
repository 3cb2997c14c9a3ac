import getpass

import pytest

from offsets.actions.guards import Actor
from offsets.actions.pause import ActionKind
from offsets.text import preview_text


@pytest.mark.parametrize(("kind", "state", "done"), [("pause", "paused", "paused"), ("resume", "running", "resumed")])
def test_it_knows_what_each_action_leads_to(kind, state, done):
    assert (ActionKind(kind).target_state, ActionKind(kind).done) == (state, done)


def test_it_names_the_operating_systems_user_even_where_there_is_none(monkeypatch):
    def nobody() -> str:
        raise OSError("no user name")

    monkeypatch.setattr(getpass, "getuser", nobody)

    assert Actor.of_operating_system() == Actor("os:unknown", allowed=True)


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (None, None),
        (b"", ""),
        (b'{"a": 1}', '{"a": 1}'),
        ("Grüße".encode(), "Grüße"),
        (b"a\x00b\x1b[31m\n", "a\\x00b\\x1b[31m\\n"),
        (b"\xff\xfe", "base64://4="),
        (b"x" * 300, "x" * 200 + "…"),
        ("é".encode() * 1000, "é" * 200 + "…"),
        (b"a" + "€".encode() * 400, "a" + "€" * 199 + "…"),
    ],
)
def test_it_shows_any_payload_safely(payload, shown):
    assert preview_text(payload) == shown
