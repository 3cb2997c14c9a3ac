// The latest journal entries, newest first.
import { byId, icon, keyed, make, setHidden, setText } from "../ui/dom.js";
import { moment } from "../ui/format.js";

/** @type {Record<string, string>} */
const SHAPES = { info: "status-none", warning: "status-late", error: "status-halted" };
/** @type {Record<string, string>} */
const FAMILIES = { info: "", warning: "late", error: "halted" };
/** @type {Map<number, ReturnType<typeof create>>} */
const entries = new Map();

/** @param {JournalSnapshot} entry */
function create(entry) {
  const time = make("time", { datetime: entry.at, title: entry.at });
  const root = make(
    "li",
    { "data-status": FAMILIES[entry.level] ?? "", "data-kind": entry.kind },
    time,
    icon(SHAPES[entry.level] ?? "status-none"),
    make("span", { class: "visually-hidden" }, entry.level === "info" ? "" : `${entry.level}: `),
    make("span", { class: "journal-message" }, entry.message),
    make("span", { class: "journal-source" }, sourceOf(entry)),
  );
  return { root, time };
}

/**
 * The worker and the partition, unless the message names them.
 * @param {JournalSnapshot} entry
 */
function sourceOf({ message, worker_id: worker, topic, partition }) {
  const name = topic && partition !== null ? `${topic}-${partition}` : "";
  return [worker, name].filter((part) => part && !message.includes(part)).join(" · ");
}

/** @param {Snapshot} snapshot */
export function showJournal({ journal }) {
  setHidden(byId("journal-empty"), journal.length > 0);
  setHidden(byId("journal"), journal.length === 0);
  // Only the time changes: at midnight it becomes a date.
  keyed(
    byId("journal"),
    entries,
    journal,
    ({ id }) => id,
    create,
    (node, entry) => setText(node.time, moment(entry.at)),
  );
}
