"""Group members for the stateful tests of the coordinator; client and admin only record."""

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import cast

from hypothesis import strategies as st

from offsets import ledger, workers
from offsets.clock import Deadline
from offsets.errors import ServiceUnavailableError
from offsets.kafka.admin import KafkaAdmin, LogBounds, TopicDescription
from offsets.kafka.client import KafkaClient, StartAt
from offsets.ledger.claims import ControlState
from offsets.processing.coordinator import OffsetCoordinator
from offsets.processing.partition_state import LocalPartition
from offsets.types import Claim, Position, TopicPartition
from tests.support.ledger_model.workers import HANDLER

TOPIC = "t"


PLACES = tuple(TopicPartition(TOPIC, number) for number in range(2))


LOG_END = 60


places = st.sampled_from(PLACES)


members = st.sampled_from((0, 1))


class FakeClient:
    """The consumer's assignment: offsets, and the pause flag that survives an unassignment."""

    def __init__(self) -> None:
        self.at: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()

    def assign(self, starts: Mapping[TopicPartition, StartAt]) -> None:
        assert not starts.keys() & self.at.keys(), "Kafka answers _CONFLICT"
        self.at |= {tp: start.offset for tp, start in starts.items()}
        self.paused |= starts.keys()

    def positions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        return {}

    def start(self, tp: TopicPartition, start: StartAt) -> bool:
        self.at[tp] = start.offset
        self.paused.discard(tp)
        return True

    def unassign(self, partitions: Iterable[TopicPartition], *, in_callback: bool = False) -> None:
        for tp in partitions:
            self.at.pop(tp, None)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused |= self.at.keys() & set(partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused -= self.at.keys() & set(partitions)


class FakeAdmin:
    """One topic, shared by all members; `away` is a cluster that does not answer."""

    def __init__(self) -> None:
        self.starts = dict.fromkeys(PLACES, 0)
        self.ends = dict.fromkeys(PLACES, LOG_END)
        #: With the records of open transactions.
        self.uncommitted: dict[TopicPartition, int] = {}
        self.leaderless: frozenset[int] = frozenset()
        self.partitions = len(PLACES)
        self.group_commits: dict[TopicPartition, int] = {}
        self.away = False

    def describe_topics(self, topics: Iterable[str], **_: object) -> dict[str, TopicDescription]:
        self._answer()
        return {TOPIC: TopicDescription("topic-id", tuple(range(self.partitions)), self.leaderless)}

    def log_bounds(self, partitions: Iterable[TopicPartition], **_: object) -> dict[TopicPartition, LogBounds]:
        self._answer()
        wanted = list(partitions)
        assert not self.leaderless.intersection(tp.partition for tp in wanted), "the request would time out"
        return {tp: LogBounds(self.starts.get(tp, 0), self.ends.get(tp, LOG_END)) for tp in wanted}

    def uncommitted_ends(self, partitions: Iterable[TopicPartition], **_: object) -> dict[TopicPartition, int]:
        return {tp: self.uncommitted.get(tp, self.ends[tp]) for tp in partitions}

    def committed(self, group_id: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(self.group_commits)

    def _answer(self) -> None:
        if self.away:
            raise ServiceUnavailableError("away")


class Member:
    """One worker's process, as far as its coordinator goes. `drains` is whether the pipeline finishes in time."""

    def __init__(self, group: str, admin: FakeAdmin) -> None:
        self.worker_id = f"w-{uuid.uuid4().hex[:8]}"
        workers.register(self.worker_id, group)
        self.client = FakeClient()
        #: What the group has told this member that it has.
        self.told: set[TopicPartition] = set()
        #: Taken away behind its back; it hears of it later.
        self.unheard: set[TopicPartition] = set()
        #: Where another's epoch has met it: claimed again only when that one is gone.
        self.met: set[TopicPartition] = set()
        self.drains = True
        #: A heartbeat's answer that the fetching thread has not looked at yet.
        self.read: tuple[list[int], dict[int, ControlState]] = ([], {})
        self.coordinator = OffsetCoordinator(
            group_id=group,
            worker_id=self.worker_id,
            client=cast("KafkaClient", self.client),
            admin=cast("KafkaAdmin", admin),
            dimensions=HANDLER.dimensions,
            drain=self._drain,
            on_claimed=lambda _: None,
        )

    def _drain(self, claims: list[Claim], deadline: Deadline) -> set[int]:
        return {claim.checkpoint_id for claim in claims} if self.drains else set()

    @property
    def owned(self) -> dict[TopicPartition, LocalPartition]:
        return self.coordinator.partitions

    def heartbeat(self) -> None:
        ids = [local.claim.checkpoint_id for local in self.owned.values()]
        self.read = (ids, ledger.control_states(ids))

    def obey(self) -> None:
        before = set(self.owned)
        self.coordinator.apply_control(*self.read)
        self.met |= before - self.owned.keys()


class Swallowed(logging.Handler):
    """Callbacks may not raise, so the coordinator logs: what it logs with a trace is kept for the test to see."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, ServiceUnavailableError):
            self.errors.append(error)
