"""What a web process checks before it serves anybody."""

import sys

from django.conf import settings

BUILT_IN_SECRET_KEY = "insecure-until-SECRET_KEY-is-set"  # noqa: S105 - public, and refused below
_USER_ERROR = 2


def refused_secret_key() -> str:
    """Why the secret key must not be used; empty if it may. It signs sessions, and the built-in one is public."""
    if settings.DEBUG or settings.SECRET_KEY != BUILT_IN_SECRET_KEY:
        return ""
    return "SECRET_KEY is not set. Set it to any long random text before you start a web server."


def require_secret_key() -> None:
    """End the process, with one sentence, if its secret key is public."""
    reason = refused_secret_key()
    if reason:
        print(reason, file=sys.stderr)
        raise SystemExit(_USER_ERROR)
