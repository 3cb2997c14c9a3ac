"""The offset ledger: the only writer of checkpoints, ranges and dead letters.

Every mutation locks the checkpoint row first, several of them in id order, and counts the rows it changed.
Functions run inside the caller's transaction where they say so, otherwise they open their own.
Rule numbers are those of docs/architecture.md.
"""

from offsets.ledger.claims import (
    Baseline,
    ControlState,
    align_with_store,
    claim,
    control_states,
    halt,
    held_by_others,
    insert_baselines,
    known_partitions,
    release,
)
from offsets.ledger.commits import (
    ProbedCommit,
    claim_offsets,
    follow_store,
    lock_for_commit,
    probe_commit,
    record_processed,
    settle_claimed,
)
from offsets.ledger.moves import (
    anything_below,
    lock_checkpoint,
    lock_checkpoints,
    move_within,
    request_mirror,
    retire_and_restart,
    seek,
    set_desired_state,
    swap_back,
    uncovered,
)
from offsets.ledger.pieces import known_ranges

__all__ = [
    "Baseline",
    "ControlState",
    "ProbedCommit",
    "align_with_store",
    "anything_below",
    "claim",
    "claim_offsets",
    "control_states",
    "follow_store",
    "halt",
    "held_by_others",
    "insert_baselines",
    "known_partitions",
    "known_ranges",
    "lock_checkpoint",
    "lock_checkpoints",
    "lock_for_commit",
    "move_within",
    "probe_commit",
    "record_processed",
    "release",
    "request_mirror",
    "retire_and_restart",
    "seek",
    "set_desired_state",
    "settle_claimed",
    "swap_back",
    "uncovered",
]
