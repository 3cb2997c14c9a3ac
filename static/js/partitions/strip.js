// The ledger strip: a partition's log from its first to its last offset, to scale, in the colours of the outcomes.
import { count, exact, percent } from "../ui/format.js";
import { KINDS, prepare } from "./strip-paint.js";

const LEAST = 2; // pixels of a range that would be too small to see
const STUB = 8; // pixels for everything uncounted before the log start
const STUB_GAP = 2;
const INSET = 3; // the tip is taller than the strip by so much

/**
 * What is drawn: a range at its place, or the stub. What only ranges have may be missing.
 * @typedef {{
 *   kind: string, x: number, width: number, start: number, end: number,
 *   records?: number, failed_records?: number, stub?: { ranges: RangeSnapshot[] },
 * }} Piece
 */

const rank = new Map(KINDS.map((kind, index) => [kind, index]));
/** @type {(a: string, b: string) => string} */
const worse = (a, b) => ((rank.get(a) ?? 0) < (rank.get(b) ?? 0) ? a : b);

/**
 * The part of the log that is drawn, `[start, end)`.
 * @param {PartitionSnapshot} partition
 */
export function extent({ ranges, log_start_offset, log_end_offset, next_offset }) {
  const start = log_start_offset ?? ranges[0]?.start ?? next_offset;
  const end = Math.max(log_end_offset ?? 0, ranges.at(-1)?.end ?? 0, next_offset);
  return { start: Math.min(start, end), end };
}

/**
 * The uncounted ranges before the log start: Kafka has deleted them, the ledger has not.
 * @param {PartitionSnapshot} partition
 * @param {number} start
 */
function stubOf(partition, start) {
  const unusual = partition.ranges.filter((range) => range.start < start && range.kind !== "processed");
  return unusual.length ? { kind: unusual.map((range) => range.kind).reduce(worse), ranges: unusual } : null;
}

/**
 * The layout on `width` pixels: pieces in the order of painting, with their edges on device pixels to avoid seams.
 * @param {PartitionSnapshot} partition
 * @param {number} width
 */
export function layOut(partition, width, ratio = 1) {
  const { start, end } = extent(partition);
  const stub = stubOf(partition, start);
  const left = stub ? STUB + STUB_GAP : 0;
  const scale = end > start ? (width - left) / (end - start) : 0;
  /** @param {number} pixel */
  const snap = (pixel) => Math.round(pixel * ratio) / ratio;
  /** @param {number} offset */
  const x = (offset) => snap(left + (Math.min(Math.max(offset, start), end) - start) * scale);
  /** @type {(range: { start: number, end: number }, kind: string) => Piece} */
  const piece = (range, kind) => {
    const wide = Math.max(LEAST, x(range.end) - x(range.start));
    return { ...range, kind, x: Math.min(x(range.start), width - wide), width: wide };
  };
  const inside = partition.ranges.filter((range) => range.end > start).map((range) => piece(range, range.kind));
  inside.sort((a, b) => (rank.get(b.kind) ?? 0) - (rank.get(a.kind) ?? 0));
  const read = Math.max(partition.next_offset, partition.ranges.at(-1)?.end ?? start, start);
  const unread = end > read ? piece({ start: read, end }, "unread") : null;
  const processed = inside.filter(({ kind }) => kind === "processed");
  const others = inside.filter(({ kind }) => kind !== "processed");
  /** @type {Piece[]} */
  const pieces = [
    ...(stub ? [{ kind: stub.kind, start: 0, end: start, x: 0, width: STUB, stub }] : []),
    ...processed,
    ...(unread ? [unread] : []),
    ...others,
  ];
  return {
    start,
    end,
    left,
    scale,
    pieces,
    tip: Math.min(x(partition.next_offset), unread ? unread.x : width),
  };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {PartitionSnapshot} partition
 * @param {Paint} paint
 */
export function drawStrip(canvas, partition, paint) {
  const ready = prepare(canvas, paint);
  if (!ready) return;
  const { context, width, height } = ready;
  const plan = layOut(partition, width, paint.ratio);
  const [top, tall] = [INSET, height - 2 * INSET];
  context.fillStyle = paint.unread;
  context.fillRect(plan.left, top, width - plan.left, tall);
  for (const piece of plan.pieces) {
    context.fillStyle = paint.fill(context, piece.kind);
    context.fillRect(piece.x, top, piece.width, tall);
  }
  // Unread offsets are pale; a line keeps their end visible on any background.
  context.fillStyle = paint.line;
  context.fillRect(plan.left, height - top - 1, width - plan.left, 1);
  const tip = Math.min(Math.max(plan.tip - 1, plan.left), width - 2);
  context.fillStyle = paint.gap;
  context.fillRect(tip - 1, 0, 4, height);
  context.fillStyle = paint.tip;
  context.fillRect(tip, 0, 2, height);
}

/**
 * The strip in one sentence, for screen readers.
 * @param {PartitionSnapshot} partition
 */
export function inWords(partition) {
  const { start, end } = extent(partition);
  const parts = Object.entries(partition.range_offsets).map(([kind, offsets]) => `${exact(offsets)} ${kind}`);
  if (partition.lag !== null) parts.push(`${exact(partition.lag)} unread`);
  return `Offsets ${exact(start)} to ${exact(end)}: ${parts.join(", ") || "nothing read yet"}`;
}

/**
 * The title and the detail of the piece under a pixel.
 * @param {PartitionSnapshot} partition
 * @param {number} width
 * @param {number} pixel
 * @returns {[string, string]}
 */
export function under(partition, width, pixel) {
  const plan = layOut(partition, width);
  const hit = plan.pieces.findLast((piece) => pixel >= piece.x && pixel < piece.x + piece.width);
  if (hit?.stub) {
    const offsets = hit.stub.ranges.reduce((sum, range) => sum + range.end - range.start, 0);
    return ["Before the log start", `${count(offsets, "offset")} not counted (${hit.kind})`];
  }
  if (!hit)
    return [plan.scale ? "Not in the ledger" : "Log is empty", `from ${exact(plan.start)} to ${exact(plan.end)}`];
  const offsets = hit.end - hit.start;
  const where = `[${exact(hit.start)}, ${exact(hit.end)})`;
  const share = `${count(offsets, "offset")}, ${percent(offsets, plan.end - plan.start)} of the log`;
  if (hit.kind === "unread") return [`unread ${where}`, share];
  const failed = hit.failed_records ? `, ${exact(hit.failed_records)} failed` : "";
  return [`${hit.kind} ${where}`, `${share}; ${count(hit.records ?? 0, "record")} counted${failed}`];
}
