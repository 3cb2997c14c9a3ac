// One thing in full: a dead letter, decoded and raw, or an incident with its timeline and what was seen.
import { ActionError, read } from "../actions/client.js";
import { byId, make, setText } from "../ui/dom.js";
import { count, duration, exact, moment, UNKNOWN } from "../ui/format.js";
import { words } from "./recovery.js";

let asked = 0;

/** Opens at once, and fills when the server has answered; the last one asked for wins. */
async function open(title, path, show) {
  const mine = (asked += 1);
  fill(title, {}, "Loading …");
  byId("record").showModal();
  try {
    const [facts, text] = show(await read(path));
    if (mine === asked) fill(title, facts, text);
  } catch (error) {
    if (!(error instanceof ActionError)) throw error;
    if (mine === asked) fill(title, {}, error.message);
  }
}

function fill(title, facts, text) {
  setText(byId("record-title"), title);
  const pairs = Object.entries(facts).filter(([, value]) => value);
  byId("record-facts").replaceChildren(
    ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
  setText(byId("record-text"), text);
}

export const showDeadLetter = ({ id, topic, partition, offset }) =>
  open(`${topic}-${partition} at offset ${exact(offset)}`, `/api/dead-letters/${id}/`, (deadLetter) => [
    {
      Error: `${deadLetter.error_code}: ${deadLetter.error_detail}`,
      Status: deadLetter.status,
      "Dead-lettered at": moment(deadLetter.created_at),
      "Record timestamp": deadLetter.record_timestamp ? moment(deadLetter.record_timestamp) : UNKNOWN,
      Key: deadLetter.key ?? (deadLetter.key_base64 === null ? "none" : `${deadLetter.key_base64} (base64)`),
      Headers: deadLetter.headers.map(([name, value]) => `${name}: ${value ?? "not UTF-8"}`).join("; "),
      Value: deadLetter.value_bytes === null ? "none (tombstone)" : count(deadLetter.value_bytes, "byte"),
    },
    valueOf(deadLetter),
  ]);

function valueOf({ value, value_base64: raw }) {
  if (raw === null) return "Tombstone: the record has no value.";
  const decoded = value === null ? "Not valid UTF-8." : pretty(value);
  return `Decoded\n${decoded}\n\nRaw (base64)\n${raw}`;
}

/** Indented where it is JSON; the numbers stay as they were written, since a browser would round large ones. */
function pretty(value) {
  try {
    JSON.parse(value);
    return value;
  } catch (error) {
    return `${value}\n\nNot valid JSON: ${error.message}`;
  }
}

export const showIncident = ({ id, kind, subject }) =>
  open(`${words(kind)}: ${subject}`, `/api/incidents/${id}/`, (one) => [
    {
      Severity: one.severity,
      Started: moment(one.began_at),
      Detected: `${moment(one.opened_at)}, after ${duration(one.detect_seconds)}`,
      Recovered: one.closed_at ? `${moment(one.closed_at)}, after ${duration(one.recover_seconds)}` : "not yet",
      Offsets: one.ranges
        .map((each) => `${each.topic}-${each.partition} [${exact(each.start)}, ${exact(each.end)}) ${each.kind}`)
        .join("; "),
      Notifications: one.notifications.map((each) => `${each.channel} ${each.event}: ${each.status}`).join("; "),
    },
    [
      one.summary,
      "",
      ...one.timeline.map((step) => `${moment(step.at)}  ${step.source}: ${step.text}`),
      ...seen(one.evidence),
    ].join("\n"),
  ]);

const seen = (evidence) => (evidence ? ["", "Evidence", evidence] : []);
