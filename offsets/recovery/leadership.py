"""Leadership of the recovery managers of a group: one leads by a lease row, the others stand by.

Every write of the leader compares its epoch: a former leader that was stopped and resumes writes nothing.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from offsets import leases
from offsets.actions.guards import bounded_wait
from offsets.clock import monotonic
from offsets.database import describe_outage
from offsets.leases import LeaseToken
from offsets.models import Lease
from offsets.monitoring import incidents
from offsets.monitoring.findings import Finding

logger = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
#: After a gap of this length between ticks the workers may have lost the database, too.
GAP_SECONDS = 6
_NOT_RELEASED = "the previous leader exited without releasing its lease"


class LostLeadershipError(Exception):
    """Another manager leads now; this one must not write."""


class Leadership:
    """The lease of this manager, and the events that could not be recorded when they happened."""

    def __init__(self, group_id: str, holder: str) -> None:
        self.group_id = group_id
        self.holder = holder
        #: When the database was first unavailable, by this process's monotonic clock, and the error.
        self._database_missed: tuple[float, str] | None = None
        #: The leader whose lease this one took over, until that is recorded.
        self._former: Lease | None = None

    @property
    def lease_name(self) -> str:
        return f"recovery-manager:{self.group_id}"

    def acquire(self) -> LeaseToken | None:
        """Take or renew the lease. None while another manager leads; it records what was missed."""
        before = Lease.objects.filter(pk=self.lease_name).first()
        token = leases.acquire(self.lease_name, self.holder, LEASE_SECONDS)
        if token is None:
            self.missed_is_recorded()
        elif before is not None and before.holder not in ("", self.holder):
            self._former = before
        return token

    def release(self) -> None:
        """Let a standby take over at once. Does nothing where another leads, or led last."""
        held = Lease.objects.filter(pk=self.lease_name, holder=self.holder).first()
        if held:
            leases.release(LeaseToken(held.name, held.holder, held.epoch))

    @contextmanager
    def writing(self, token: LeaseToken) -> Iterator[None]:
        """A transaction of the leader; the lock makes a successor wait for its end.

        Waiting for a row is bounded, or one stopped process would block the supervision of all others. Raises
        ServiceUnavailableError when the time is up, and LostLeadershipError when another manager leads.
        """
        with transaction.atomic(), bounded_wait():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT 1 FROM offsets_lease WHERE name = %s AND holder = %s AND epoch = %s FOR SHARE",
                    [token.name, token.holder, token.epoch],
                )
                if cursor.fetchone() is None:
                    raise LostLeadershipError
            yield
            with connection.cursor() as cursor:
                # Here rather than at COMMIT: a foreign key to a partition waits for whoever has locked its row.
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def can_judge_heartbeats(self) -> bool:
        """Whether a worker without heartbeats may be judged dead.

        Not right after a gap between ticks: a database that was unavailable to this manager was unavailable to the
        workers, too. They get one heartbeat timeout to report back.
        """
        ticking, grace = f"supervision:{self.group_id}", f"supervision-grace:{self.group_id}"
        live = leases.live([ticking, grace])
        leases.acquire(ticking, "manager", GAP_SECONDS)
        if ticking not in live or self._database_missed is not None:
            leases.acquire(grace, "manager", settings.HEARTBEAT_TIMEOUT_SECONDS)
            return False
        return grace not in live

    # --- What could not be recorded when it happened ------------------------------------------------

    def miss_database(self, error: Exception) -> None:
        """Remember since when the database is unavailable, and its latest words. Logged when they change."""
        text = describe_outage(error)
        since, before = self._database_missed or (monotonic(), "")
        if text != before:
            logger.warning("The recovery manager is waiting for the database. %s", text)
        self._database_missed = (since, text)

    def record_missed(self, now: datetime) -> None:
        """Record the former leader's end and the database's absence as past incidents, in the leader's transaction."""
        if self._former is not None:
            last = self._former.expires_at - timedelta(seconds=LEASE_SECONDS)
            finding = Finding(
                "manager_lost",
                "recovery manager",
                f"{self.holder} took over from {self._former.holder}: {_NOT_RELEASED}.",
                last,
                critical=False,
            )
            incidents.record_past(self.group_id, finding, now, text=f"{self.holder} is the leader.")
        if self._database_missed is not None:
            missed_at, text = self._database_missed
            began = now - timedelta(seconds=monotonic() - missed_at)
            finding = Finding("database_unavailable", "postgresql", f"{text}. Work was paused.", began)
            # The processes of a Celery worker lead in turn, and each of them has missed the database.
            if not incidents.covers(self.group_id, finding):
                incidents.record_past(self.group_id, finding, began, text="It responds again; work has resumed.")

    def missed_is_recorded(self) -> None:
        """The transaction that recorded it has committed."""
        self._database_missed = self._former = None
