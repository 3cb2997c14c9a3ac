"""Where settings come from: the process environment first, then `.stack/env` of this checkout.

Reading never changes the environment, so that a command can distinguish what the user set from what the embedded
stack wrote.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any
from unicodedata import category

from dotenv.parser import parse_stream

from offsets.text import InvalidTextError, file_text
from streamsocial.values import Rule

BASE_DIR = Path(__file__).resolve().parent.parent

#: A service whose variable is set by the user is the user's: the embedded stack does not manage it.
SERVICE_VARIABLES = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL")

_THIS_MACHINE = frozenset({"", "localhost", "127.0.0.1", "::1"})
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
#: `.stack/env` has a dozen lines.
_MAX_FILE_BYTES = 1024 * 1024


class InvalidSettingError(ValueError):
    """A setting cannot be used; the message names its variable."""


def stack_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the embedded stack's state; `STACK_DIR` overrides it (tests use their own)."""
    return Path(environ.get("STACK_DIR") or BASE_DIR / ".stack")


def deployment_name(database: Mapping[str, Any]) -> str:
    """A short name for the deployment that uses this database, the same in all of its processes.

    Not from SECRET_KEY, which is changed at times, and not from the password.
    """
    host, port, name = (str(database.get(part) or "") for part in ("HOST", "PORT", "NAME"))
    place = "/".join(("127.0.0.1" if host in _THIS_MACHINE else host.lower(), port or "5432", name))
    return hashlib.sha256(place.encode()).hexdigest()[:12]


def read_env_file(path: Path) -> dict[str, str]:
    """The `KEY=VALUE` lines of a file; none if there is no file. Raises InvalidSettingError, naming the line."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidSettingError(f"Cannot read {path}: {error.strerror}. Check STACK_DIR.") from None
    if len(raw) > _MAX_FILE_BYTES:
        raise InvalidSettingError(f"{path} is larger than 1 MiB: it was not written by `manage.py stack`.")
    try:
        text = file_text(raw)
    except InvalidTextError as error:
        raise InvalidSettingError(f"{path}, {error}.") from None
    values = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise InvalidSettingError(f"{path}, line {binding.original.line}: not a line KEY=VALUE.")
        if binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values


class Environment:
    """A read-only view of the settings' variables.

    Raises InvalidSettingError, naming the variable, for an invalid value.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._values = read_env_file(stack_dir(environ) / "env")
        self._values.update({k: v for k, v in environ.items() if v != ""})

    def text(self, name: str, default: str = "", *, rule: Rule | None = None) -> str:
        """The value as it is. `rule` is not applied to an empty one."""
        value = self._values.get(name, default)
        if any(category(character) in ("Cc", "Cs") for character in value):
            raise InvalidSettingError(f"{name} must be text in UTF-8 without control characters.")
        if value and rule and (problem := rule(value)):
            raise InvalidSettingError(f"{name} {problem}.")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise InvalidSettingError(f"{name} must be true or false, not {value[:100]!r}.")

    def integer(self, name: str, default: int, *, minimum: int, maximum: int = 2**31) -> int:
        value = self._values.get(name)
        if value is None:
            return default
        # Python itself also reads spaces, underscores and the digits of other scripts.
        if not re.fullmatch(r"-?[0-9]{1,25}", value):
            raise InvalidSettingError(f"{name} must be a whole number, not {value[:100]!r}.")
        number = int(value)
        if not minimum <= number <= maximum:
            raise InvalidSettingError(f"{name} must be between {minimum} and {maximum}, not {value[:100]}.")
        return number

    def words(self, name: str, default: str = "", *, rule: Rule | None = None) -> list[str]:
        """The words between commas; `rule` is applied to each."""
        words = [word.strip() for word in self.text(name, default).split(",") if word.strip()]
        for problem in filter(None, map(rule or _anything, words)):
            raise InvalidSettingError(f"{name} {problem}.")
        return words

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of `choices`, in upper or lower case."""
        value = self.text(name, default)
        for choice in choices:
            if choice.lower() == value.lower():
                return choice
        raise InvalidSettingError(f"{name} must be one of {', '.join(choices)}, not {value[:100]!r}.")

    def prefixed(self, prefix: str) -> dict[str, str]:
        """`PREFIX_A_B=v` becomes `{"a.b": "v"}`, the format of librdkafka's settings."""
        return {
            name.removeprefix(prefix).lower().replace("_", "."): self.text(name)
            for name in self._values
            if name.startswith(prefix)
        }


def _anything(value: str) -> str:
    """The rule that every value meets."""
    return ""
