"""An unprivileged account for PostgreSQL, which refuses to run as root. No account is created."""

import functools
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from streamsocial.stack.errors import StackError

_DROP = (
    "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1])); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


@dataclass(frozen=True)
class Account:
    """The account of PostgreSQL: a prefix for its commands, and the owner of its files."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def give(self, path: Path) -> None:
        if self.owner is not None:
            os.chown(path, *self.owner)


def unprivileged(home: Path) -> Account:
    """The account for programs that work in `home`.

    For other users: the same user. For root: a user namespace, where the files stay root's. Where the system forbids
    that (many containers do): `nobody`, which must have access to `home`.
    """
    if os.geteuid() != 0:
        return Account()
    nobody = _nobody()
    prefix = _namespace_prefix(nobody.pw_uid, nobody.pw_gid)
    if prefix:
        return Account(prefix)
    return _become(nobody, home)


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        others = [account for account in pwd.getpwall() if account.pw_uid != 0]
        if others:
            return others[-1]
    raise StackError(
        "PostgreSQL refuses to run as root, and this system has no other account. Run this as another user, "
        "or set DATABASE_URL to your own PostgreSQL."
    )


@functools.cache
def _namespace_prefix(uid: int, gid: int) -> tuple[str, ...]:
    program = shutil.which("unshare")
    if program is None:
        return ()
    prefix = (program, "--user", f"--map-user={uid}", f"--map-group={gid}")
    tried = subprocess.run(
        [*prefix, sys.executable, "-c", ""], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    return prefix if tried.returncode == 0 else ()


def _become(nobody: pwd.struct_passwd, home: Path) -> Account:
    """Give the folder to `nobody`, and let other users pass through the stack's folder, no more."""
    owner = (nobody.pw_uid, nobody.pw_gid)
    home.parent.chmod(0o711)
    os.chown(home, *owner)
    for folder in home.parent.parents:
        if not folder.stat().st_mode & 0o001:
            raise StackError(
                f"PostgreSQL refuses to run as root, this system forbids user namespaces (`unshare --user`), and "
                f"the account {nobody.pw_name} cannot pass through {folder}. Run this as another user, set STACK_DIR "
                "to a folder that all users may enter, or set DATABASE_URL to your own PostgreSQL."
            )
    return Account((sys.executable, "-c", _DROP, str(owner[0]), str(owner[1])), owner)
