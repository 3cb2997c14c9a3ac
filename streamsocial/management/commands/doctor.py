"""`manage.py doctor`: ask every service once, and say what is wrong and what to do."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from offsets.diagnostics.judgements import Diagnosis, Level, error, exit_status, judge_disk
from offsets.diagnostics.report import ASKERS, diagnose
from offsets.management.base import OperatorCommand
from offsets.text import counted
from streamsocial.environment import stack_dir
from streamsocial.stack import Stack, StackError

_SHOWN = {Level.OK: "[green]OK[/]", Level.WARNING: "[yellow]warning[/]", Level.ERROR: "[red]error[/]"}


class Command(OperatorCommand):
    help = (
        "Check the settings and ask every service once. Prints a table with OK, warning or error. Exits with 0 if all "
        "is OK, 1 if there are warnings, 2 if there are errors."
    )
    # It shows them as rows.
    refuses_bad_settings = False

    def run(self, **options: Any) -> int | None:
        rows = diagnose({**ASKERS, "embedded services": embedded_services, "disks": disks})
        status = exit_status(rows)
        data = {"status": ("ok", "warning", "error")[status], "checks": [asdict(row) for row in rows]}
        self.emit(data, lambda console: _show(console, rows), as_json=options["json"])
        return status


def embedded_services() -> list[Diagnosis]:
    """Those of this checkout's stack that do not run, if it has one."""
    if not stack_dir().is_dir():
        return []
    try:
        services = Stack(stack_dir(), environ=os.environ).status().services
    except StackError as problem:
        return [error("embedded services", str(problem))]
    down = [service.name for service in services if service.state not in ("running", "yours")]
    if down:
        return [error("embedded services", f"not running: {', '.join(down)}", "Start them with `manage.py stack up`.")]
    return []


def disks() -> list[Diagnosis]:
    """Free space where the embedded services and the file store keep their data."""
    folders = {"the embedded services": stack_dir()}
    if "file" in (settings.OFFSET_STORE, *settings.OFFSET_MIRRORS):
        folders["the file store"] = Path(settings.OFFSET_FILE_DIR)
    rows = []
    for what, folder in folders.items():
        if folder.is_dir():
            usage = shutil.disk_usage(folder)
            rows.append(judge_disk(what, usage.free, usage.total))
    return rows


def _show(console: Console, rows: Sequence[Diagnosis]) -> None:
    table = Table()
    for column in ("", "Check", "Result", "What to do"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(_SHOWN[row.level], escape(row.subject), escape(row.message), escape(row.advice))
    console.print(table)
    levels = Counter(row.level for row in rows)
    errors, warnings = levels[Level.ERROR], levels[Level.WARNING]
    console.print(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}, {levels[Level.OK]} OK.")
