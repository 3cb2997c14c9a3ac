// What happened lately, newest first, in the words of those it happened to.
import { byId, icon, keyed, make, setHidden, setText } from "../ui/dom.js";
import { moment } from "../ui/format.js";

const SHAPES = { info: "status-none", warning: "status-late", error: "status-halted" };
const FAMILIES = { info: "", warning: "late", error: "halted" };
const entries = new Map();

function create(entry) {
  const at = make("time", { datetime: entry.at, title: entry.at });
  const root = make(
    "li",
    { "data-status": FAMILIES[entry.level] ?? "", "data-kind": entry.kind },
    at,
    icon(SHAPES[entry.level] ?? "status-none"),
    make("span", { class: "visually-hidden" }, entry.level === "info" ? "" : `${entry.level}: `),
    make("span", { class: "journal-message" }, entry.message),
    make("span", { class: "journal-who" }, whoIn(entry)),
  );
  return { root, at };
}

/** Named beside the message only where the message does not name them. */
function whoIn({ message, worker_id: worker, topic, partition }) {
  const name = topic && partition !== null ? `${topic}-${partition}` : "";
  return [worker, name].filter((one) => one && !message.includes(one)).join(" · ");
}

export function showJournal({ journal }) {
  setHidden(byId("journal-empty"), journal.length > 0);
  setHidden(byId("journal"), journal.length === 0);
  // The time of day becomes a date at midnight.
  keyed(
    byId("journal"),
    entries,
    journal,
    (one) => one.id,
    create,
    (node, entry) => setText(node.at, moment(entry.at)),
  );
}
