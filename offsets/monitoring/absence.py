"""Why no worker reads a partition, and the sentence that says so. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from offsets.cluster_facts import GroupMember
from offsets.types import TopicPartition

START_A_WORKER = "Start a worker: manage.py run_consumer"
_NAMED = 3


class Reader(NamedTuple):
    """A running worker: its topics, and the client's words if Kafka refuses it as a member of the group."""

    worker_id: str
    topics: Sequence[str]
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a partition may have no owner. All of it is empty where nothing is known."""

    topic: str = ""
    #: Kafka does not have the partition any more.
    missing: bool = False
    #: The worker that subscribes to the topic and that Kafka refuses.
    refused: Reader | None = None
    #: The topics that running workers read, if this topic is not one of them.
    read_instead: Sequence[str] = ()
    #: Running workers that subscribe to the topic and are not refused: Kafka may assign it to one of them.
    waiting: Sequence[str] = ()
    #: Members of the group that are not our workers: those that hold the partition, or, of a refused worker, all.
    strangers: Sequence[GroupMember] = ()

    @property
    def explained(self) -> bool:
        """Whether starting a worker would not end it."""
        return bool(self.missing or self.refused or self.read_instead or self.strangers)


NOTHING_KNOWN = Absence()


def absence_of(
    partition: TopicPartition,
    readers: Iterable[Reader],
    *,
    missing: Collection[TopicPartition] = (),
    strangers: Iterable[GroupMember] = (),
) -> Absence:
    """What is known of one partition. `readers` are the running workers of the group."""
    running = list(readers)
    subscribed = [reader for reader in running if partition.topic in reader.topics]
    # A worker of an earlier version reports no topics: nothing is concluded from the others then.
    known = running and all(reader.topics for reader in running)
    refused = subscribed[0] if subscribed and all(reader.refusal for reader in subscribed) else None
    others = list(strangers)
    return Absence(
        partition.topic,
        missing=partition in missing,
        refused=refused,
        read_instead=sorted({topic for reader in running for topic in reader.topics})
        if known and not subscribed
        else (),
        waiting=[reader.worker_id for reader in subscribed if not reader.refusal],
        strangers=[member for member in others if partition in member.partitions] or (others if refused else ()),
    )


def foreign(members: Iterable[GroupMember], workers: Collection[str]) -> list[GroupMember]:
    """The members that are not our workers: a worker's client id is its own id."""
    return [member for member in members if member.client_id not in workers]


# --- Words ----------------------------------------------------------------------------------------


def missing_words(name: str, topic: str) -> str:
    return (
        f"Kafka does not have {name} any more, so nothing can be read. If topic {topic!r} was deleted on purpose, "
        f"retire it: manage.py retire_partitions --topic {topic}. Otherwise create it again."
    )


def refused_words(reader: Reader, strangers: Sequence[GroupMember]) -> str:
    """Why the worker is not a member of its group, and what to do."""
    others = ""
    if strangers:
        them = "it" if len(strangers) == 1 else "them"
        others = f" In the group: {_named(strangers)}. Stop {them}, or use another group."
    return (
        f"Kafka refuses worker {reader.worker_id} as a member of the group: {reader.refusal.rstrip('.')}.{others} "
        "Fix the cause; the worker keeps trying."
    )


def unowned_words(name: str, absence: Absence) -> str:
    """Why no worker owns a partition that exists, and what to do."""
    if absence.strangers:
        return " ".join(stranger_words([name], member) for member in absence.strangers)
    if absence.read_instead:
        return (
            f"No running worker reads topic {absence.topic!r}; they read {', '.join(absence.read_instead)}. Start one "
            f"with --topic {absence.topic}, or retire the topic: manage.py retire_partitions --topic {absence.topic}."
        )
    if absence.waiting:
        names = ", ".join(absence.waiting[:_NAMED]) + (" …" if len(absence.waiting) > _NAMED else "")
        verb = "subscribes" if len(absence.waiting) == 1 else "subscribe"
        return (
            f"Not assigned yet, so nothing is counted: {names} {verb} to the topic. A rebalance takes seconds; if this "
            "lasts, check the last error of the workers."
        )
    return f"No worker owns it, so nothing is counted. {START_A_WORKER}."


def stranger_words(names: Sequence[str], member: GroupMember) -> str:
    """That another program holds these partitions, and what to do."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:_NAMED])}{more} {verb} assigned to {_named([member])}. Stop it, or use another group."


def _named(strangers: Sequence[GroupMember]) -> str:
    shown = [f"client {member.client_id!r} on host {member.host}" for member in strangers[:_NAMED]]
    more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
    what = "which is not one of our workers" if len(strangers) == 1 else "which are not our workers"
    return f"{', '.join(shown)}{more}, {what}"
