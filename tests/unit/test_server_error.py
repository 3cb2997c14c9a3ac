"""A page that fails for want of its database says so, without a traceback; any other error stays one."""

import logging

import psycopg
import pytest
from django.core.handlers.exception import response_for_exception
from django.db import OperationalError
from django.http import HttpResponse
from django.test import RequestFactory

from offsets.database import OutageFilter


def _fails_with(error: Exception, path: str) -> HttpResponse:
    """What Django answers, and logs, when a view or a middleware raises."""
    logger = logging.getLogger("django.request")
    assert any(isinstance(known, OutageFilter) for known in logger.filters), "settings.LOGGING has it"
    try:
        raise error
    except Exception as raised:
        response: HttpResponse = response_for_exception(RequestFactory().get(path), raised)
        return response


def _read_only() -> OperationalError:
    error = OperationalError("cannot execute UPDATE in a read-only transaction")
    error.__cause__ = psycopg.errors.ReadOnlySqlTransaction()
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OperationalError("connection to server at secret-host failed"), "The database does not answer"),
        (_read_only(), "The database is read-only"),
    ],
)
def test_an_unavailable_database_is_a_503_without_its_words(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/", "/admin/", "/accounts/login/"):
        response = _fails_with(error, path)
        assert (response.status_code, response["Retry-After"]) == (503, "5")
        assert words in response.content.decode()
        assert "secret-host" not in response.content.decode()
    response = _fails_with(error, "/api/snapshot/")
    assert (response.status_code, response["Content-Type"]) == (503, "application/json")
    assert words in response.content.decode()
    assert not [record for record in caplog.records if record.exc_info]
    assert str(error) in caplog.text


def test_any_other_error_is_a_500_with_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    response = _fails_with(ZeroDivisionError("a bug"), "/")
    assert response.status_code == 500
    assert [record for record in caplog.records if record.exc_info]
