"""The reference, compared with the code: nothing is missing, and nothing is there that does not exist."""

import ast
import inspect
import re
import typing
from collections.abc import Callable, Iterator

import pytest
from django.apps import apps
from django.db.models import Model, TextChoices
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from analytics.dashboard import consumers, snapshot
from offsets import models
from offsets.actions.guards import Source
from offsets.monitoring.status import Status
from offsets.types import DeadLetterStatus, DesiredState, HaltReason, RangeKind
from streamsocial.environment import BASE_DIR
from tests.support.command_options import OURS, options_of
from tests.support.documents import REFERENCE, quoted, rows, sections, text_of

#: Settings whose default is computed, and described in words.
DEFAULTS_IN_WORDS = {"OFFSET_FILE_DIR"}


def _reference(name: str) -> str:
    return text_of(REFERENCE / name)


def _python(folder: str) -> Iterator[ast.AST]:
    for path in sorted((BASE_DIR / folder).rglob("*.py")):
        yield from ast.walk(ast.parse(text_of(path)))


# --- Commands -------------------------------------------------------------------------------------


def _commands() -> dict[str, str]:
    return sections(_reference("commands.md"), 3)


def test_every_command_is_documented_and_no_other() -> None:
    assert set(_commands()) == OURS


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_option_of_a_command_is_documented_and_no_other(name: str) -> None:
    body = _commands()[name]
    named = [option for row in rows(body) for option in quoted(row[0])]
    named += [option for line in body.splitlines() if line.startswith("Shared:") for option in quoted(line)]
    assert {option.split()[0] for option in named if option.startswith("--")} == options_of(name)


def test_shared_options_are_explained() -> None:
    shared = {
        option
        for body in _commands().values()
        for line in body.splitlines()
        if line.startswith("Shared:")
        for option in quoted(line)
        if option.startswith("--")
    }
    table = rows(sections(_reference("commands.md"), 2)["Shared options"])
    assert {option.split()[0] for row in table for option in quoted(row[0])} == {
        re.split(r"[ \[]", option)[0] for option in shared
    }


# --- Settings -------------------------------------------------------------------------------------


def _settings_table(*, outside: bool) -> dict[str, list[str]]:
    parts = sections(_reference("settings.md"), 2)
    chosen = [body for title, body in parts.items() if (title == "Read outside the settings file") == outside]
    return {row[0].strip("`"): row for body in chosen for row in rows(body)}


