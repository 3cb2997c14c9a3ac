// The details of a dead letter, decoded and raw, or of an incident, with its timeline and evidence.
import { ActionError, read } from "../actions/client.js";
import { byId, make, setText } from "../ui/dom.js";
import { count, duration, exact, moment, UNKNOWN } from "../ui/format.js";
import { nameOf } from "../ui/statuses.js";
import { kindName } from "./recovery.js";

/** Numbers the requests, so that only the answer to the last one is shown. */
let asked = 0;

/**
 * Opens at once, and fills when the server has answered.
 * @param {string} title
 * @param {string} path
 * @param {(answer: any) => [Record<string, string>, string]} show
 */
async function open(title, path, show) {
  asked += 1;
  const request = asked;
  fill(title, {}, "Loading …");
  /** @type {HTMLDialogElement} */ (byId("record")).showModal();
  try {
    const [facts, text] = show(await read(path));
    if (request === asked) fill(title, facts, text);
  } catch (error) {
    if (!(error instanceof ActionError)) throw error;
    if (request === asked) fill(title, {}, error.message);
  }
}

/**
 * @param {string} title
 * @param {Record<string, string>} facts
 * @param {string} text
 */
function fill(title, facts, text) {
  setText(byId("record-title"), title);
  const pairs = Object.entries(facts).filter(([, value]) => value);
  byId("record-facts").replaceChildren(
    ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
  );
  setText(byId("record-text"), text);
}

/** @param {DeadLetterSnapshot} deadLetter */
export const showDeadLetter = ({ id, topic, partition, offset }) =>
  open(`${topic}-${partition} at offset ${exact(offset)}`, `api/dead-letters/${id}/`, (deadLetter) => [
    {
      Error: `${deadLetter.error_code}: ${deadLetter.error_detail}`,
      Status: deadLetter.status,
      "Dead-lettered at": moment(deadLetter.created_at),
      "Record timestamp": deadLetter.record_timestamp ? moment(deadLetter.record_timestamp) : UNKNOWN,
      Key: deadLetter.key ?? (deadLetter.key_base64 === null ? "none" : `${deadLetter.key_base64} (base64)`),
      Headers: deadLetter.headers
        .map((/** @type {[string, string | null]} */ [name, value]) => `${name}: ${value ?? "not UTF-8"}`)
        .join("; "),
      Value: deadLetter.value_bytes === null ? "none (tombstone)" : count(deadLetter.value_bytes, "byte"),
    },
    valueText(deadLetter),
  ]);

/** @param {{ value: string | null, value_base64: string | null }} deadLetter */
function valueText({ value, value_base64: raw }) {
  if (raw === null) return "Tombstone: the record has no value.";
  const decoded = value === null ? "Not valid UTF-8." : checked(value);
  return `Decoded\n${decoded}\n\nRaw (base64)\n${raw}`;
}

/**
 * The value with a note where it is not JSON. It is not reformatted: a browser would round large numbers.
 * @param {string} value
 */
function checked(value) {
  try {
    JSON.parse(value);
    return value;
  } catch (error) {
    return `${value}\n\nNot valid JSON: ${error instanceof Error ? error.message : error}`;
  }
}

/** @param {IncidentSnapshot} incident */
export const showIncident = ({ id, kind, subject }) =>
  open(`${kindName(kind)}: ${subject}`, `api/incidents/${id}/`, (incident) => [
    {
      Severity: incident.severity,
      Started: moment(incident.began_at),
      Detected: `${moment(incident.opened_at)}, after ${duration(incident.detect_seconds)}`,
      Recovered: incident.closed_at
        ? `${moment(incident.closed_at)}, after ${duration(incident.recover_seconds)}`
        : "not yet",
      Offsets: incident.ranges
        .map(
          (/** @type {UncountedSnapshot} */ range) =>
            `${nameOf(range)} [${exact(range.start)}, ${exact(range.end)}) ${range.kind}`,
        )
        .join("; "),
      Notifications: incident.notifications
        .map((/** @type {Record<string, string>} */ { channel, event, status }) => `${channel} ${event}: ${status}`)
        .join("; "),
    },
    [
      incident.summary,
      "",
      ...incident.timeline.map(
        (/** @type {TimelineSnapshot} */ step) => `${moment(step.at)}  ${step.source}: ${step.text}`,
      ),
      ...evidenceLines(incident.evidence),
    ].join("\n"),
  ]);

/** @param {string} evidence */
const evidenceLines = (evidence) => (evidence ? ["", "Evidence", evidence] : []);
