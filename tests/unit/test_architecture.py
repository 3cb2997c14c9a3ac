"""One writer per table: what imports cannot show, read from the syntax trees."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from streamsocial.environment import BASE_DIR

#: Table → the one module that writes it, as the models' docstrings say.
WRITERS = {
    "offsets_worker": "offsets/workers.py",
    "offsets_partitioncheckpoint": "offsets/ledger",
    "offsets_ledgerrange": "offsets/ledger",
    "offsets_deadletter": "offsets/ledger",
    "offsets_storeoffset": "offsets/stores/drift.py",
    "offsets_lease": "offsets/leases.py",
    "offsets_looprun": "offsets/ticks.py",
    "offsets_operatoraction": "offsets/actions/audit.py",
    "offsets_lagsample": "offsets/monitoring/lag_samples.py",
    "offsets_journalentry": "offsets/journal.py",
    "offsets_invariantreport": "offsets/monitoring/invariants.py",
    "offsets_partitionhealth": "offsets/recovery/assessments.py",
    "offsets_replay": "offsets/replays/rows.py",
    "offsets_replayrange": "offsets/replays/rows.py",
    "offsets_incident": "offsets/monitoring/incidents.py",
    "offsets_incidentevent": "offsets/monitoring/incidents.py",
    "offsets_notification": "offsets/monitoring/notifications.py",
    "analytics_engagementdelta": "analytics/metrics_store.py",
    "analytics_engagementtotal": "analytics/metrics_store.py",
    "analytics_engagementminute": "analytics/metrics_store.py",
}
MODELS = {
    "Worker": "offsets_worker",
    "PartitionCheckpoint": "offsets_partitioncheckpoint",
    "LedgerRange": "offsets_ledgerrange",
    "DeadLetter": "offsets_deadletter",
    "StoreOffset": "offsets_storeoffset",
    "Lease": "offsets_lease",
    "LoopRun": "offsets_looprun",
    "OperatorAction": "offsets_operatoraction",
    "LagSample": "offsets_lagsample",
    "JournalEntry": "offsets_journalentry",
    "InvariantReport": "offsets_invariantreport",
    "PartitionHealth": "offsets_partitionhealth",
    "Replay": "offsets_replay",
    "ReplayRange": "offsets_replayrange",
    "Incident": "offsets_incident",
    "IncidentEvent": "offsets_incidentevent",
    "Notification": "offsets_notification",
    "EngagementDelta": "analytics_engagementdelta",
    "EngagementTotal": "analytics_engagementtotal",
    "EngagementMinute": "analytics_engagementminute",
}
WRITING_SQL = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM|TRUNCATE|COPY)\s+((?:offsets|analytics)_\w+)")
WRITING_METHODS = {
    "create",
    "bulk_create",
    "update",
    "bulk_update",
    "delete",
    "get_or_create",
    "update_or_create",
    "save",
}


def _modules() -> list[Path]:
    found = []
    for package in ("offsets", "analytics", "streamsocial"):
        found += [p for p in (BASE_DIR / package).rglob("*.py") if "migrations" not in p.parts]
    return found


def _root(node: ast.expr) -> str:
    """The name at the left end of `Model.objects.filter(…).update`."""
    while True:
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Attribute):
            node = node.value
        else:
            return node.id if isinstance(node, ast.Name) else ""


def _written(tree: ast.Module) -> set[str]:
    tables = set()
    variables: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            root = _root(node.value)
            if root in MODELS:
                variables[node.targets[0].id] = root
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            tables |= set(WRITING_SQL.findall(node.value))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITING_METHODS:
            root = _root(node.func)
            root = variables.get(root, root)
            if root in MODELS:
                tables.add(MODELS[root])
    return tables


def test_it_writes_each_table_in_one_module() -> None:
    writers = defaultdict(set)
    for path in _modules():
        for table in _written(ast.parse(path.read_text(encoding="utf-8"))):
            module = path.relative_to(BASE_DIR)
            # The ledger is one writer in several files.
            writers[table].add(str(module.parent if module.parts[:2] == ("offsets", "ledger") else module))
    assert dict(writers) == {table: {module} for table, module in WRITERS.items()}


@pytest.mark.parametrize("code", ["Worker.objects.filter(pk=1).update(state='x')", "'UPDATE offsets_worker SET x'"])
def test_it_would_notice_a_second_writer(code: str) -> None:
    assert _written(ast.parse(code)) == {"offsets_worker"}


def test_it_knows_every_table() -> None:
    from django.apps import apps

    ours = {m._meta.db_table for name in ("offsets", "analytics") for m in apps.get_app_config(name).get_models()}
    assert ours == set(WRITERS) == set(MODELS.values())


# --- Purity -----------------------------------------------------------------------------------------

CLIENTS = {"django", "confluent_kafka", "psycopg", "celery", "kombu", "channels", "redis", "daphne", "rich"}


def _is_pure(path: Path) -> bool:
    return bool(re.search(r"\bPure\b", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""))


def _imported(tree: ast.Module) -> set[str]:
    """Full names of what a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _file_of(name: str) -> Path | None:
    """The module that `name` is, or is defined in; None outside of the project."""
    parts = name.split(".")
    if parts[0] not in {"offsets", "analytics", "streamsocial"}:
        return None
    candidates = (BASE_DIR.joinpath(*parts[:length]) for length in range(len(parts), 0, -1))
    for base in candidates:
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.exists():
                return path
    return None


def _clients_of(tree: ast.Module, seen: set[Path] | None = None) -> set[str]:
    """The clients and frameworks that a module imports, itself or through modules of ours."""
    seen = set() if seen is None else seen
    clients = set()
    for name in _imported(tree):
        path = _file_of(name)
        if path is None:
            clients |= {name.split(".")[0]} & CLIENTS
        elif path not in seen:
            seen.add(path)
            clients |= _clients_of(ast.parse(path.read_text(encoding="utf-8")), seen)
    return clients


@pytest.mark.parametrize(
    "path", [path for path in _modules() if _is_pure(path)], ids=lambda path: str(path.relative_to(BASE_DIR))
)
def test_a_module_that_calls_itself_pure_imports_neither_django_nor_a_client(path: Path) -> None:
    assert _clients_of(ast.parse(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize("code", ["from django.db import models", "from offsets.actions import audit"])
def test_it_would_notice_an_impure_module(code: str) -> None:
    assert "django" in _clients_of(ast.parse(code))


# --- Size -------------------------------------------------------------------------------------------

MAX_LINES = 400


def test_no_module_is_longer_than_a_reader_takes_in() -> None:
    ours = [*_modules(), *(BASE_DIR / "tests").rglob("*.py"), *(BASE_DIR / "benchmarks").rglob("*.py")]
    long = {str(path.relative_to(BASE_DIR)): len(path.read_text(encoding="utf-8").splitlines()) for path in ours}
    assert {path: lines for path, lines in long.items() if lines > MAX_LINES} == {}
