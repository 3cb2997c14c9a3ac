"""Run the questions side by side, each within one deadline; what fails or hangs becomes a row."""

import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.checks import run_checks
from django.db import connection

from offsets.clock import Deadline
from offsets.database import DATABASE_LOST
from offsets.diagnostics import services
from offsets.diagnostics.judgements import Diagnosis, Level, error, ok, warning
from offsets.diagnostics.loops import loop_diagnoses
from offsets.errors import OffsetsError

Ask = Callable[[], list[Diagnosis]]
#: The rows of each question, or what it raised.
Answers = dict[str, list[Diagnosis] | Exception]

#: All questions together.
TOTAL_SECONDS = 12.0

ASKERS: Mapping[str, Ask] = {
    "PostgreSQL": services.ask_postgres,
    "Kafka": services.ask_kafka,
    "retention and lag": services.ask_retention,
    "Redis": services.ask_redis,
    "Celery": services.ask_celery,
    "control loops": loop_diagnoses,
    "mail server": services.ask_mail_server,
    "webhook": services.ask_webhook,
}
_NEEDS = {"retention and lag": ("PostgreSQL", "Kafka"), "control loops": ("PostgreSQL",), "Celery": ("Redis",)}
_ADVICE = {
    "PostgreSQL": "Check DATABASE_URL, or run `manage.py stack up`.",
    "Kafka": "Check KAFKA_BOOTSTRAP_SERVERS and KAFKA_CONFIG_*, or run `manage.py stack up`.",
    "Redis": "Check REDIS_URL, or run `manage.py stack up`.",
    "Celery": "Check REDIS_URL.",
    "mail server": "Check EMAIL_*.",
    "webhook": "Check ALERT_WEBHOOK_URL, HTTPS_PROXY and NO_PROXY.",
}


def diagnose(askers: Mapping[str, Ask] = ASKERS, seconds: float = TOTAL_SECONDS) -> list[Diagnosis]:
    """The rows of all questions, in the order of `askers`; secrets are blanked out."""
    answers: Answers = {}
    threads = {subject: _start(subject, ask, answers) for subject, ask in askers.items()}
    deadline = Deadline(seconds)
    for thread in threads.values():
        thread.join(deadline.remaining_seconds)
    failed = {subject for subject in askers if _has_failed(answers.get(subject))}
    rows = settings_diagnoses()
    for subject in askers:
        rows += _rows(subject, answers.get(subject, TimeoutError(f"no answer within {seconds:.0f} s")), failed)
    hidden = secrets()
    return [Diagnosis(r.level, r.subject, blanked(r.message, hidden), blanked(r.advice, hidden)) for r in rows]


def _has_failed(answer: list[Diagnosis] | Exception | None) -> bool:
    return not isinstance(answer, list) or any(row.level is Level.ERROR for row in answer)


def _rows(subject: str, answer: list[Diagnosis] | Exception, failed: Collection[str]) -> list[Diagnosis]:
    """The answer's rows; for a failure one row, which names the service that the question needs if that failed, too."""
    if isinstance(answer, list):
        return answer
    for needed in _NEEDS.get(subject, ()):
        if needed in failed:
            return [warning(subject, f"not checked: {needed} has an error", f"See {needed}.")]
    return [error(subject, describe_failure(answer), _ADVICE.get(subject, ""))]


def _start(subject: str, ask: Ask, answers: Answers) -> threading.Thread:
    """A daemon thread, so that a service that hangs does not keep the process."""

    def run() -> None:
        try:
            answers[subject] = ask()
        except Exception as failure:  # whatever it is, it is a row of the report
            answers[subject] = failure
        finally:
            connection.close()

    thread = threading.Thread(target=run, name=f"doctor {subject}", daemon=True)
    thread.start()
    return thread


def describe_failure(failure: Exception) -> str:
    """An error in one line; the class is named where the text alone would not say what it is."""
    # A KafkaException holds an error object, whose text is shorter than that of the exception.
    detail = getattr(failure.args[0], "str", None) if failure.args else None
    text = " ".join((detail() if callable(detail) else str(failure)).split())
    if isinstance(failure, (*DATABASE_LOST, OffsetsError)) or " " in text:
        return text.rstrip(".") or type(failure).__name__
    return f"{type(failure).__name__}: {text}"


def settings_diagnoses() -> list[Diagnosis]:
    """The system checks that ask no service, as rows."""
    messages = run_checks(tags=["offsets", "analytics"])
    rows = [(error if found.is_serious() else warning)("settings", found.msg, found.hint or "") for found in messages]
    return rows or [ok("settings", "all are valid")]


# --- Secrets --------------------------------------------------------------------------------------

_SECRET_PROPERTY = re.compile(r"password|secret|token|jaas|pem|\.key$")


def secrets() -> list[str]:
    """Every configured value that must not appear in the report, longest first."""
    found = [
        settings.SECRET_KEY,
        settings.ALERT_WEBHOOK_SECRET,
        settings.EMAIL_HOST_PASSWORD,
        str(connection.settings_dict["PASSWORD"]),
        *(str(value) for name, value in settings.KAFKA_CONFIG.items() if _SECRET_PROPERTY.search(name)),
    ]
    for url in (settings.REDIS_URL, settings.ALERT_WEBHOOK_URL, settings.HTTPS_PROXY, settings.HTTP_PROXY):
        parts = urlsplit(url)
        found += [parts.password or "", unquote(parts.password or "")]
    return sorted({secret for secret in found if len(secret) > 2}, key=len, reverse=True)


def blanked(text: str, hidden: Iterable[str]) -> str:
    """The text with each secret replaced. Pure."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return text
