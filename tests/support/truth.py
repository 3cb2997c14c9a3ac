"""True totals, read from the files that commands write."""

import csv
from collections import Counter
from pathlib import Path


def counts_of(path: Path) -> Counter[tuple[str, str]]:
    """Events by content and type: each event is in exactly one of these, whatever other dimensions are kept."""
    counts: Counter[tuple[str, str]] = Counter()
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["dimension"] == "content":
                for kind in ("views", "likes", "comments", "shares"):
                    counts[row["id"], kind] += int(row[kind])
    return counts
