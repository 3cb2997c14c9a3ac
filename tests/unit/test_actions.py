import getpass

import pytest

from offsets.actions.guards import Actor
from offsets.actions.pause import ActionKind
from offsets.text import preview_text, whole_number


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


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), (str(2**63 - 1), 2**63 - 1), (str(2**63), None), ("9" * 5000, None)]
    + [(text, None) for text in ("", "-1", "+1", " 1", "1_0", "1.0", "1e3", "0x1", "\u0663", "\u00b2", "ten")],
)
def test_it_reads_whole_numbers_alone(text, number):
    assert whole_number(text) == number


def test_it_reads_whole_numbers_within_bounds():
    assert [whole_number(text, 1, 3) for text in ("0", "1", "3", "4")] == [None, 1, 3, None]
