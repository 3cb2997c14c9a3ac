"""The TypeScript declarations of the page's snapshot are made from its types in Python."""

import pytest

from scripts.snapshot_types import SOURCE, TARGET, declarations


def test_the_declarations_are_up_to_date():
    assert TARGET.read_text(encoding="utf-8") == declarations(SOURCE.read_text(encoding="utf-8"))


def test_each_typed_dict_becomes_an_interface():
    source = '''
class Other: ...

class Row(TypedDict):
    """One row,
    of many."""

    id: int
    lag: float | None  # unknown is null
    names: list[str]
    values: list[int | None]
    counts: dict[str, bool]
    child: Row
'''

    assert declarations(source).partition("\n\n")[2] == (
        "/** One row, of many. */\n"
        "interface Row {\n"
        "  id: number;\n"
        "  /** unknown is null */\n"
        "  lag: number | null;\n"
        "  names: string[];\n"
        "  values: Array<number | null>;\n"
        "  counts: Record<string, boolean>;\n"
        "  child: Row;\n"
        "}\n"
    )


def test_a_type_without_a_counterpart_is_refused():
    with pytest.raises(ValueError, match=r"set\[int\]"):
        declarations("class Row(TypedDict):\n    ids: set[int]\n")
