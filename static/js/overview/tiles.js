// The five tiles: lag, rate, freshness, counted, invariants.
import { byId, setAttribute, setText } from "../ui/dom.js";
import { age, brief, count, duration, exact, inFull, rate, UNKNOWN } from "../ui/format.js";
import { drawSparkline } from "../ui/sparkline.js";
import { nameOf } from "../ui/statuses.js";

/** @type {(keyof TypeCounts)[]} */
const TYPES = ["view", "like", "comment", "share"];
// The monitor samples every second; after this, the lag shown is out of date.
const SAMPLE_OLD_SECONDS = 5;

/**
 * @param {string} name
 * @param {string} value
 * @param {string} title
 * @param {string} note
 */
function show(name, value, title, note) {
  const node = byId(`${name}-value`);
  setText(node, value);
  setAttribute(node, "title", title === value ? null : title);
  setText(byId(`${name}-note`), note);
}

/**
 * Why the lag is out of date; empty when it is not.
 * @param {Snapshot} snapshot
 */
export function samplingTrouble(snapshot) {
  const seconds = snapshot.log_sampled_age_seconds;
  if (!snapshot.partitions.length) return "";
  if (seconds === null || snapshot.partitions.every(({ log_end_offset: end }) => end === null))
    return "log ends not sampled yet";
  return seconds > SAMPLE_OLD_SECONDS ? `log ends not sampled for ${age(seconds)}` : "";
}

/**
 * The partition that is behind by the most seconds.
 * @param {PartitionSnapshot[]} partitions
 * @returns {PartitionSnapshot | null}
 */
function slowestOf(partitions) {
  const behind = partitions.filter(({ lag, lag_seconds: seconds }) => seconds !== null && lag !== null && lag > 0);
  const slower = (/** @type {PartitionSnapshot} */ slowest, /** @type {PartitionSnapshot} */ partition) =>
    (partition.lag_seconds ?? 0) > (slowest.lag_seconds ?? 0) ? partition : slowest;
  return behind.length ? behind.reduce(slower) : null;
}

/** @param {Snapshot} snapshot */
function showLog(snapshot) {
  const { lag, lag_seconds: behind, events_per_second: speed, series } = snapshot;
  const trouble = samplingTrouble(snapshot);
  const slowest = slowestOf(snapshot.partitions);
  show("lag", brief(lag), inFull(lag, "records"), trouble || "records behind");
  show("rate", rate(speed), inFull(speed, "events per second"), "events per second");
  const source = behind && slowest ? `worst: ${nameOf(slowest)}` : "behind the log";
  const beyond = lag && lag > 0 && behind === null ? "beyond the sampled history" : source;
  show("freshness", duration(behind), behind === null ? "Unknown" : `${behind} s`, trouble || beyond);
  for (const name of ["lag", "freshness"]) setAttribute(byId(`tile-${name}`), "data-old", Boolean(trouble));
  setAttribute(byId("partitions"), "data-old", Boolean(trouble));
  setAttribute(byId("freshness-note"), "title", slowest ? source : null);
  drawSparkline(byId("lag-spark"), series.at, series.lag, exact);
  drawSparkline(byId("rate-spark"), series.at, series.events_per_second, rate);
  drawSparkline(byId("freshness-spark"), series.at, series.lag_seconds, duration);
}

/** @param {Snapshot} snapshot */
function showCounted({ counted, totals, dead_letters: pending }) {
  const note = pending ? `events · ${count(pending, "pending dead letter")}` : "events, exactly once";
  show("counted", exact(counted), exact(counted), note);
  for (const type of TYPES) setText(byId(`counted-${type}`), exact(totals[type]));
}

/** @param {InvariantsSnapshot | null} report */
function showInvariants(report) {
  const tile = byId("tile-invariants");
  const violated = report ? Object.keys(report.invariants).filter((name) => !report.invariants[name].ok) : [];
  setAttribute(tile, "data-status", !report ? "" : report.ok ? "ok" : "halted");
  const text = !report ? UNKNOWN : report.ok ? "All hold" : `${violated.join(", ")} broken`;
  show("invariants", text, text, report ? `Checked ${age(report.checked_age_seconds)} ago` : "Not checked yet");
  for (const item of byId("checks").children) {
    const name = item.textContent ?? "";
    const result = report?.invariants[name];
    setAttribute(item, "data-ok", result ? (result.ok ? "yes" : "no") : null);
    setAttribute(item, "title", result ? `${name}: ${result.detail}` : `${name}: not checked yet`);
  }
}

/** @param {Snapshot} snapshot */
export function showTiles(snapshot) {
  showLog(snapshot);
  showCounted(snapshot);
  showInvariants(snapshot.invariants);
}
