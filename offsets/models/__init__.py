"""Rows of the offset ledger. Read them anywhere; each table has exactly one writing module, named in its docstring."""

from offsets.models.audit import JournalEntry, OperatorAction
from offsets.models.base import DatabaseTime
from offsets.models.checkpoints import DeadLetter, LedgerRange, PartitionCheckpoint
from offsets.models.incidents import Incident, IncidentEvent, Notification
from offsets.models.observations import InvariantReport, LagSample, PartitionHealth, StoreOffset
from offsets.models.processes import Lease, Worker
from offsets.models.replays import Replay, ReplayRange

__all__ = [
    "DatabaseTime",
    "DeadLetter",
    "Incident",
    "IncidentEvent",
    "InvariantReport",
    "JournalEntry",
    "LagSample",
    "Lease",
    "LedgerRange",
    "Notification",
    "OperatorAction",
    "PartitionCheckpoint",
    "PartitionHealth",
    "Replay",
    "ReplayRange",
    "StoreOffset",
    "Worker",
]
