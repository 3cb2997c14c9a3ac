// One sentence for the whole page, one below it that says what to do, and the tab's title.
import { byId, setAttribute, setText } from "../ui/dom.js";
import { familyOf, isFine, nameOf, severityOf, shapeOf } from "../ui/statuses.js";
import { samplingTrouble } from "./tiles.js";

const page = document.title;
let advice = "";
let mark = "";

function worstOf(partitions) {
  return partitions.reduce(
    (worst, one) => (!worst || severityOf(one.status) > severityOf(worst.status) ? one : worst),
    null,
  );
}

function adviceFor(snapshot) {
  const worst = worstOf(snapshot.partitions);
  if (worst && !isFine(worst.status)) return `${nameOf(worst)}: ${worst.status_detail}`;
  const trouble = samplingTrouble(snapshot);
  if (trouble)
    return `The lag is out of date: ${trouble}. Counting continues. Check the control worker, which samples Kafka every second.`;
  return snapshot.partitions.length ? "No action needed." : "Data appears as soon as a worker claims a partition.";
}

export function showHeadline(snapshot) {
  const status = snapshot.partitions.length ? snapshot.worst_status : "";
  setAttribute(byId("headline"), "data-status", status && familyOf(status));
  setAttribute(byId("headline-icon"), "href", status ? `#${shapeOf(status)}` : "#status-none");
  setText(byId("headline-text"), snapshot.headline);
  advice = adviceFor(snapshot);
  mark = status && !isFine(status) ? `${status} · ` : "";
}

/** The connection's trouble takes the second line, since it makes the first one old. */
export function showAdvice(trouble, title) {
  setText(byId("headline-advice"), trouble || advice);
  const wanted = `${title || mark}${page}`;
  if (document.title !== wanted) document.title = wanted;
}

/** Before anything was ever shown. */
export function showNothing(words) {
  setText(byId("headline-text"), words);
}
