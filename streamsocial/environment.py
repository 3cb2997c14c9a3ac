"""Where settings come from: the process environment first, then `.stack/env` of this checkout.

Reading never changes the environment, so that a command can distinguish what the user set from what the embedded
stack wrote.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

BASE_DIR = Path(__file__).resolve().parent.parent

#: A service whose variable is set by the user is the user's: the embedded stack does not manage it.
SERVICE_VARIABLES = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL")

_PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_IDENTIFIER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_THIS_MACHINE = frozenset({"", "localhost", "127.0.0.1", "::1"})
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


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


class Environment:
    """A read-only view of the settings' variables.

    Raises ValueError, naming the variable, for an invalid value.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        written = dotenv_values(stack_dir(environ) / "env")
        self._values: dict[str, str] = {k: v for k, v in written.items() if v is not None}
        self._values.update({k: v for k, v in environ.items() if v != ""})

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise ValueError(f"{name} must be true or false, not {value!r}.")

    def integer(self, name: str, default: int, *, minimum: int, maximum: int = 2**31) -> int:
        value = self._values.get(name)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"{name} must be a whole number, not {value!r}.") from None
        if not minimum <= number <= maximum:
            raise ValueError(f"{name} must be between {minimum} and {maximum}, not {number}.")
        return number

    def words(self, name: str, default: str = "") -> list[str]:
        return [word.strip() for word in self.text(name, default).split(",") if word.strip()]

    def path_prefix(self, name: str) -> str:
        """A URL path without a slash at its end, as `/streamsocial`; empty for the root of the host."""
        value = self._values.get(name, "").rstrip("/")
        if value and not _PATH_PREFIX.fullmatch(value):
            raise ValueError(f"{name} must be a path that begins with one slash, as /streamsocial, not {value!r}.")
        return value

    def identifier(self, name: str) -> str:
        """Letters, digits, dots, dashes and underscores, at most 64; empty if not set."""
        value = self._values.get(name, "")
        if value and not _IDENTIFIER.fullmatch(value):
            raise ValueError(f"{name} must be 1 to 64 letters, digits, dots, dashes or underscores, not {value!r}.")
        return value

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
        return value

    def prefixed(self, prefix: str) -> dict[str, str]:
        """`PREFIX_A_B=v` becomes `{"a.b": "v"}`, the format of librdkafka's settings."""
        return {
            name.removeprefix(prefix).lower().replace("_", "."): value
            for name, value in self._values.items()
            if name.startswith(prefix)
        }
