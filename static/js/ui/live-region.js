// Announces changes of status to screen readers; updates of numbers are never announced.
import { byId, setText } from "./dom.js";
import { nameOf } from "./statuses.js";

const NAMED = 3;
/** @type {Map<number, string>} */
const seen = new Map();

/** @param {string} text */
export function announce(text) {
  setText(byId("announcer"), text);
}

/** @param {Snapshot} snapshot */
export function announceChanges(snapshot) {
  const first = seen.size === 0;
  const changed = [];
  for (const partition of snapshot.partitions) {
    const { checkpoint_id: id, status } = partition;
    if (seen.get(id) !== status) changed.push(`${nameOf(partition)} is ${status}`);
    seen.set(id, status);
  }
  if (first || !changed.length) return;
  const more = changed.length > NAMED ? ` and ${changed.length - NAMED} more` : "";
  announce(`${changed.slice(0, NAMED).join(", ")}${more}.`);
}
