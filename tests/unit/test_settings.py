"""Every variable set to nonsense, one at a time: one sentence that names it, and nothing is started."""

import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django import Settings as DjangoSettings

from offsets.checks import refused_settings
from streamsocial.environment import BASE_DIR, Environment, InvalidSettingError, read_env_file

SETTINGS = BASE_DIR / "streamsocial" / "settings.py"
#: Any printable text is valid for these.
FREE_TEXT = {
    "SECRET_KEY",
    "ALERT_WEBHOOK_SECRET",
    "EMAIL_HOST_USER",
    "EMAIL_HOST_PASSWORD",
    "OFFSET_FILE_DIR",
    "NO_PROXY",
}
#: Their values are judged by the system checks, which load what they name.
CHECKED = {"BATCH_HANDLER", "COMMIT_POLICY", "ENGAGEMENT_DIMENSIONS", "OFFSET_MIRRORS", "HTTPS_PROXY", "HTTP_PROXY"}
NONSENSE = {
    "integer": ("x", "-1", "9" * 30),
    "flag": ("maybe", "2", "ja"),
    "choice": ("nonsense", "a,b", "'"),
    "text": ("a b\tc", "http://[", "://", "x y", "💥" * 300, "'\"", "a?b#c&d%"),
    "words": ("http://[", "a b", "💥" * 300, "ok, a/b?c", "'\""),
}
#: Not text at all: a control character, and a byte that is not UTF-8.
NOT_TEXT = ("a\nb", "\udcff")


def _variables() -> dict[str, tuple[str, bool]]:
    """Each variable that settings.py reads: the method, and whether it has a rule."""
    found = {}
    for node in ast.walk(ast.parse(SETTINGS.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("env."):
            name = ast.literal_eval(node.args[0])
            found[name] = (ast.unparse(node.func)[4:], any(word.arg == "rule" for word in node.keywords))
    return found


VARIABLES = _variables()
CASES = [
    (name, value)
    for name, (method, has_rule) in VARIABLES.items()
    if method != "prefixed"
    for value in (*(NONSENSE[method] if has_rule or method not in ("text", "words") else ()), *NOT_TEXT)
    # A group's id may contain almost anything.
    if not (name == "ENGAGEMENT_GROUP" and value.isprintable() and len(value) < 256)
]


def test_every_variable_has_a_rule_or_a_reason_for_none() -> None:
    without = {name for name, (method, rule) in VARIABLES.items() if method in ("text", "words") and not rule}
    assert without == FREE_TEXT | CHECKED


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda part: ascii(part)[:40])
def test_nonsense_is_refused_in_one_sentence_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingError) as refused:
        runpy.run_path(str(SETTINGS))
    text = str(refused.value)
    assert text.startswith(f"{name} ")
    assert text.endswith(".")
    assert "\n" not in text
    assert len(text) < 700


@pytest.mark.parametrize("value", ["1.5", "1_000", "٣", " 5", "0x10", "+5", "1e3", "--5", "²"])
def test_a_whole_number_is_written_in_digits(value: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"^EMAIL_PORT must be a whole number, not "):
        Environment({"EMAIL_PORT": value}).integer("EMAIL_PORT", 25, minimum=1)


