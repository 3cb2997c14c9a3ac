// The ledger strip: a partition's log from its first to its last offset, to scale, in the colours of what became of it.
import { count, exact, percent } from "../ui/format.js";
import { KINDS, prepare } from "./strip-paint.js";

const LEAST = 2; // pixels of a range that would be too small to see
const STUB = 8; // pixels for everything unusual that lies before the log's first offset
const STUB_GAP = 2;
const INSET = 3; // the tip is taller than the strip by so much

const rank = new Map(KINDS.map((kind, index) => [kind, index]));
const worse = (a, b) => ((rank.get(a) ?? 0) < (rank.get(b) ?? 0) ? a : b);

/** The stretch of the log that is drawn, `[start, end)`. */
export function extent({ ranges, log_start_offset, log_end_offset, next_offset }) {
  const start = log_start_offset ?? ranges[0]?.start ?? next_offset;
  const end = Math.max(log_end_offset ?? 0, ranges.at(-1)?.end ?? 0, next_offset);
  return { start: Math.min(start, end), end };
}

/** What lies before the log's first offset and was not simply counted: Kafka has deleted it, the ledger has not. */
function before(partition, start) {
  const unusual = partition.ranges.filter((range) => range.start < start && range.kind !== "processed");
  return unusual.length ? { kind: unusual.map((range) => range.kind).reduce(worse), ranges: unusual } : null;
}

/** Where everything goes on `width` pixels: pieces in the order of painting. Edges lie on device pixels: no seams. */
export function layOut(partition, width, ratio = 1) {
  const { start, end } = extent(partition);
  const stub = before(partition, start);
  const left = stub ? STUB + STUB_GAP : 0;
  const scale = end > start ? (width - left) / (end - start) : 0;
  const snap = (pixel) => Math.round(pixel * ratio) / ratio;
  const x = (offset) => snap(left + (Math.min(Math.max(offset, start), end) - start) * scale);
  const piece = (range, kind) => {
    const wide = Math.max(LEAST, x(range.end) - x(range.start));
    return { ...range, kind, x: Math.min(x(range.start), width - wide), width: wide };
  };
  const inside = partition.ranges.filter((range) => range.end > start).map((range) => piece(range, range.kind));
  inside.sort((a, b) => (rank.get(b.kind) ?? 0) - (rank.get(a.kind) ?? 0));
  const read = Math.max(partition.next_offset, partition.ranges.at(-1)?.end ?? start);
  const unread = end > read ? piece({ start: read, end }, "unread") : null;
  const processed = inside.filter((one) => one.kind === "processed");
  const others = inside.filter((one) => one.kind !== "processed");
  return {
    start,
    end,
    left,
    scale,
    pieces: [
      ...(stub ? [{ kind: stub.kind, x: 0, width: STUB, stub }] : []),
      ...processed,
      ...(unread ? [unread] : []),
      ...others,
    ],
    tip: Math.min(x(partition.next_offset), unread ? unread.x : width),
  };
}

export function drawStrip(canvas, partition, paint) {
  const ready = prepare(canvas, paint);
  if (!ready) return;
  const { context, width, height } = ready;
  const plan = layOut(partition, width, paint.ratio);
  const [top, tall] = [INSET, height - 2 * INSET];
  context.fillStyle = paint.unread;
  context.fillRect(plan.left, top, width - plan.left, tall);
  for (const one of plan.pieces) {
    context.fillStyle = paint.fill(context, one.kind);
    context.fillRect(one.x, top, one.width, tall);
  }
  // What is unread is pale; a line keeps its end visible on any background.
  context.fillStyle = paint.line;
  context.fillRect(plan.left, height - top - 1, width - plan.left, 1);
  const tip = Math.min(Math.max(plan.tip - 1, plan.left), width - 2);
  context.fillStyle = paint.gap;
  context.fillRect(tip - 1, 0, 4, height);
  context.fillStyle = paint.tip;
  context.fillRect(tip, 0, 2, height);
}

/** The strip in one sentence, for those who do not see it. */
export function inWords(partition) {
  const { start, end } = extent(partition);
  const parts = Object.entries(partition.range_offsets).map(([kind, offsets]) => `${exact(offsets)} ${kind}`);
  if (partition.lag !== null) parts.push(`${exact(partition.lag)} unread`);
  return `Offsets ${exact(start)} to ${exact(end)}: ${parts.join(", ") || "nothing read yet"}`;
}

/** What lies under a pixel: `[title, detail]`. */
export function under(partition, width, pixel) {
  const plan = layOut(partition, width);
  const hit = plan.pieces.findLast((one) => pixel >= one.x && pixel < one.x + one.width);
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
  return [`${hit.kind} ${where}`, `${share}; ${count(hit.records, "record")} counted${failed}`];
}
