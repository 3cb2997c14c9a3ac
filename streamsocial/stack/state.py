"""What a checkout's stack remembers: its ports, passwords and key, under one private folder."""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from streamsocial.stack import ports
from streamsocial.stack.errors import StackError

#: The ports that such services have everywhere; the controller is Kafka's own second listener.
USUAL_PORTS = {"kafka": 9092, "controller": 9093, "postgres": 5432, "valkey": 6379}

MARKER = ".streamsocial-stack"
LOCK = "lock"


def write_private(path: Path, text: str) -> None:
    """Replace a file whole, so that a reader never sees half of it; only its owner may read it."""
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
    """The stack's choices, made once and kept, so that a second `up` finds the data of the first."""

    ports: dict[str, int] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def secret(self, name: str) -> str:
        if name not in self.secrets:
            # Letters and digits only: the value goes into URLs and configuration files as it is.
            self.secrets[name] = secrets.token_hex(24)
        return self.secrets[name]

    def choose_port(self, name: str, *, usual: bool) -> int:
        """The remembered port if it can be had, else the usual one, else any; remembered from now on."""
        remembered = [self.ports[name]] if name in self.ports else []
        preferred = remembered + ([USUAL_PORTS[name]] if usual else [])
        others = {port for other, port in self.ports.items() if other != name}
        self.ports[name] = ports.choose(preferred, others)
        return self.ports[name]


class StateDir:
    """The folder and the files in it that are not a service's own."""

    def __init__(self, root: Path) -> None:
        # Resolved: running services are known again by the paths in their command lines.
        self.root = root.resolve()
        self.env_file = self.root / "env"
        self.lock_file = self.root / LOCK
        self._state_file = self.root / "state.json"
        self._marker = self.root / MARKER

    def create(self) -> None:
        """Make the folder, private; refuse one that holds somebody else's files."""
        self.root.mkdir(parents=True, exist_ok=True)
        if not self._marker.exists():
            strangers = [entry.name for entry in self.root.iterdir() if entry.name != LOCK]
            if strangers:
                raise StackError(
                    f"{self.root} holds files that are not the stack's ({', '.join(sorted(strangers)[:3])}…). "
                    "Set STACK_DIR to an empty or a new folder."
                )
            self.root.chmod(0o700)
            self._marker.write_text("Made by `manage.py stack`; `stack up --wipe` deletes everything in here.\n")

    def exists(self) -> bool:
        return self._marker.exists()

    def load(self) -> State:
        try:
            return State(**json.loads(self._state_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError) as error:
            raise StackError(
                f"{self._state_file} cannot be read ({error}). `stack up --wipe` starts afresh, without the old data."
            ) from error

    def save(self, state: State, variables: Mapping[str, str]) -> None:
        write_private(self._state_file, json.dumps(asdict(state), indent=2) + "\n")
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        write_private(self.env_file, "# Written by `manage.py stack`; do not edit.\n" + lines)

    def wipe(self) -> None:
        """Delete everything but the lock, which the caller holds."""
        if not self._marker.exists():
            return
        for entry in self.root.iterdir():
            if entry.name in (LOCK, MARKER):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
