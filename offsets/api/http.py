"""Shared by the API views: access checks, errors as JSON, and parsing of input.

All answers are JSON. If there is an `error`, it says what to do, and nothing was changed.
"""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from offsets.database import DATABASE_LOST
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError
from offsets.models import OperatorAction
from offsets.permissions import can_view
from offsets.ranges import OffsetRange
from offsets.replays.plans import checked_range
from offsets.text import postgres_text

View = Callable[..., HttpResponseBase]
MAX_INTEGER = 2**63 - 1


class BadInputError(OffsetsError):
    """The request is invalid."""

    http_status = 400


def error_response(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": message}, status=status)


class _CsrfCheck(CsrfViewMiddleware):
    """Django's CSRF check with a JSON answer instead of HTML."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return error_response(403, f"{reason} Reload the page and try again.")


def _checked_for_csrf(request: HttpRequest) -> HttpResponseBase | None:
    check = _CsrfCheck(lambda _request: HttpResponse())
    check.process_request(request)
    return check.process_view(request, lambda _request: HttpResponse(), (), {})


def api_view(*methods: str) -> Callable[[View], View]:
    """Wrap a view: check method, CSRF token, login and view permission, in this order, and answer errors as JSON."""

    def decorate(view: View) -> View:
        # Exempt from the middleware because the same check is made here, with a JSON answer.
        @csrf_exempt
        @never_cache
        @wraps(view)
        def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method not in methods:
                return error_response(405, f"Method not allowed. Use {' or '.join(methods)}.")
            try:
                return _checked_for_csrf(request) or _refused_reader(request) or view(request, *args, **kwargs)
            except DATABASE_LOST:
                return error_response(
                    503, "The database is unavailable, and the outcome is unknown. Refresh, then try again."
                )
            except (BadInputError, RefusedError, ServiceUnavailableError) as error:
                return error_response(error.http_status, str(error))

        return wrapped

    return decorate


def _refused_reader(request: HttpRequest) -> HttpResponse | None:
    if not request.user.is_authenticated:
        return error_response(403, "Log in first.")
    if not can_view(request.user):
        return error_response(
            403, f"{request.user.get_username()} has no view permission. Ask to join the group 'viewer'."
        )
    return None


def reason_of(body: dict[str, Any]) -> str:
    reason = body.get("reason", "")
    if not isinstance(reason, str) or postgres_text(reason) != reason.replace("\x00", "\\0"):
        raise BadInputError("`reason` must be text.")
    return reason


def body_of(request: HttpRequest) -> dict[str, Any]:
    """The JSON object of the request, or the same from a form, which has the fields of `seen` at top level."""
    if request.content_type == "application/json":
        try:
            body = json.loads(request.body)
        except RequestDataTooBig:
            raise BadInputError("The body is too large.") from None
        except (ValueError, RecursionError):
            raise BadInputError("The body is not valid JSON.") from None
        if not isinstance(body, dict):
            raise BadInputError("The body must be a JSON object, e.g. {reason, seen: {epoch, owner, desired_state}}.")
        return body
    form = request.POST
    epoch = form.get("epoch", "")
    seen = {
        "epoch": int(epoch) if epoch.isascii() and epoch.isdigit() and len(epoch) < 20 else None,
        "owner": form.get("owner") or None,
        "desired_state": form.get("desired_state"),
    }
    return {"reason": form.get("reason", ""), "seen": seen}


def number_of(name: str, value: Any) -> int:
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return min(int(value), MAX_INTEGER)
    raise BadInputError(f"`{name}` must be a whole number from 0.")


def word_of(name: str, value: str | None) -> str:
    """The text of a filter. A query can contain NUL characters, which the database rejects."""
    if "\x00" in (value or ""):
        raise BadInputError(f"`{name}` must not contain NUL characters.")
    return value or ""


def place_of(get: Callable[[str], Any]) -> tuple[int, OffsetRange]:
    checkpoint_id, start, end = (number_of(name, get(name)) for name in ("checkpoint_id", "start", "end"))
    try:
        return checkpoint_id, checked_range(start, end)
    except RefusedError as error:
        raise BadInputError(str(error)) from error


MAX_LISTED = 200


def outcome_of(action: OperatorAction) -> dict[str, Any]:
    return {
        "outcome": action.outcome,
        "action_id": action.pk,
        "kind": action.kind,
        "checkpoint_id": action.checkpoint_id,
        "target": action.target,
        "detail": action.detail,
        "before": action.before,
        "after": action.after,
    }