def test_kafka_settings_that_are_not_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_CONFIG_CLIENT_RACK", "a\x07b")
    with pytest.raises(InvalidSettingError, match=r"^KAFKA_CONFIG_CLIENT_RACK must be text"):
        runpy.run_path(str(SETTINGS))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://u:p%40ss@[::1]:5433/db?sslmode=require&connect_timeout=3&keepalives_idle=10"),
        ("DATABASE_URL", "postgresql://%2Fvar%2Frun%2Fpostgresql/db"),
        ("DATABASE_URL", "postgresql://u@db.internal/db?currentSchema=counts"),
        ("DATABASE_URL", "postgresql://u@db-1,db-2:5432/db?target_session_attrs=read-write"),
        ("REDIS_URL", "rediss://:secret@redis.example.org:6380/2?ssl_cert_reqs=required"),
        ("REDIS_URL", "redis://[::1]:6379"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092, SASL_SSL://10.0.0.2:9093,[2001:db8::1]:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka-1,"),
        ("ALLOWED_HOSTS", "a.example.org,.example.net,192.0.2.1,[::1],*"),
        ("CSRF_TRUSTED_ORIGINS", "https://a.example.org:8443,https://*.example.net"),
        ("ALERT_WEBHOOK_URL", "https://user:pass@hooks.example.org:8443/a/b?token=%2F"),
        ("ALERT_EMAIL_TO", "night@example.org,ops@mailhost"),
        ("ALERT_EMAIL_FROM", "Counts <counts@example.org>"),
        ("LOG_LEVEL", "debug"),
        ("ENGAGEMENT_GROUP", "a group/with . # ? & % ü 组 'quotes'"),
        ("ENGAGEMENT_TOPIC", "a" * 249),
    ],
)
def test_real_values_are_accepted(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    runpy.run_path(str(SETTINGS))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "postgresql://u:hidden@db:port/name", "its port is not a number"),
        ("DATABASE_URL", "postgresql://u:hid#den@db:5432/name", "its port is not a number"),
        ("DATABASE_URL", "mysql://u:hidden@db/name", "does not begin with postgresql://"),
        ("DATABASE_URL", "postgresql://u:hidden@db:5432", "does not name a database"),
        ("DATABASE_URL", "postgresql://u:hidden@db/name?hiden=1", "option 'hiden'"),
        ("REDIS_URL", "http://:hidden@redis:6379/0", "does not begin with redis:// or rediss://"),
        ("REDIS_URL", "redis://:hidden@redis:6379/first", "not the number of a database"),
        ("ALERT_WEBHOOK_URL", "https://hidden@:443/", "its host name is missing or invalid"),
    ],
)
def test_an_address_is_explained_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingError) as refused:
        runpy.run_path(str(SETTINGS))
    assert says in str(refused.value)
    assert "hidden" not in str(refused.value)
    assert "hid#den" not in str(refused.value)


# --- The system checks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("BATCH_HANDLER", value)
            for value in ("x", "no.such.Handler", "os.path", "os.getcwd", "offsets.errors", "a b")
        ),
        *(("COMMIT_POLICY", value) for value in ("x", "no.such.policy", "os.getcwd", "a b")),
        ("ENGAGEMENT_DIMENSIONS", ["nonsense"]),
        ("OFFSET_MIRRORS", ["nonsense"]),
    ],
)
def test_the_checks_name_the_variable(settings: DjangoSettings, name: str, value: object) -> None:
    assert refused_settings() == ""
    setattr(settings, name, value)
    assert refused_settings().startswith(f"{name} ")


@pytest.mark.parametrize("value", ["x", "x=", "x=burn", "x=kill#", "x=kill#one@/t", "before_commit=stop@/t,=kill"])
def test_failpoints_are_checked(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FAILPOINTS", "before_commit=stop#2@/path/to/token,after_commit=error")
    assert refused_settings() == ""
    monkeypatch.setenv("FAILPOINTS", value)
    assert refused_settings().startswith("FAILPOINTS must list name=kill")


def test_a_stack_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSettingError, match=r"Not a directory. Check STACK_DIR"):
        Environment({"STACK_DIR": str(tmp_path / "file")})


