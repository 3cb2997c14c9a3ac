"""Names of topics and groups, and the text of files."""

import pytest
from django.apps import apps

from offsets.loops import LOOPS
from offsets.models import LoopRun
from offsets.names import MAX_GROUP_LENGTH, group_problem, instance_problem, shortened, topic_problem
from offsets.processing.slots import slot_name
from offsets.text import InvalidTextError, file_text


@pytest.mark.parametrize("name", ["t", "a" * 249, "a.b_c-D9", "...", "0"])
def test_a_topic_name_that_kafka_allows(name: str) -> None:
    assert topic_problem(name) == ""


@pytest.mark.parametrize("name", ["", ".", "..", "a" * 250, *(f"a{c}" for c in "/#?&% ü组'\"\n\0:,")])
def test_a_topic_name_that_kafka_refuses(name: str) -> None:
    problem = topic_problem(name)
    assert problem.startswith("must be a Kafka topic name, 1 to 249 of the characters")
    assert "\n" not in problem
    assert len(problem) < 300


@pytest.mark.parametrize("name", ["g", "g" * 255, "a/b . # ? & % ü 组", "'quoted' \"twice\"", "."])
def test_a_group_id_that_works(name: str) -> None:
    assert group_problem(name) == ""


@pytest.mark.parametrize("name", ["", " ", " g", "g ", "a\nb", "a\0b", "\udcff", "g" * 256, "组" * 40_000])
def test_a_group_id_that_does_not(name: str) -> None:
    problem = group_problem(name)
    assert problem.startswith("must be a consumer group id, 1 to 255 printable characters")
    assert problem.isprintable()
    assert len(problem) < 300


def test_a_static_members_id_leaves_room_for_the_slots_number() -> None:
    assert instance_problem("") == instance_problem("a" * 240) == ""
    assert "group instance id" in instance_problem("a" * 249)


def test_a_long_name_is_cut_and_its_length_is_given() -> None:
    assert shortened("x" * 1000) == f"'{'x' * 60}…' (1,000 characters)"


def test_the_columns_hold_the_longest_group_id() -> None:
    group = "g" * MAX_GROUP_LENGTH
    slot = slot_name(group, 1000)
    longest = {
        "group_id": group,
        "topic": "t" * 249,
        "slot": slot,
        "name": max(f"start:{slot}", f"supervision-grace:{group}", f"verify-rest:{group}", key=len),
        "key": max((f"{loop}:{group}" for loop in LOOPS), key=len),
        "target": f"{group} {'t' * 249}-{2**31}",
    }
    short = [
        f"{model.__name__}.{field.name}"
        for model in apps.get_app_config("offsets").get_models()
        for field in model._meta.get_fields()
        if field.name in longest
        and (model, field.name) != (LoopRun, "name")
        and len(longest[field.name]) > (getattr(field, "max_length", None) or 10**6)
    ]
    assert short == []


@pytest.mark.parametrize("raw", [b"a\nb", b"\xef\xbb\xbfa\nb"])
def test_a_byte_order_mark_is_not_part_of_the_text(raw: bytes) -> None:
    assert file_text(raw) == "a\nb"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"a\nb\0", "line 2: a NUL character"),
        (b"a\rb\r\n\xff", "line 3: not UTF-8 text"),
        (b"\xff\xfea\0", "line 1: a NUL character"),
        ("ü".encode("latin-1"), "line 1: not UTF-8 text"),
    ],
)
def test_what_is_not_text_is_named_with_its_line(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidTextError, match=says):
        file_text(raw)
