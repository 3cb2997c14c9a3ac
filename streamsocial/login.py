"""The login, of the page and of the admin, with a limit on failed attempts.

Attempts are counted before the password is checked, so that parallel ones cannot pass together. They are counted in
Redis, and in this process while Redis is unavailable.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.forms import AuthenticationForm
from django.core.cache import caches
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from redis.exceptions import RedisError

from offsets import clock
from offsets.text import duration

WINDOW_SECONDS = 300
#: Failed attempts in one window. The first limit is for people who mistype; the others bound guessing with many names
#: from one address, and of one name from many addresses.
LIMITS = {"name and address": 10, "address": 100, "name": 100}

View = Callable[..., HttpResponseBase]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to log in."""

    name: str
    address: str

    def keys(self, window: int) -> dict[str, str]:
        """The counters that this attempt adds to, by the name of their limit."""
        # Django finds user names case-sensitively, but they are compared here as people see them.
        name = self.name.casefold()
        parts = {"name and address": f"{name}\n{self.address}", "address": self.address, "name": name}
        return {
            limit: f"login:{window}:{limit.replace(' ', '-')}:{hashlib.sha256(part.encode()).hexdigest()}"
            for limit, part in parts.items()
        }


def over_limit(counts: dict[str, int]) -> bool:
    """Whether one of the counts, this attempt included, exceeds its limit."""
    return any(count > LIMITS[limit] for limit, count in counts.items())


def seconds_left(now: float) -> float:
    """Until the window ends, and with it the lock."""
    return WINDOW_SECONDS - now % WINDOW_SECONDS


def begin(attempt: Attempt, now: float) -> bool:
    """Count the attempt. Returns whether it is within the limits."""
    return not over_limit({limit: _add(key, 1) for limit, key in attempt.keys(int(now // WINDOW_SECONDS)).items()})


def succeeded(attempt: Attempt, now: float) -> None:
    """Count only failures: take this attempt back, and the user's earlier failures from this address."""
    for limit, key in attempt.keys(int(now // WINDOW_SECONDS)).items():
        _add(key, -_add(key, 0) if limit == "name and address" else -1)


def _add(key: str, amount: int) -> int:
    """Add to a counter that expires with its window, and return it."""
    for name in ("default", "local"):
        cache = caches[name]
        try:
            cache.add(key, 0, WINDOW_SECONDS)
            return int(cache.incr(key, amount))
        except (RedisError, OSError):
            continue
        except ValueError:  # expired between the two calls
            return max(0, amount)
    return 0


class _Throttled:
    """Checks the limits before the password."""

    request: HttpRequest
    cleaned_data: dict[str, Any]

    def clean(self) -> dict[str, Any]:
        now = clock.wall()
        address = str(self.request.META.get("REMOTE_ADDR") or "")
        attempt = Attempt(str(self.cleaned_data.get("username") or ""), address)
        if not begin(attempt, now):
            left = seconds_left(now)
            self.request.login_retry_seconds = left  # type: ignore[attr-defined]
            raise ValidationError(f"Too many failed logins. Try again in {duration(left)}.", code="throttled")
        cleaned: dict[str, Any] = super().clean()  # type: ignore[misc]
        succeeded(attempt, now)
        return cleaned


class LoginForm(_Throttled, AuthenticationForm):  # type: ignore[misc]
    """Of the page."""


class AdminLoginForm(_Throttled, AdminAuthenticationForm):  # type: ignore[misc]
    """Of the admin."""


def with_status(view: View) -> View:
    """Answer a login over the limit with 429, and say when to try again."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        seconds = getattr(request, "login_retry_seconds", None)
        if seconds is not None:
            response.status_code = 429
            response.headers["Retry-After"] = str(int(seconds) + 1)
        return response

    return wrapped
