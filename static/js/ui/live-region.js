// Says changes of status to those who listen instead of look; ticks are never announced.
import { byId, setText } from "./dom.js";
import { nameOf } from "./statuses.js";

const NAMED = 3;
const seen = new Map();

export function announce(words) {
  setText(byId("announcer"), words);
}

export function announceChanges(snapshot) {
  const first = seen.size === 0;
  const changed = [];
  for (const one of snapshot.partitions) {
    const before = seen.get(one.checkpoint_id);
    if (before !== one.status) changed.push(`${nameOf(one)} is ${one.status}`);
    seen.set(one.checkpoint_id, one.status);
  }
  if (first || !changed.length) return;
  const more = changed.length > NAMED ? ` and ${changed.length - NAMED} more` : "";
  announce(`${changed.slice(0, NAMED).join(", ")}${more}.`);
}
