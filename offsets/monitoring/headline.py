"""The headline: the state of a whole group in one line. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from offsets.monitoring.absence import START_A_WORKER
from offsets.monitoring.late_loops import LateLoop, late_in_words
from offsets.monitoring.status import Status, Verdict
from offsets.text import counted, duration

#: An invariant report older than this is quoted with its age.
INVARIANTS_FRESH_SECONDS = 60.0
#: One that is older still is a finding: they are checked every ten seconds.
INVARIANTS_STALE_SECONDS = 300.0
_NAMES_IN_HEADLINE = 3

#: The wording for one partition and for several. STUCK and FAILED add numbers where they are known.
_SAYS: Mapping[Status, tuple[str, str]] = {
    Status.CATCHING_UP: ("is catching up", "are catching up"),
    Status.OPEN_TRANSACTION: ("is waiting for an open transaction", "are waiting for open transactions"),
    Status.LAGGING: ("is lagging", "are lagging"),
    Status.SLOW: ("is too slow", "are too slow"),
    Status.PAUSED: ("is paused", "are paused"),
    Status.REWOUND: ("is rewound", "are rewound"),
    Status.STALLED: ("is stalled", "are stalled"),
    Status.STOPPED: ("has stopped", "have stopped"),
    Status.STUCK: ("is stuck", "are stuck"),
    Status.UNOWNED: ("has no live owner", "have no live owner"),
    Status.REFUSED: ("has no owner: Kafka refuses its worker", "have no owner: Kafka refuses their worker"),
    Status.OWNER_DEAD: ("has a dead owner", "have a dead owner"),
    Status.TOPIC_MISSING: ("is missing in Kafka", "are missing in Kafka"),
    Status.FAILED: ("has offsets that could not be applied", "have offsets that could not be applied"),
    Status.HALTED: ("is halted", "are halted"),
}


_WITHOUT_OWNER = (Status.UNOWNED, Status.REFUSED, Status.OWNER_DEAD)
_SEVERITY = {status: rank for rank, status in enumerate(Status)}


def worst(statuses: Sequence[Status]) -> Status:
    """The status of the whole: that of its worst part; OK for nothing."""
    return max(statuses, key=_SEVERITY.__getitem__, default=Status.OK)


class OpenIncident(NamedTuple):
    critical: bool
    summary: str


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What the headline is made of."""

    partitions: Sequence[tuple[str, Verdict]]
    lag: int | None = None
    lag_seconds: float | None = None
    #: None before the first check.
    invariants_ok: bool | None = None
    invariants_age_seconds: float | None = None
    violated: Sequence[str] = ()
    dead_letters: int = 0
    duplicates: int = 0
    #: Offsets passed without being counted, by kind: skipped, expired, failed, claimed.
    uncounted: Mapping[str, int] = field(default_factory=dict)
    #: Running workers that Kafka refuses as members of the group, in words.
    refusals: Sequence[str] = ()
    #: Partitions that an operator retired: they are in no other number here but the totals.
    retired: int = 0
    incidents: Sequence[OpenIncident] = ()
    #: Whether there may be more than these.
    more_incidents: bool = False
    #: Offsets that could not be applied, those with an automatic retry included.
    failed_offsets: int = 0
    #: Records that no reader reaches yet; not part of the lag.
    open_transaction_records: int = 0
    #: Offsets that Kafka deleted before they were read.
    lost_offsets: int = 0
    #: Periodic loops that have not run for too long.
    late_loops: Sequence[LateLoop] = ()


def group_status(facts: GroupFacts) -> Status:
    """The worst of all that is known of the group; a violated invariant is as bad as a halt."""
    return worst([status for status, _ in _matters(facts)])


def advice(facts: GroupFacts) -> str:
    """What to do about the worst of all that is known of the group."""
    if not facts.partitions:
        return "Data appears as soon as a worker claims a partition."
    status = group_status(facts)
    return next((text for found, text in _matters(facts) if found is status and text), "No action needed.")


def _matters(facts: GroupFacts) -> Iterator[tuple[Status, str]]:
    """All that is not as it should be, with what to do about it."""
    if facts.invariants_ok is False:
        yield Status.HALTED, "Do not rely on the counts. Run manage.py verify_offsets: it names the partitions."
    if facts.refusals and not facts.partitions:
        yield Status.REFUSED, facts.refusals[0]
    for name, verdict in facts.partitions:
        yield verdict.status, f"{name}: {verdict.detail}" if verdict.status is not Status.OK else ""
    for incident in facts.incidents:
        yield Status.INCIDENT if incident.critical else Status.ATTENTION, incident.summary
    for loop in facts.late_loops:
        yield Status.STALLED, loop.detail
    if facts.lost_offsets:
        yield (
            Status.INCIDENT,
            f"{counted(facts.lost_offsets, 'offset')} lost: Kafka deleted them before they were read.",
        )
    if facts.failed_offsets:
        offsets = counted(facts.failed_offsets, "offset")
        yield Status.ATTENTION, f"{offsets} could not be applied yet; an automatic replay retries."
    if facts.dead_letters:
        yield Status.ATTENTION, "Requeue or discard the pending dead letters: manage.py dead_letters."
    age = facts.invariants_age_seconds
    if age is not None and age > INVARIANTS_STALE_SECONDS:
        yield (
            Status.ATTENTION,
            f"The invariants were last checked {duration(age)} ago. Check the control worker, which checks them.",
        )


