// The five tiles: lag, rate, freshness, counted, invariants.
import { byId, setAttribute, setText } from "../ui/dom.js";
import { age, brief, count, duration, exact, inFull, rate, UNKNOWN } from "../ui/format.js";
import { drawSparkline } from "../ui/sparkline.js";
import { nameOf } from "../ui/statuses.js";

const TYPES = ["view", "like", "comment", "share"];
// The monitor samples every second; past this the lag shown is no longer that of now.
const SAMPLE_OLD_SECONDS = 5;

function show(name, value, title, note) {
  const node = byId(`${name}-value`);
  setText(node, value);
  setAttribute(node, "title", title === value ? null : title);
  setText(byId(`${name}-note`), note);
}

/** Why the lag is not that of now, in words; empty when it is. */
export function samplingTrouble(snapshot) {
  const seconds = snapshot.log_sampled_age_seconds;
  if (!snapshot.partitions.length) return "";
  if (seconds === null || snapshot.partitions.every((one) => one.log_end_offset === null))
    return "log ends not sampled yet";
  return seconds > SAMPLE_OLD_SECONDS ? `log ends not sampled for ${age(seconds)}` : "";
}

function longestWait(partitions) {
  const waiting = partitions.filter((one) => one.lag_seconds !== null && one.lag > 0);
  return waiting.reduce((worst, one) => (!worst || one.lag_seconds > worst.lag_seconds ? one : worst), null);
}

function showLog(snapshot) {
  const { lag, lag_seconds: behind, events_per_second: speed, series } = snapshot;
  const trouble = samplingTrouble(snapshot);
  const slowest = longestWait(snapshot.partitions);
  show("lag", brief(lag), inFull(lag, "records"), trouble || "records behind");
  show("rate", rate(speed), inFull(speed, "events per second"), "events per second");
  const whose = behind > 0 && slowest ? `worst: ${nameOf(slowest)}` : "behind the log";
  const unknown = lag > 0 && behind === null ? "beyond the sampled history" : whose;
  show("freshness", duration(behind), behind === null ? "Unknown" : `${behind} s`, trouble || unknown);
  for (const name of ["lag", "freshness"]) setAttribute(byId(`tile-${name}`), "data-old", Boolean(trouble));
  setAttribute(byId("partitions"), "data-old", Boolean(trouble));
  setAttribute(byId("freshness-note"), "title", slowest ? whose : null);
  drawSparkline(byId("lag-spark"), series.at, series.lag, exact);
  drawSparkline(byId("rate-spark"), series.at, series.events_per_second, rate);
  drawSparkline(byId("freshness-spark"), series.at, series.lag_seconds, duration);
}

function showCounted({ counted, totals, dead_letters: pending }) {
  const waiting = pending ? `events · ${count(pending, "pending dead letter")}` : "events, exactly once";
  show("counted", exact(counted), exact(counted), waiting);
  for (const type of TYPES) setText(byId(`counted-${type}`), exact(totals[type]));
}

function showInvariants(report) {
  const tile = byId("tile-invariants");
  const violated = report ? Object.keys(report.invariants).filter((name) => !report.invariants[name].ok) : [];
  setAttribute(tile, "data-status", !report ? "" : report.ok ? "ok" : "halted");
  const words = !report ? UNKNOWN : report.ok ? "All hold" : `${violated.join(", ")} broken`;
  show("invariants", words, words, report ? `Checked ${age(report.checked_age_seconds)} ago` : "Not checked yet");
  for (const item of byId("checks").children) {
    const name = item.textContent;
    const result = report?.invariants[name];
    setAttribute(item, "data-ok", result ? (result.ok ? "yes" : "no") : null);
    setAttribute(item, "title", result ? `${name}: ${result.detail}` : `${name}: not checked yet`);
  }
}

export function showTiles(snapshot) {
  showLog(snapshot);
  showCounted(snapshot);
  showInvariants(snapshot.invariants);
}