@pytest.mark.parametrize(
    "value", ["http://", "ftp://proxy:1", "http://a:b:c", "http://proxy:x", "a b:1", "http://[::1"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_judged_where_a_webhook_needs_it(settings: DjangoSettings, scheme: str, value: str) -> None:
    name = f"{scheme.upper()}_PROXY"
    setattr(settings, name, value)
    assert refused_settings() == ""
    settings.ALERT_WEBHOOK_URL, settings.ALERT_WEBHOOK_SECRET = f"{scheme}://alerts.example.org/", "secret"
    assert refused_settings() == f"{name} must be a URL such as http://user:password@proxy.example.org:3128."
    settings.NO_PROXY = ["example.org"]
    assert refused_settings() == ""


@pytest.mark.parametrize(
    ("config", "variables", "says"),
    [
        ({"sasl.user": "x"}, "KAFKA_CONFIG_SASL_USER", 'No such configuration property: "sasl.user"'),
        ({"socket.timeout.ms": "abc"}, "KAFKA_CONFIG_SOCKET_TIMEOUT_MS", "Invalid value"),
        ({"socket.timeout.ms": "1"}, "KAFKA_CONFIG_SOCKET_TIMEOUT_MS", "outside allowed range 10..300000"),
        ({"": "x"}, "KAFKA_CONFIG_", "No such configuration property"),
        ({"default.topic.config": "x"}, "KAFKA_CONFIG_DEFAULT_TOPIC_CONFIG", "rejects it"),
        ({"security.protocol": "nonsense"}, "KAFKA_CONFIG_SECURITY_PROTOCOL", 'Invalid value "nonsense"'),
        ({"security.protocol": "sasl_plaintext"}, "KAFKA_CONFIG_SECURITY_PROTOCOL", "GSSAPI"),
        (
            {"security.protocol": "sasl_ssl", "sasl.mechanism": "NONSENSE", "sasl.password": "hidden"},
            "KAFKA_CONFIG_SASL_MECHANISM, KAFKA_CONFIG_SECURITY_PROTOCOL",
            "Unsupported SASL mechanism",
        ),
        (
            {"security.protocol": "ssl", "ssl.ca.location": "/no/such/file"},
            "KAFKA_CONFIG_SSL_CA_LOCATION",
            "ssl.ca.location failed",
        ),
    ],
)
def test_what_kafkas_client_rejects_is_named(
    settings: DjangoSettings, config: dict[str, str], variables: str, says: str
) -> None:
    settings.KAFKA_CONFIG = config
    reason = refused_settings()
    assert reason.startswith(f"{variables}: Kafka's client rejects it: ")
    assert says in reason
    assert "hidden" not in reason


def test_a_session_timeout_above_the_poll_interval_is_refused(settings: DjangoSettings) -> None:
    settings.SESSION_TIMEOUT_MS, settings.MAX_POLL_INTERVAL_MS = 90_000, 60_000
    assert refused_settings().startswith("SESSION_TIMEOUT_MS (90000) must not be greater than MAX_POLL_INTERVAL_MS")
    settings.GROUP_PROTOCOL = "consumer"  # where the broker decides the session timeout
    assert refused_settings() == ""


# --- Real processes ----------------------------------------------------------------------------------

PROCESSES = {
    "command": [sys.executable, "manage.py", "offsets_status"],
    "check": [sys.executable, "manage.py", "check"],
    "worker": [sys.executable, "-m", "celery", "-A", "streamsocial", "worker", "--concurrency", "1"],
    "beat": [sys.executable, "-m", "celery", "-A", "streamsocial", "beat"],
    "web": [sys.executable, "-m", "daphne", "--port", "0", "streamsocial.asgi:application"],
}


@pytest.mark.parametrize(
    ("process", "name", "value"),
    [
        ("command", "EMAIL_PORT", "x"),
        ("check", "KAFKA_CONFIG_SASL_USER", "hidden"),
        ("worker", "DATABASE_URL", "hidden"),
        ("beat", "KAFKA_CONFIG_SASL_USER", "hidden"),
        ("web", "COMMIT_POLICY", "nonsense"),
    ],
)
def test_a_process_ends_with_status_2_and_without_a_traceback(
    tmp_path: Path, process: str, name: str, value: str
) -> None:
    environ = {**os.environ, "STACK_DIR": str(tmp_path), name: value, "PYTHONPATH": str(BASE_DIR)}
    folder = BASE_DIR if "manage.py" in PROCESSES[process] else tmp_path
    ended = subprocess.run(PROCESSES[process], cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    assert name in ended.stderr
    assert "hidden" not in ended.stderr + ended.stdout


# --- The file of the embedded stack ----------------------------------------------------------------


def _env_file(folder: Path, content: bytes) -> Path:
    path = folder / "env"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_stacks_file_is_read_with_any_line_end(tmp_path: Path, line_end: str, bom: bytes) -> None:
    text = line_end.join(["# a comment", "LOG_LEVEL=DEBUG", "EMAIL_PORT='26'", ""])
    _env_file(tmp_path, bom + text.encode())
    environment = Environment({"STACK_DIR": str(tmp_path)})
    assert environment.text("LOG_LEVEL") == "DEBUG"
    assert environment.integer("EMAIL_PORT", 25, minimum=1) == 26


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"A=1\nB='open\nC=3\n", "line 2: not a line KEY=VALUE"),
        (b"A=1\nB=\0\n", "line 2: a NUL character"),
        (b"A=1\nB=\xff\n", "line 2: not UTF-8 text"),
        (b"A=1\n" * 300_000, "larger than 1 MiB"),
    ],
)
def test_what_is_wrong_in_the_stacks_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = _env_file(tmp_path, content)
    with pytest.raises(InvalidSettingError, match=says):
        read_env_file(path)


def test_a_folder_in_place_of_the_stacks_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    with pytest.raises(InvalidSettingError, match=r"Is a directory. Check STACK_DIR"):
        Environment({"STACK_DIR": str(tmp_path)})