def _settings_read() -> dict[str, object]:
    """Each variable that settings.py reads, with its default; `KAFKA_CONFIG_*` is a prefix."""
    found: dict[str, object] = {}
    for node in ast.walk(ast.parse(text_of(BASE_DIR / "streamsocial" / "settings.py"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "env"):
            continue
        name = ast.literal_eval(node.args[0])
        default = node.args[1] if len(node.args) > 1 else None
        default = next((word.value for word in node.keywords if word.arg == "default"), default)
        text = ast.unparse(default) if default is not None else "''"
        found[f"{name}*" if node.func.attr == "prefixed" else name] = text
    return found


def test_every_setting_is_documented_and_no_other() -> None:
    assert set(_settings_table(outside=False)) == set(_settings_read())


def test_every_variable_outside_the_settings_is_documented_and_no_other() -> None:
    read = set()
    for folder in ("streamsocial", "offsets", "analytics"):
        for node in _python(folder):
            if isinstance(node, ast.Call) and re.fullmatch(r"(os\.)?environ\.get", ast.unparse(node.func)):
                read |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    assert set(_settings_table(outside=True)) == read


def test_defaults_are_those_of_the_settings() -> None:
    table = _settings_table(outside=False)
    wrong = {}
    for name, expression in _settings_read().items():
        if name in DEFAULTS_IN_WORDS:
            continue
        value = eval(str(expression), {"__builtins__": {}})  # arithmetic and literals of our own settings
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if table[name][1] != (f"`{text}`" if text else "none"):
            wrong[name] = (table[name][1], text)
    assert wrong == {}


# --- HTTP API -------------------------------------------------------------------------------------


def _routes(patterns: list[URLPattern | URLResolver], prefix: str = "/") -> Iterator[tuple[str, Callable[..., object]]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            if str(pattern.pattern) != "admin/":
                yield from _routes(pattern.url_patterns, prefix + str(pattern.pattern))
        elif "^" not in str(pattern.pattern):  # the answer to any other path
            yield prefix + re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern)), pattern.callback


def _methods(view: Callable[..., object]) -> set[str]:
    """The methods that a view of the API takes, as it says itself when it refuses one."""
    answer = typing.cast("HttpResponse", view(typing.cast("HttpRequest", RequestFactory().generic("TRACE", "/"))))
    assert answer.status_code == 405
    return set(re.findall(r"\b[A-Z]{3,}\b", answer.content.decode())) - {"HEAD"}


ROUTES = dict(_routes(get_resolver().url_patterns))
API = {path: view for path, view in ROUTES.items() if path.startswith("/api/")}


def _documented_routes() -> dict[str, set[str]]:
    found = {}
    for heading in sections(_reference("http-api.md"), 3):
        methods, path = heading.rsplit(" ", 1)
        found[path] = set(methods.split(", "))
    return found


def test_every_route_of_the_api_is_documented_with_its_methods_and_no_other() -> None:
    documented = _documented_routes()
    assert documented.pop("/healthz") == documented.pop("/livez") == {"GET"}
    assert documented == {path: _methods(view) for path, view in API.items()}


def test_every_page_is_documented_and_no_other() -> None:
    pages = {path for row in rows(sections(_reference("http-api.md"), 2)["Pages"]) for path in quoted(row[0])}
    assert pages == set(ROUTES) - set(API) - {"/healthz", "/livez"} | {"/admin/"}


def test_every_close_code_of_the_websocket_is_documented_and_no_other() -> None:
    codes = {value for value in vars(consumers).values() if type(value) is int and 1000 <= value < 5000}
    table = rows(sections(_reference("http-api.md"), 2)["Websocket"])
    assert {int(row[0]) for row in table} == codes


# --- Statuses -------------------------------------------------------------------------------------


def _column(section: str) -> list[str]:
    """The first column of a table of the statuses."""
    return [row[0].strip("`") for row in rows(sections(_reference("statuses.md"), 2)[section])]


def test_every_status_is_documented_in_order_of_severity() -> None:
    assert _column("Partition statuses") == [status.value for status in Status]


def test_every_halt_reason_is_documented_and_no_other() -> None:
    assert set(_column("Halt reasons")) == {reason.value for reason in HaltReason} - {""}


def _incident_kinds() -> Iterator[str]:
    """The kinds that the code opens incidents of."""
    position = {"Finding": 0, "about": 1, "partition_findings.about": 1}
    for node in _python("offsets"):
        if not (isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in position):
            continue
        kind = node.args[position[called]]
        if isinstance(kind, ast.Constant):
            yield str(kind.value)
        elif isinstance(kind, ast.JoinedStr) and ast.unparse(kind).startswith("f'halted_"):
            yield from (f"halted_{reason}" for reason in HaltReason if reason)
        elif isinstance(kind, ast.JoinedStr):
            assert ast.unparse(kind) == "f'{name}_unavailable'"
            yield from ("kafka_unavailable", "redis_unavailable")
        else:
            assert ast.unparse(kind) == "kind"  # handed on by a helper


def test_every_incident_kind_is_documented_and_no_other() -> None:
    assert set(_column("Incident kinds")) == set(_incident_kinds())


def test_troubleshooting_has_every_status_and_incident_kind() -> None:
    guide = sections(text_of(BASE_DIR / "docs/how-to/troubleshooting.md"), 2)
    assert list(guide)[: len(Status)] == [status.value for status in Status]
    kinds = {kind for row in rows(guide["Incidents"]) for kind in quoted(row[0])}
    assert kinds == set(_incident_kinds())
    assert {row[0].strip("`") for row in rows(guide["HALTED"])} == {reason.value for reason in HaltReason if reason}


def test_every_error_code_is_documented_and_no_other() -> None:
    codes = set()
    for node in [*_python("analytics"), *_python("offsets")]:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "InvalidRecordError":
            codes.add(ast.literal_eval(node.args[0]))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("HANDLER_FAILED", "REFUSED_BY_DATABASE"):
            codes.add(ast.literal_eval(node.value))
    assert set(_column("Dead letter error codes")) == codes


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("range kind", list(RangeKind)),
        ("desired state", list(DesiredState)),
        ("dead letter", list(DeadLetterStatus)),
        ("worker", [*models.Worker.State, "dead"]),
        ("replay", list(models.Replay.Status)),
        ("range of a replay", list(models.ReplayRange.State)),
        ("operator action", list(models.OperatorAction.Outcome)),
        ("source of an action", list(Source)),
        ("notification", list(models.Notification.Status)),
        ("incident severity", list(models.Incident.Severity)),
    ],
)
def test_every_other_state_is_documented_and_no_other(field: str, values: list[str | TextChoices]) -> None:
    table = {row[0]: quoted(row[1]) for row in rows(sections(_reference("statuses.md"), 2)["Other states"])}
    assert set(table[field]) == {str(value) for value in values}


# --- Metrics --------------------------------------------------------------------------------------

SNAPSHOTS = {name: kind for name, kind in vars(snapshot).items() if typing.is_typeddict(kind)}


@pytest.mark.parametrize("name", sorted(SNAPSHOTS))
def test_every_field_of_the_snapshot_is_documented_and_no_other(name: str) -> None:
    table = rows(sections(_reference("metrics.md"), 2)[name])
    assert {row[0].strip("`") for row in table} == set(SNAPSHOTS[name].__annotations__)


# --- Architecture ---------------------------------------------------------------------------------


def _models() -> list[type[Model]]:
    return [model for app in ("offsets", "analytics") for model in apps.get_app_config(app).get_models()]


def _tables() -> dict[str, str]:
    """The writer of each table, by model, as the architecture names it."""
    table = rows(sections(text_of(BASE_DIR / "docs/explanation/architecture.md"), 2)["Tables"])
    return {model: quoted(row[2])[0] for row in table for model in quoted(row[0])}


def test_every_table_has_a_row_in_the_architecture() -> None:
    assert set(_tables()) == {model.__name__ for model in _models()}


def test_the_writers_of_tables_are_those_that_the_models_name() -> None:
    wrong = {}
    for model in _models():
        named = re.search(r"Written by\s+`([\w.]+)`", inspect.getdoc(model) or "")
        documented = _tables()[model.__name__].removesuffix(".py").strip("/").replace("/", ".")
        if named and named[1] != documented:
            wrong[model.__name__] = (documented, named[1])
    assert wrong == {}
