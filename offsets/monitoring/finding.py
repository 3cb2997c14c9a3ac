"""A finding: one problem that an incident is opened for, and the limits from which on it is one. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from offsets.monitoring.group_state import AffectedRange
from offsets.types import CIRCUIT_BREAKER

#: A longer subject would be cut when it is stored, and then not be found again.
SUBJECT_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause at one subject. `began_at` is when it began, by the database's clock."""

    kind: str
    subject: str
    summary: str
    began_at: datetime
    critical: bool = True
    checkpoint_id: int | None = None
    worker_id: str = ""
    ranges: Sequence[AffectedRange] = ()
    evidence: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.subject


@dataclass(frozen=True, slots=True)
class FindingLimits:
    heartbeat_timeout_seconds: float
    stuck_seconds: float
    #: Warn of offsets that Kafka deletes sooner than this.
    retention_warn_seconds: float
    breaker: str = CIRCUIT_BREAKER
    #: A transaction that is open for longer is an incident: by default Kafka aborts it after a minute.
    open_transaction_seconds: float = 60.0
    #: What passes sooner, as after an outage or a resume, is none.
    lasting_seconds: float = 5.0
