"""The CSV of counts: one writer for the produced truth and for the export, so that `cmp` can compare them."""

import csv
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

HEADER = ("dimension", "id", "views", "likes", "comments", "shares")


def write_counts(path: Path, rows: Iterable[tuple[object, ...]]) -> int:
    """Write the file atomically. Returns the number of rows. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            count = 0
            for row in rows:
                writer.writerow(row)
                count += 1
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return count
