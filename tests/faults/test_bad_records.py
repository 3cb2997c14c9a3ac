"""Records on which the handler or the database fails: set apart to the record, the rest counts, nothing stops."""

from collections.abc import Callable

import pytest

from offsets.models import DeadLetter, LedgerRange
from tests.support.cases import Case
from tests.support.processes import assert_exactly_once, manage, manage_json

pytestmark = pytest.mark.django_db(transaction=True)

MakeCase = Callable[..., Case]


def _requeue_all(this: Case) -> dict[str, object]:
    arguments = ("--group", this.group, "--requeue", "--execute", "--reason", "the handler is mended")
    outcome: dict[str, object] = manage_json(this.env, "dead_letters", *arguments)
    return outcome


def test_a_record_that_makes_the_handler_raise_is_a_dead_letter_and_the_rest_counts(case: MakeCase) -> None:
    this = case(5_000, partitions=2, poison=0)
    env = {**this.env, "BATCH_HANDLER": "tests.support.handlers.ChokesInDecode", "FAIL_AT": "0:17,0:18,1:250"}
    summary = manage_json(env, *this.run_consumer("--exit-when-caught-up"))
    assert (summary["events"], summary["dead_letters"]) == (4_997, 3)
    letters = DeadLetter.objects.filter(checkpoint__group_id=this.group).order_by("checkpoint__partition", "offset")
    assert [(one.checkpoint.partition, one.offset, one.error_code) for one in letters.select_related("checkpoint")] == [
        (0, 17, "handler_failed"),
        (0, 18, "handler_failed"),
        (1, 250, "handler_failed"),
    ]
    assert "ZeroDivisionError: a record that the decoder cannot bear" in letters[0].error_detail
    assert manage_json(this.env, "verify_offsets", "--group", this.group)["ok"]
    assert _requeue_all(this)["changed"] == 3
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


@pytest.mark.parametrize(
    ("handler", "code", "words"),
    [
        ("RefusedByDatabase", "refused_by_database", "division by zero"),
        ("RaisesInUpdate", "handler_failed", "AttributeError: 'NoneType' object has no attribute 'minute'"),
        ("RaisesInCombine", "handler_failed", "KeyError: 'a record that cannot be combined'"),
    ],
)
def test_a_batch_that_cannot_be_applied_is_replayed_down_to_the_record(
    case: MakeCase, handler: str, code: str, words: str
) -> None:
    this = case(5_000, partitions=2, poison=0.01)
    env = {**this.env, "BATCH_HANDLER": f"tests.support.handlers.{handler}", "FAIL_AT": "1:250"}
    done = manage(env, *this.run_consumer("--exit-when-caught-up", "--json"))
    assert done.returncode == 1, "a batch that is not counted is an aim that was not met"
    (failed,) = LedgerRange.objects.filter(checkpoint__group_id=this.group, kind="failed")
    assert failed.offsets.lower <= 250 < failed.offsets.upper
    assert words in failed.detail
    assert manage_json(env, "verify_offsets", "--group", this.group)["ok"], "a failed range is no hole"
    dry = manage_json(env, "replay_offsets", "--group", this.group, "--all")
    assert dry["to_count"] == failed.offsets.upper - failed.offsets.lower
    replay = manage_json(
        env, "replay_offsets", "--group", this.group, "--all", "--execute", "--reason", "count what failed"
    )
    assert replay["status"] == "done"
    assert not LedgerRange.objects.filter(checkpoint__group_id=this.group).exclude(kind="processed").exists()
    letter = DeadLetter.objects.get(checkpoint__group_id=this.group, error_code=code)
    assert letter.offset == 250
    assert _requeue_one(this, letter.pk)["changed"] == 1
    assert_exactly_once(this.env, this.group, this.topic, this.truth, this.folder)


def _requeue_one(this: Case, letter_id: int) -> dict[str, object]:
    more = ("--id", str(letter_id), "--requeue", "--execute", "--reason", "it is mended")
    outcome: dict[str, object] = manage_json(this.env, "dead_letters", "--group", this.group, *more)
    return outcome
