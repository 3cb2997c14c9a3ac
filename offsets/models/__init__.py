"""Rows of the offset ledger. Read them anywhere; each table has exactly one writing module, named in its docstring.

A transaction that locks rows of several tables locks them in this order, so that no two wait for each other: a leader's
lease, checkpoints by id, the worker, the lease of its slot or of a replay. No network call is made while a row is
locked.
"""

from offsets.models.audit import JournalEntry, OperatorAction
from offsets.models.base import DatabaseTime
from offsets.models.checkpoints import DeadLetter, LedgerRange, PartitionCheckpoint
from offsets.models.incidents import Incident, IncidentEvent, Notification
from offsets.models.observations import InvariantReport, LagSample, PartitionHealth, StoreOffset
from offsets.models.processes import Lease, LoopRun, Worker
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
    "LoopRun",
    "Notification",
    "OperatorAction",
    "PartitionCheckpoint",
    "PartitionHealth",
    "Replay",
    "ReplayRange",
    "StoreOffset",
    "Worker",
]