def headline(facts: GroupFacts) -> str:
    """The page's first line: what is wrong and where, or that nothing is."""
    if not facts.partitions:
        return _nothing_live(facts)
    sentences = []
    if facts.invariants_ok is False:
        which = f" ({', '.join(facts.violated)})" if facts.violated else ""
        sentences.append(f"Ledger invariants violated{which}. Run manage.py verify_offsets.")
    sentences.append(_state(facts.partitions, lag_known=facts.lag is not None))
    if facts.lag is not None:
        seconds = f" ({duration(facts.lag_seconds)})" if facts.lag_seconds is not None else ""
        sentences.append(f"Lag {facts.lag:,}{seconds}.")
    else:
        sentences.append("Lag unknown.")
    if facts.open_transaction_records:
        wait = "waits" if facts.open_transaction_records == 1 else "wait"
        sentences.append(f"{counted(facts.open_transaction_records, 'record')} {wait} behind an open transaction.")
    if facts.lost_offsets:
        sentences.append(f"{counted(facts.lost_offsets, 'offset')} lost: deleted by Kafka before they were read.")
    if facts.incidents:
        more = " or more" if facts.more_incidents else ""
        sentences.append(f"{len(facts.incidents):,}{more} open incident{'s' if len(facts.incidents) > 1 else ''}.")
    if facts.late_loops:
        sentences.append(late_in_words(facts.late_loops))
    if facts.dead_letters:
        sentences.append(f"{counted(facts.dead_letters, 'pending dead letter')}.")
    if facts.invariants_ok is not False:
        sentences.append(_promise(facts))
    return " ".join(sentences)


def _nothing_live(facts: GroupFacts) -> str:
    if facts.refusals:
        return f"No partition has been claimed yet. {facts.refusals[0]}"
    if facts.retired:
        whole = "The only partition is" if facts.retired == 1 else f"All {facts.retired:,} partitions are"
        return f"{whole} retired: the counts are kept, and nothing is watched."
    return f"No partition has been claimed yet. {START_A_WORKER}"


def _names(names: Sequence[str]) -> str:
    shown = list(names[:_NAMES_IN_HEADLINE])
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - len(shown):,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _state(partitions: Sequence[tuple[str, Verdict]], *, lag_known: bool) -> str:
    by_status = {status: [named for named in partitions if named[1].status == status] for status in Status}
    total, fine = len(partitions), len(by_status[Status.OK])
    if fine == total:
        subject, plural = ("The only partition", "s") if total == 1 else (f"All {total:,} partitions", "")
        if lag_known:
            return f"{subject} keep{plural} up."
        return f"{subject} {'has' if total == 1 else 'have'} a live worker."
    if sum(len(by_status[status]) for status in _WITHOUT_OWNER) == total:
        whole = f"No live worker owns any of the {counted(total, 'partition')}; nothing is counted."
        return f"{whole} {_why_unowned([verdict for _, verdict in partitions])}"
    parts = [
        f"{_names([name for name, _ in named])} {_says(status, [verdict for _, verdict in named])}"
        for status, named in reversed(by_status.items())
        if named and status != Status.OK
    ]
    others = f"; the other {fine:,} {'is' if fine == 1 else 'are'} fine" if fine else ""
    return f"{'; '.join(parts)}{others}."


def _why_unowned(verdicts: Sequence[Verdict]) -> str:
    """A cause that starting a worker would not end; otherwise that advice."""
    known = [v.detail for v in verdicts if v.status is not Status.OWNER_DEAD and START_A_WORKER not in v.detail]
    return next(filter(None, known), f"{START_A_WORKER}.")


def _says(status: Status, verdicts: Sequence[Verdict]) -> str:
    """The wording for the partitions of one status; it names the offset of a single stuck one."""
    says = _SAYS[status][len(verdicts) > 1]
    offsets = sum(verdict.failed_offsets for verdict in verdicts)
    if status is Status.FAILED and offsets:
        return says.replace("offsets", counted(offsets, "offset"))
    if status is Status.STUCK and len(verdicts) == 1 and verdicts[0].offset is not None:
        return f"{says} at offset {verdicts[0].offset:,}"
    return says


def _promise(facts: GroupFacts) -> str:
    """Loss and double counting, as far as the invariants and the ledger show them."""
    if facts.invariants_ok is None:
        return "Invariants not checked yet."
    uncounted = {kind: offsets for kind, offsets in facts.uncounted.items() if offsets}
    if facts.lost_offsets and not uncounted:
        lost = "Nothing else lost"
    elif uncounted:
        kinds = ", ".join(f"{offsets:,} {kind}" for kind, offsets in sorted(uncounted.items()))
        lost = f"{counted(sum(uncounted.values()), 'offset')} not counted ({kinds})"
    else:
        lost = "Nothing lost"
    twice = f"{facts.duplicates:,} counted twice" if facts.duplicates else "nothing counted twice"
    age = facts.invariants_age_seconds
    checked = f" (checked {duration(age)} ago)" if age is not None and age > INVARIANTS_FRESH_SECONDS else ""
    return f"{lost}, {twice}{checked}."
