"""The code of docs/commit-strategies.md, so that tests run what users copy."""

import re
from pathlib import Path

from streamsocial.environment import BASE_DIR

DOCUMENT = BASE_DIR / "docs" / "commit-strategies.md"


def documented() -> dict[str, str]:
    """Code by the file name in its first line."""
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S))


def install(folder: Path) -> None:
    """Write it down as a user would."""
    for name, code in documented().items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
        if path.parent != folder:
            (path.parent / "__init__.py").touch()
