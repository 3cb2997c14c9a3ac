// Generated from analytics/dashboard/snapshot.py by scripts/snapshot_types.py; do not edit.

interface TypeCounts {
  view: number;
  like: number;
  comment: number;
  share: number;
}

/** A piece of the ledger strip: `[start, end)`. Long histories are merged to at most a few hundred pieces. */
interface RangeSnapshot {
  start: number;
  end: number;
  kind: string;
  records: number;
  failed_records: number;
}

interface PartitionSnapshot {
  checkpoint_id: number;
  topic: string;
  partition: number;
  /** a word of offsets.monitoring.status.Status; STUCK says where: "STUCK AT OFFSET 812,400" */
  status: string;
  /** what it means here, and what to do */
  status_detail: string;
  owner: string | null;
  owner_heartbeat_age_seconds: number | null;
  epoch: number;
  next_offset: number;
  log_start_offset: number | null;
  log_end_offset: number | null;
  lag: number | null;
  lag_seconds: number | null;
  events_per_second: number | null;
  desired_state: string;
  halt_reason: string;
  ranges: RangeSnapshot[];
  /** kind → offsets */
  range_offsets: Record<string, number>;
  /** pending */
  dead_letters: number;
  committed_at: string | null;
  semantics: string;
  /** records counted more than once: at_least_once allows it */
  duplicates: number;
  /** store → offsets by which it is ahead of the ledger; null where it holds nothing */
  drift: Record<string, number | null>;
  /** since when it has this status; null without a recovery manager */
  status_since: string | null;
  /** until it has caught up, at the rate of the last minute */
  eta_seconds: number | null;
}

interface WorkerSnapshot {
  worker_id: string;
  slot: string;
  hostname: string;
  process_id: number;
  /** running, stopping, stopped, dead */
  state: string;
  heartbeat_age_seconds: number;
  partitions: string[];
  records: number;
  events_per_second: number | null;
  memory_bytes: number | null;
  batch_in_hand: number;
  fenced_commits: number;
  last_error: string;
  /** its current stage, after one second; otherwise empty */
  stage: string;
  stage_seconds: number | null;
}

/** A periodic loop of the application itself, as far as it ever ran. */
interface LoopSnapshot {
  name: string;
  interval_seconds: number;
  /** since the end of its last run without an error */
  last_run_age_seconds: number;
  /** of that run */
  duration_seconds: number | null;
  running: boolean;
  late: boolean;
  /** what does not happen while it is late, and the likely cause; otherwise empty */
  detail: string;
}

interface MinuteSnapshot {
  minute: string;
  counts: TypeCounts;
}

interface InvariantSnapshot {
  ok: boolean;
  detail: string;
}

interface InvariantsSnapshot {
  ok: boolean;
  checked_age_seconds: number;
  /** I1 … I6 */
  invariants: Record<string, InvariantSnapshot>;
}

interface JournalSnapshot {
  id: number;
  at: string;
  level: string;
  kind: string;
  worker_id: string;
  topic: string;
  partition: number | null;
  message: string;
}

/** Five minutes of history for the tiles' sparklines; parallel lists, oldest first, None where unknown. */
interface SeriesSnapshot {
  /** epoch seconds */
  at: number[];
  lag: Array<number | null>;
  lag_seconds: Array<number | null>;
  events_per_second: Array<number | null>;
}

interface TimelineSnapshot {
  at: string;
  /** manager, operator */
  source: string;
  text: string;
}

interface IncidentSnapshot {
  id: number;
  kind: string;
  subject: string;
  /** warning, critical */
  severity: string;
  checkpoint_id: number | null;
  worker_id: string;
  summary: string;
  /** topic, partition, kind, start, end */
  ranges: Record<string, string | number>[];
  /** a stack trace, at /api/incidents/<id>/ */
  has_evidence: boolean;
  began_at: string;
  opened_at: string;
  closed_at: string | null;
  detect_seconds: number;
  recover_seconds: number | null;
  timeline: TimelineSnapshot[];
}

/** Offsets `[start, end)` that were passed without being counted. */
interface UncountedSnapshot {
  checkpoint_id: number;
  topic: string;
  partition: number;
  /** failed, skipped, claimed, expired */
  kind: string;
  start: number;
  end: number;
  detail: string;
  attempts: number;
  /** null: no automatic retry */
  retry_at: string | null;
  created_at: string;
  /** whether Kafka has deleted all of it; null: unknown */
  gone: boolean | null;
}

interface DeadLetterSnapshot {
  id: number;
  checkpoint_id: number;
  topic: string;
  partition: number;
  offset: number;
  error_code: string;
  error_detail: string;
  /** as text, truncated; null for a tombstone */
  value: string | null;
  value_bytes: number | null;
  created_at: string;
}

interface ReplaySnapshot {
  id: number;
  /** queued, running, done, failed, cancelled */
  status: string;
  automatic: boolean;
  username: string;
  reason: string;
  done_offsets: number;
  total_offsets: number;
  counted: number;
  deduplicated: number;
  dead_letters: number;
  expired_offsets: number;
  starts: number;
  cancel_requested: boolean;
  detail: string;
  created_at: string;
  finished_at: string | null;
  offsets_per_second: number | null;
  eta_seconds: number | null;
}

interface ActionSnapshot {
  id: number;
  at: string;
  kind: string;
  target: string;
  username: string;
  source: string;
  outcome: string;
  reason: string;
  detail: string;
  undone: boolean;
  undoable: boolean;
}

/** Bounded lists, the most urgent or newest first. */
interface RecoverySnapshot {
  /** open ones first, then the last that were closed */
  incidents: IncidentSnapshot[];
  /** failed ones first */
  uncounted: UncountedSnapshot[];
  /** pending */
  dead_letters: DeadLetterSnapshot[];
  /** those that run first */
  replays: ReplaySnapshot[];
  actions: ActionSnapshot[];
}

interface Snapshot {
  version: number;
  sequence: number;
  taken_at: string;
  group: string;
  /** one sentence for the whole page */
  headline: string;
  worst_status: string;
  lag: number | null;
  lag_seconds: number | null;
  events_per_second: number | null;
  /** age of the newest watermark sample */
  log_sampled_age_seconds: number | null;
  totals: TypeCounts;
  /** sum of totals */
  counted: number;
  /** pending, all partitions */
  dead_letters: number;
  fenced_commits: number;
  /** by topic, partition */
  partitions: PartitionSnapshot[];
  workers: WorkerSnapshot[];
  /** late ones first */
  loops: LoopSnapshot[];
  /** the last 60, oldest first, gaps filled with zeros */
  minutes: MinuteSnapshot[];
  invariants: InvariantsSnapshot | null;
  /** newest first, at most 30 */
  journal: JournalSnapshot[];
  series: SeriesSnapshot;
  recovery: RecoverySnapshot;
}
