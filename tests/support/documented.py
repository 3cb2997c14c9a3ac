"""The examples of the extension guides, so that tests run what users copy."""

import re
from pathlib import Path

from streamsocial.environment import BASE_DIR

GUIDES = [BASE_DIR / "docs" / "how-to" / name for name in ("write-a-commit-policy.md", "write-a-batch-handler.md")]


def documented() -> dict[str, str]:
    """Code by the file name in its first line."""
    examples: dict[str, str] = {}
    for guide in GUIDES:
        examples |= re.findall(r"```python\n# (\S+)\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    return examples


def install(folder: Path) -> None:
    """Write the examples to files, as a user would."""
    for name, code in documented().items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
        if path.parent != folder:
            (path.parent / "__init__.py").touch()
