"""The state of a checkout's stack: ports, passwords and key, in one private folder."""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from streamsocial.stack import ports
from streamsocial.stack.errors import StackError

#: The default ports of these services; the controller is Kafka's own second listener.
USUAL_PORTS = {"kafka": 9092, "controller": 9093, "postgres": 5432, "valkey": 6379}

MARKER = ".streamsocial-stack"
LOCK = "lock"


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner may read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass
class State:
    """Ports and secrets, chosen once and kept, so that the next `up` finds the data of the first."""

    ports: dict[str, int] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def secret(self, name: str) -> str:
        if name not in self.secrets:
            # Letters and digits only: the value goes into URLs and configuration files unquoted.
            self.secrets[name] = secrets.token_hex(24)
        return self.secrets[name]

    def choose_port(self, name: str, *, usual: bool) -> int:
        """The remembered port if it is free, else the usual one, else any; it is remembered."""
        remembered = [self.ports[name]] if name in self.ports else []
        preferred = remembered + ([USUAL_PORTS[name]] if usual else [])
        others = {port for other, port in self.ports.items() if other != name}
        self.ports[name] = ports.choose(preferred, others)
        return self.ports[name]


def _checked(state: State) -> State:
    """Raises ValueError for values of other types, as a file that was edited may hold."""
    if not all(isinstance(part, dict) for part in (state.ports, state.secrets)):
        raise ValueError("ports and secrets must be objects")
    if not all(type(port) is int and 0 < port < 65536 for port in state.ports.values()):
        raise ValueError("a port is not a number from 1 to 65535")
    if not all(isinstance(secret, str) for secret in state.secrets.values()):
        raise ValueError("a secret is not text")
    return state


class StateDir:
    """The folder and the files in it that are not a service's own."""

    def __init__(self, root: Path) -> None:
        # Resolved: running services are identified by the paths in their command lines.
        self.root = root.resolve()
        self.env_file = self.root / "env"
        self.lock_file = self.root / LOCK
        self._state_file = self.root / "state.json"
        self._marker = self.root / MARKER

    def create(self) -> None:
        """Create the folder, private; refuse one that contains other files."""
        self.root.mkdir(parents=True, exist_ok=True)
        if not self._marker.exists():
            strangers = [entry.name for entry in self.root.iterdir() if entry.name != LOCK]
            if strangers:
                raise StackError(
                    f"{self.root} contains files that are not the stack's ({', '.join(sorted(strangers)[:3])}…). "
                    "Set STACK_DIR to an empty or new folder."
                )
            self.root.chmod(0o700)
            self._marker.write_text(
                "Created by `manage.py stack`; `stack up --wipe` deletes everything in this folder.\n"
            )

    def exists(self) -> bool:
        return self._marker.exists()

    def load(self) -> State:
        try:
            return _checked(State(**json.loads(self._state_file.read_text(encoding="utf-8-sig"))))
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError, RecursionError) as error:
            raise StackError(
                f"Cannot read {self._state_file} ({error}). To delete all data and start again: `stack up --wipe`."
            ) from error

    def save(self, state: State, variables: Mapping[str, str]) -> None:
        write_private(self._state_file, json.dumps(asdict(state), indent=2) + "\n")
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        write_private(self.env_file, "# Written by `manage.py stack`; do not edit.\n" + lines)

    def wipe(self) -> None:
        """Delete everything except the lock, which the caller holds."""
        if not self._marker.exists():
            return
        for entry in self.root.iterdir():
            if entry.name in (LOCK, MARKER):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
