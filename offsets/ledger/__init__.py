"""The offset ledger: the only writer of checkpoints, ranges and dead letters.

Every mutation first locks the checkpoint rows, in id order, and checks the number of rows it changed. The locks are
FOR NO KEY UPDATE, so that inserts of samples, health and incidents, which refer to the row, do not wait for them.
A function runs in the caller's transaction if its docstring says so; otherwise it opens its own.
Rule numbers (R1, R2, …) are those of docs/explanation/architecture.md.
"""

from offsets.ledger.claims import (
    Baseline,
    ControlState,
    PartitionProgress,
    align_with_store,
    claim,
    control_states,
    halt,
    held_by_others,
    insert_baselines,
    known_partitions,
    partition_progress,
    release,
)
from offsets.ledger.commits import (
    ProbedCommit,
    claim_offsets,
    follow_store,
    lock_for_commit,
    probe_commit,
    record_failed,
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
from offsets.ledger.replays import (
    fence,
    lock_dead_letters,
    pass_failed,
    record_replayed,
    replay_miss,
    retry_failed_later,
    settle_dead_letters,
)
from offsets.ledger.retention import (
    begin_purge,
    forget,
    merge_ranges,
    mergeable_checkpoints,
    purge_dead_letter_bytes,
    purge_rows,
)

__all__ = [
    "Baseline",
    "ControlState",
    "PartitionProgress",
    "ProbedCommit",
    "align_with_store",
    "anything_below",
    "begin_purge",
    "claim",
    "claim_offsets",
    "control_states",
    "fence",
    "follow_store",
    "forget",
    "halt",
    "held_by_others",
    "insert_baselines",
    "known_partitions",
    "known_ranges",
    "lock_checkpoint",
    "lock_checkpoints",
    "lock_dead_letters",
    "lock_for_commit",
    "merge_ranges",
    "mergeable_checkpoints",
    "move_within",
    "partition_progress",
    "pass_failed",
    "probe_commit",
    "purge_dead_letter_bytes",
    "purge_rows",
    "record_failed",
    "record_processed",
    "record_replayed",
    "release",
    "replay_miss",
    "request_mirror",
    "retire_and_restart",
    "retry_failed_later",
    "seek",
    "set_desired_state",
    "settle_claimed",
    "settle_dead_letters",
    "swap_back",
    "uncovered",
]
