"""The headline: the state of a whole group in one line. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from offsets.monitoring.late_loops import LateLoop, late_in_words
from offsets.monitoring.status import START_A_WORKER, Status, Verdict
from offsets.text import counted, duration

#: An invariant report older than this is quoted with its age.
INVARIANTS_FRESH_SECONDS = 60.0
_NAMES_IN_HEADLINE = 3

#: The wording for one partition and for several. STUCK and FAILED add numbers where they are known.
_SAYS: Mapping[Status, tuple[str, str]] = {
    Status.LAGGING: ("is lagging", "are lagging"),
    Status.SLOW: ("is too slow", "are too slow"),
    Status.PAUSED: ("is paused", "are paused"),
    Status.REWOUND: ("is rewound", "are rewound"),
    Status.STALLED: ("is stalled", "are stalled"),
    Status.STOPPED: ("has stopped", "have stopped"),
    Status.STUCK: ("is stuck", "are stuck"),
    Status.UNOWNED: ("has no live owner", "have no live owner"),
    Status.OWNER_DEAD: ("has a dead owner", "have a dead owner"),
    Status.FAILED: ("has offsets that could not be applied", "have offsets that could not be applied"),
    Status.HALTED: ("is halted", "are halted"),
}


_SEVERITY = {status: rank for rank, status in enumerate(Status)}


def worst(statuses: Sequence[Status]) -> Status:
    """The status of the whole: that of its worst part; OK for nothing."""
    return max(statuses, key=_SEVERITY.__getitem__, default=Status.OK)


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
    #: Periodic loops that have not run for too long.
    late_loops: Sequence[LateLoop] = ()


def group_status(facts: GroupFacts) -> Status:
    """The worst status of the partitions; a violated invariant is as bad as a halt, a late loop as a stall."""
    if facts.invariants_ok is False:
        return Status.HALTED
    ours = [Status.STALLED] if facts.late_loops else []
    return worst([*ours, *(verdict.status for _, verdict in facts.partitions)])


def headline(facts: GroupFacts) -> str:
    """The page's first line: what is wrong and where, or that nothing is."""
    if not facts.partitions:
        return f"No partition has been claimed yet. {START_A_WORKER}"
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
    if facts.late_loops:
        sentences.append(late_in_words(facts.late_loops))
    if facts.dead_letters:
        sentences.append(f"{counted(facts.dead_letters, 'pending dead letter')}.")
    if facts.invariants_ok is not False:
        sentences.append(_promise(facts))
    return " ".join(sentences)


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
    if len(by_status[Status.UNOWNED]) + len(by_status[Status.OWNER_DEAD]) == total:
        return f"No live worker owns any of the {counted(total, 'partition')}; nothing is counted. {START_A_WORKER}."
    parts = [
        f"{_names([name for name, _ in named])} {_says(status, [verdict for _, verdict in named])}"
        for status, named in reversed(by_status.items())
        if named and status != Status.OK
    ]
    others = f"; the other {fine:,} {'is' if fine == 1 else 'are'} fine" if fine else ""
    return f"{'; '.join(parts)}{others}."


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
    if uncounted:
        kinds = ", ".join(f"{offsets:,} {kind}" for kind, offsets in sorted(uncounted.items()))
        lost = f"{counted(sum(uncounted.values()), 'offset')} not counted ({kinds})"
    else:
        lost = "Nothing lost"
    twice = f"{facts.duplicates:,} counted twice" if facts.duplicates else "nothing counted twice"
    age = facts.invariants_age_seconds
    checked = f" (checked {duration(age)} ago)" if age is not None and age > INVARIANTS_FRESH_SECONDS else ""
    return f"{lost}, {twice}{checked}."
