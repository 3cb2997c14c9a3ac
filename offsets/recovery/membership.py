"""Members of the Kafka group that are not our workers, and partitions that Kafka does not have any more."""

import logging
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db.models import Value

from offsets.clock import monotonic
from offsets.cluster_facts import GroupMember
from offsets.errors import OffsetsError
from offsets.kafka.admin import KafkaAdmin
from offsets.models import DatabaseTime, PartitionHealth, Worker
from offsets.monitoring.absence import foreign
from offsets.monitoring.status import Status
from offsets.types import TopicPartition

logger = logging.getLogger(__name__)

ASK_SECONDS = 10.0
#: A broker that has just started may not know all topics yet.
MISSING_SECONDS = 3.0


class MembershipWatch:
    """Describes the group, but only while partitions have had no owner for a while, and not at each tick."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        #: As last described; empty while every partition has an owner.
        self.strangers: list[GroupMember] = []
        self._asked_at = -ASK_SECONDS

    def look(self, admin: KafkaAdmin) -> None:
        """Outside of any transaction. What Kafka does not answer is asked again later."""
        if not self._wanted():
            self.strangers = []
            return
        if monotonic() - self._asked_at < ASK_SECONDS:
            return
        self._asked_at = monotonic()
        try:
            members = admin.group_members(self.group_id)
        except OffsetsError as error:
            logger.warning("The members of the group %s are not known: %s", self.group_id, error)
            return
        ours = Worker.objects.filter(pk__in={member.client_id for member in members})
        self.strangers = foreign(members, set(ours.values_list("pk", flat=True)))

    def _wanted(self) -> bool:
        """Whether a partition has had no owner for longer than a rebalance takes, or Kafka refuses a worker."""
        for_a_while = DatabaseTime() - Value(timedelta(seconds=settings.HEARTBEAT_TIMEOUT_SECONDS))
        unowned = PartitionHealth.objects.filter(
            checkpoint__group_id=self.group_id,
            checkpoint__retired_at__isnull=True,
            checkpoint__owner=None,
            status__in=(Status.UNOWNED, Status.REFUSED),
            since__lt=for_a_while,
        )
        refused = Worker.objects.filter(group_id=self.group_id).exclude(state=Worker.State.STOPPED).exclude(refusal="")
        return unowned.exists() or refused.exists()


class MissingPartitions:
    """Partitions that Kafka has not had for some seconds: those of a deleted topic."""

    def __init__(self) -> None:
        self._since: dict[TopicPartition, float] = {}

    @property
    def partitions(self) -> set[TopicPartition]:
        return {tp for tp, since in self._since.items() if monotonic() - since >= MISSING_SECONDS}

    def update(self, absent: Iterable[TopicPartition]) -> None:
        """`absent` are the partitions that Kafka's last answer lacks."""
        now = monotonic()
        self._since = {tp: self._since.get(tp, now) for tp in absent}
