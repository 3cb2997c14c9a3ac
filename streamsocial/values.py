"""Rules for the values of settings. Each returns what the value must be, if it is not; else an empty text.

An address is never repeated: it may contain a password.
"""

import re
from collections.abc import Callable, Sequence
from email.utils import parseaddr
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo

Rule = Callable[[str], str]

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LABEL = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?")
#: Options that dj-database-url or Django takes itself; all others are passed to libpq.
_DJANGO_OPTIONS = {
    "currentSchema",
    "pool",
    "assume_role",
    "isolation_level",
    "server_side_binding",
    "prepare_threshold",
}


def is_host(text: str) -> bool:
    """A host name or an IP address; IPv6 in brackets or not."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ip_address(bare)
    except ValueError:
        return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))
    return True


def host(text: str) -> str:
    return "" if is_host(text) else f"must be a host name or IP address, not {text!r}"


def allowed_host(text: str) -> str:
    """A host as Django's ALLOWED_HOSTS takes it: `.example.org` includes subdomains, `*` is every host."""
    if text == "*" or is_host(text.removeprefix(".")):
        return ""
    return f"must list host names without scheme, port and path, not {text!r}"


def origin(text: str) -> str:
    parts = _split(text)
    if parts and parts.scheme in ("http", "https") and not parts.path and is_host((parts.hostname or "").lstrip("*.")):
        return ""
    return f"must list origins such as https://analytics.example.org, not {text!r}"


def mail_address(text: str) -> str:
    _, address = parseaddr(text)
    local, at, domain = address.rpartition("@")
    if at and local and is_host(domain) and text.isprintable() and not re.search(r"\s", address):
        return ""
    return f"must be an e-mail address, not {text!r}"


def kafka_brokers(text: str) -> str:
    """`host:port,host:port`; librdkafka takes a protocol in front of each."""
    wanted = f"must list Kafka brokers as host:port, separated by commas, not {text!r}"
    brokers = [broker for broker in text.split(",") if broker.strip()]
    for broker in brokers:
        address = broker.strip().rpartition("://")[2]
        parts = _split(f"kafka://{address}")
        if parts is None or not parts.hostname or not is_host(parts.hostname) or re.search(r"[/@?#]", address):
            return wanted
    return "" if brokers else wanted


def path_prefix(text: str) -> str:
    """A URL path, as `/streamsocial`; a slash at its end is ignored."""
    if re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", text):
        return ""
    return f"must be a path that begins with one slash, as /streamsocial, not {text!r}"


def deployment(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]{0,64}", text):
        return ""
    return f"must be 1 to 64 letters, digits, dots, dashes or underscores, not {text!r}"


def queue_suffix(text: str) -> str:
    return (
        ""
        if re.fullmatch(r"[\w.-]{0,100}", text, re.ASCII)
        else (f"must be at most 100 letters, digits, '.', '_' and '-', not {text!r}")
    )


def url(schemes: Sequence[str], example: str) -> Rule:
    """A rule for the address of a service."""

    def rule(text: str) -> str:
        return f"must be a URL such as {example}: {problem}" if (problem := _url_problem(text, schemes)) else ""

    return rule


def _url_problem(text: str, schemes: Sequence[str]) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        return "it cannot be parsed"
    if parts.scheme not in schemes:
        return f"it does not begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    try:
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if not port_ok:
        return "its port is not a number from 1 to 65535 (a password must be percent-encoded)"
    # PostgreSQL's client takes several hosts, and tries them in turn.
    if not parts.hostname or not all(map(is_host, parts.hostname.split(","))):
        return "its host name is missing or invalid"
    return ""


def postgres_url(text: str) -> str:
    """A database's address; its options must be libpq's."""
    example = "postgresql://user:password@host:5432/name"
    # libpq also takes a folder of sockets as host, percent-encoded.
    problem = "" if "%2f" in text.lower().partition("?")[0] else _url_problem(text, ("postgresql", "postgres"))
    if problem:
        return f"must be a URL such as {example}: {problem}"
    parts = urlsplit(text)
    if not parts.path.strip("/"):
        return f"must be a URL such as {example}: it does not name a database"
    options = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _DJANGO_OPTIONS
    for name in sorted(options):
        try:
            make_conninfo("", **{name: "1"})
        except ProgrammingError:
            return f"has an option {name!r} that PostgreSQL's client does not know"
    return ""


def redis_url(text: str) -> str:
    """The broker's address; its path is the number of a database."""
    example = "redis://:password@host:6379/0"
    problem = _url_problem(text, ("redis", "rediss"))
    if not problem and not re.fullmatch(r"/?\d{0,5}", urlsplit(text).path):
        problem = "its path is not the number of a database"
    return f"must be a URL such as {example}: {problem}" if problem else ""


def _split(text: str) -> SplitResult | None:
    """The parts of an address with a valid port; None if it cannot be parsed."""
    try:
        parts = urlsplit(text)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None
