"""Write the TypeScript declarations of the page's snapshot, or check that they are up to date.

    python -m scripts.snapshot_types [--check]

The types in Python are the source: each TypedDict becomes an interface of types/snapshot.d.ts.
"""

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "analytics" / "dashboard" / "snapshot.py"
TARGET = ROOT / "types" / "snapshot.d.ts"

_HEADER = f"// Generated from {SOURCE.relative_to(ROOT)} by scripts/snapshot_types.py; do not edit.\n"
_SCALARS = {"int": "number", "float": "number", "str": "string", "bool": "boolean"}


def declarations(source: str) -> str:
    """The interfaces for all TypedDicts of a module. Raises ValueError for a type that has no counterpart."""
    lines = source.splitlines()
    interfaces = [
        _interface(node, lines)
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "TypedDict" for base in node.bases)
    ]
    return "\n".join([_HEADER, *interfaces])


def _interface(node: ast.ClassDef, lines: list[str]) -> str:
    docstring = ast.get_docstring(node)
    comment = f"/** {' '.join(docstring.split())} */\n" if docstring else ""
    fields = "".join(_field(each, lines) for each in node.body if isinstance(each, ast.AnnAssign))
    return f"{comment}interface {node.name} {{\n{fields}}}\n"


def _field(node: ast.AnnAssign, lines: list[str]) -> str:
    # The syntax tree leaves out comments; what follows the annotation on its line is one.
    rest = lines[node.lineno - 1].encode()[node.end_col_offset :].decode().strip()
    comment = f"  /** {rest.removeprefix('#').strip()} */\n" if rest else ""
    return f"{comment}  {ast.unparse(node.target)}: {_type(node.annotation)};\n"


def _type(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=None):
            return "null"
        case ast.Name(id=name):
            return _SCALARS.get(name, name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{_type(left)} | {_type(right)}"
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return f"Array<{_type(item)}>" if isinstance(item, ast.BinOp) else f"{_type(item)}[]"
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return f"Record<{_type(key)}, {_type(value)}>"
    raise ValueError(f"No TypeScript type for {ast.unparse(node)} (line {node.lineno} of {SOURCE.name}).")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 if the file is out of date.")
    arguments = parser.parse_args()
    wanted = declarations(SOURCE.read_text(encoding="utf-8"))
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == wanted:
        return 0
    if arguments.check:
        print(f"{TARGET.relative_to(ROOT)} is out of date. Run: make format", file=sys.stderr)
        return 1
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
