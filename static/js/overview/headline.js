// The status of the whole page in one sentence, what to do, and the tab's title.
import { byId, setAttribute, setText } from "../ui/dom.js";
import { familyOf, isFine, nameOf, severityOf, shapeOf } from "../ui/statuses.js";
import { samplingTrouble } from "./tiles.js";

const page = document.title;
let advice = "";
let mark = "";

/**
 * @param {PartitionSnapshot[]} partitions
 * @returns {PartitionSnapshot | null}
 */
function worstOf(partitions) {
  const worse = (/** @type {PartitionSnapshot} */ worst, /** @type {PartitionSnapshot} */ partition) =>
    severityOf(partition.status) > severityOf(worst.status) ? partition : worst;
  return partitions.length ? partitions.reduce(worse) : null;
}

/** @param {Snapshot} snapshot */
function adviceFor(snapshot) {
  const worst = worstOf(snapshot.partitions);
  if (worst && !isFine(worst.status)) return `${nameOf(worst)}: ${worst.status_detail}`;
  const late = snapshot.loops.find((loop) => loop.late);
  if (late) return late.detail;
  const trouble = samplingTrouble(snapshot);
  if (trouble)
    return `The lag is out of date: ${trouble}. Counting continues. Check the control worker, which samples Kafka every second.`;
  return snapshot.partitions.length ? "No action needed." : "Data appears as soon as a worker claims a partition.";
}

/** @param {Snapshot} snapshot */
export function showHeadline(snapshot) {
  const status = snapshot.partitions.length ? snapshot.worst_status : "";
  setAttribute(byId("headline"), "data-status", status && familyOf(status));
  setAttribute(byId("headline-icon"), "href", status ? `#${shapeOf(status)}` : "#status-none");
  setText(byId("headline-text"), snapshot.headline);
  advice = adviceFor(snapshot);
  mark = status && !isFine(status) ? `${status} · ` : "";
}

/**
 * The connection's trouble replaces the advice, since it makes the headline old.
 * @param {string} trouble
 * @param {string} title
 */
export function showAdvice(trouble, title) {
  setText(byId("headline-advice"), trouble || advice);
  const fullTitle = `${title || mark}${page}`;
  if (document.title !== fullTitle) document.title = fullTitle;
}

/**
 * Before the first snapshot.
 * @param {string} text
 */
export function showNothing(text) {
  setText(byId("headline-text"), text);
}
