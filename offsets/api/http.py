"""What the views of the API share: checks, errors as JSON, and parsers of input.

Responses are always JSON. One with an `error` has changed nothing, and says what to do.
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

from offsets.actions.guards import Actor, Request, Source
from offsets.database import DATABASE_LOST, outage_for_visitors
from offsets.errors import OffsetsError, RefusedError, ServiceUnavailableError
from offsets.models import OperatorAction
from offsets.permissions import can_view
from offsets.ranges import OffsetRange
from offsets.replays.plans import checked_range
from offsets.text import postgres_text, whole_number

View = Callable[..., HttpResponseBase]
MAX_INTEGER = 2**63 - 1
RETRY_AFTER_SECONDS = 5


class BadInputError(OffsetsError):
    """The request cannot be understood."""

    http_status = 400


def error_response(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": message}, status=status)


def database_unavailable(error: Exception) -> JsonResponse:
    response = error_response(503, f"{outage_for_visitors(error)}. Nothing is known to have changed; try again.")
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


class _CsrfCheck(CsrfViewMiddleware):
    """Django's own check, answering in JSON instead of HTML."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return error_response(403, f"{reason} Reload the page and try again.")


def _checked_for_csrf(request: HttpRequest) -> HttpResponseBase | None:
    check = _CsrfCheck(lambda _request: HttpResponse())
    check.process_request(request)
    return check.process_view(request, lambda _request: HttpResponse(), (), {})


def api_view(*methods: str) -> Callable[[View], View]:
    """Check method, CSRF token, login and view permission, in this order; report errors as JSON."""

    def decorate(view: View) -> View:
        # Exempt from the middleware only because the same check is made here, with an answer the page can read.
        @csrf_exempt
        @never_cache
        @wraps(view)
        def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.method not in methods:
                return error_response(405, f"Use {' or '.join(methods)} here.")
            try:
                return _checked_for_csrf(request) or _refused_reader(request) or view(request, *args, **kwargs)
            except DATABASE_LOST as error:
                return database_unavailable(error)
            except (BadInputError, RefusedError, ServiceUnavailableError) as error:
                return error_response(error.http_status, str(error))

        return wrapped

    return decorate


def _refused_reader(request: HttpRequest) -> HttpResponse | None:
    if not request.user.is_authenticated:
        return error_response(403, "Log in first.")
    if not can_view(request.user):
        return error_response(403, f"{request.user.get_username()} may not see this. Ask to join the group 'viewer'.")
    return None


def request_of(request: HttpRequest, body: dict[str, Any]) -> Request:
    """Who asks for the action, and why."""
    reason = body.get("reason", "")
    if not isinstance(reason, str) or postgres_text(reason) != reason.replace("\x00", "\\0"):
        raise BadInputError("`reason` must be text.")
    return Request(Actor.of_user(request.user), reason, Source.API)


def body_of(request: HttpRequest) -> dict[str, Any]:
    """The request's JSON object, or its form with the fields of `seen` beside the reason."""
    if request.content_type == "application/json":
        try:
            body = json.loads(request.body)
        except RequestDataTooBig:
            raise BadInputError("The body is too large.") from None
        except (ValueError, RecursionError):
            raise BadInputError("The body is not valid JSON.") from None
        if not isinstance(body, dict):
            raise BadInputError("The body must be a JSON object: {reason, seen: {epoch, owner, desired_state}}.")
        return body
    form = request.POST
    seen = {
        "epoch": whole_number(form.get("epoch", "")),
        "owner": form.get("owner") or None,
        "desired_state": form.get("desired_state"),
    }
    return {"reason": form.get("reason", ""), "seen": seen}


def number_of(name: str, value: Any) -> int:
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    if isinstance(value, str) and (number := whole_number(value, maximum=10**19 - 1)) is not None:
        return min(number, MAX_INTEGER)
    raise BadInputError(f"`{name}` must be a whole number from 0.")


def word_of(name: str, value: str | None) -> str:
    """A filter's text. The path and the query may hold NUL; the database refuses it."""
    if "\x00" in (value or ""):
        raise BadInputError(f"`{name}` must not hold NUL.")
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
