// The details below a partition's row: its status, the strip at full width, and every range.
import { make, setAttribute, setHidden, setText } from "../ui/dom.js";
import { count, duration, exact, moment, percent, UNKNOWN } from "../ui/format.js";
import { isFine, nameOf, storeName } from "../ui/statuses.js";
import { drawStrip, extent, inWords } from "./strip.js";

const COLUMNS = 11;
const HEADS = ["Outcome", "From offset", "To (exclusive)", "Offsets", "Records counted", "Records failed"];

/** @type {Record<string, string>} */
const FACTS = {
  state: "Desired state",
  since: "Status since",
  eta: "ETA",
  committed: "Last commit",
  transaction: "Open transaction",
  lost: "Lost before reading",
  deadLetters: "Pending dead letters",
  progress: "Log progress",
  semantics: "Semantics",
  stores: "Other stores",
};

/**
 * The actions besides pausing; which of them fit depends on the halt reason.
 * @type {Record<string, { word: string, text: string, fits: (partition: PartitionSnapshot) => boolean }>}
 */
const ACTIONS = {
  seek: {
    word: "Seek",
    text: "Seek to an offset …",
    fits: ({ halt_reason: why }) => !["recreated", "truncated"].includes(why),
  },
  skip: {
    word: "Skip offsets of",
    text: "Skip to an offset …",
    fits: ({ halt_reason: why }) => !why || why === "unreadable",
  },
  replay: { word: "Replay offsets of", text: "Replay offsets …", fits: ({ halt_reason: why }) => why !== "recreated" },
  accept_loss: { word: "Accept loss of", text: "Accept loss …", fits: ({ halt_reason: why }) => why === "expired" },
  rebuild: { word: "Rebuild", text: "Rebuild …", fits: ({ halt_reason: why }) => why !== "recreated" },
  restart: {
    word: "Restart",
    text: "Restart, keep counts …",
    fits: ({ halt_reason: why }) => ["recreated", "truncated"].includes(why),
  },
  retire: { word: "Retire the topic of", text: "Retire topic …", fits: ({ owner }) => !owner },
};

/**
 * Whether a store needs an update. One that follows a moving partition is a little behind, which is normal.
 * @param {PartitionSnapshot} partition
 * @param {string} store
 */
function differs({ drift, owner, desired_state: state }, store) {
  if (!(store in drift) || drift[store] === 0) return false;
  const ahead = drift[store];
  return ahead === null || ahead > 0 || !owner || state === "paused";
}

for (const store of ["kafka", "redis", "file"]) {
  ACTIONS[`reconcile:${store}`] = {
    word: `Reconcile ${storeName(store)} store of`,
    text: `Reconcile ${storeName(store)} store …`,
    fits: (partition) => differs(partition, store),
  };
}

/** @param {string} kind */
const actionButton = (kind) =>
  make("button", { type: "button", class: "button act", "data-action": kind }, ACTIONS[kind].text);

/**
 * How far a store is from the ledger.
 * @param {number | null} by
 */
function drifted(by) {
  if (by === null) return "empty";
  if (by === 0) return "in sync";
  return by < 0 ? `${exact(-by)} behind` : `${exact(by)} ahead`;
}

/**
 * The records that no reader reaches until a producer ends its transaction.
 * @param {PartitionSnapshot} partition
 */
function inTransaction({ open_transaction_records: records, open_transaction_since: since }) {
  if (records === null) return UNKNOWN;
  if (!records) return "none";
  return count(records, "record") + (since ? ` since ${moment(since)}` : "");
}

export class PartitionDetails {
  #key = "";

  /**
   * @param {number} id
   * @param {boolean} canOperate
   */
  constructor(id, canOperate) {
    this.sentence = make("p", { class: "details-sentence" });
    this.strip = make("canvas", { class: "strip strip-wide", role: "img", "data-id": id });
    this.from = make("span");
    this.to = make("span");
    this.facts = Object.fromEntries(Object.keys(FACTS).map((name) => [name, make("dd")]));
    const facts = Object.entries(FACTS).map(([name, title]) =>
      make("div", {}, make("dt", {}, title), this.facts[name]),
    );
    this.body = make("tbody");
    const heads = HEADS.map((title, index) => make("th", { scope: "col", class: index ? "num" : null }, title));
    const table = make("table", { class: "ranges" }, make("thead", {}, make("tr", {}, ...heads)), this.body);
    const scroll = make(
      "div",
      { class: "scroll ranges-scroll", tabindex: 0, role: "group", "aria-label": "Ranges of the ledger" },
      table,
    );
    const axis = make("p", { class: "strip-axis" }, this.from, this.to);
    const inner = make(
      "div",
      { class: "details" },
      this.sentence,
      make("div", {}, this.strip, axis),
      make("dl", { class: "facts" }, ...facts),
      scroll,
    );
    this.buttons = canOperate ? Object.fromEntries(Object.keys(ACTIONS).map((kind) => [kind, actionButton(kind)])) : {};
    if (canOperate) inner.append(make("div", { class: "details-actions" }, ...Object.values(this.buttons)));
    this.root = make(
      "tr",
      { role: "row", id: `details-${id}`, class: "details-row", hidden: true },
      make("td", { role: "cell", colspan: COLUMNS }, inner),
    );
  }

  /** @param {PartitionSnapshot} partition */
  update(partition) {
    const { start, end } = extent(partition);
    setText(this.sentence, partition.status_detail);
    setText(this.from, `Log start: ${exact(partition.log_start_offset)}`);
    setText(this.to, `Log end: ${exact(partition.log_end_offset)}`);
    setText(
      this.facts.state,
      partition.desired_state + (partition.halt_reason ? `, halted (${partition.halt_reason})` : ""),
    );
    setText(this.facts.since, partition.status_since ? moment(partition.status_since) : UNKNOWN);
    const fine = partition.lag !== null && isFine(partition.status) ? "keeping up" : duration(partition.eta_seconds);
    setText(this.facts.eta, partition.lag === 0 ? "caught up" : fine);
    setText(this.facts.transaction, inTransaction(partition));
    setText(this.facts.lost, count(partition.lost_offsets, "offset"));
    setText(this.facts.committed, partition.committed_at ? moment(partition.committed_at) : UNKNOWN);
    setAttribute(this.facts.committed, "title", partition.committed_at);
    setText(this.facts.deadLetters, exact(partition.dead_letters));
    const known = partition.log_end_offset !== null && end > start;
    setText(this.facts.progress, known ? percent(Math.max(0, partition.next_offset - start), end - start) : UNKNOWN);
    const again = partition.duplicates ? `, ${exact(partition.duplicates)} records counted twice` : "";
    setText(this.facts.semantics, partition.semantics.replaceAll("_", " ") + again);
    setText(
      this.facts.stores,
      Object.entries(partition.drift)
        .map(([store, by]) => `${storeName(store)}: ${drifted(by)}`)
        .join(", ") || UNKNOWN,
    );
    setAttribute(this.strip, "aria-label", inWords(partition));
    for (const [kind, button] of Object.entries(this.buttons)) {
      setHidden(button, !ACTIONS[kind].fits(partition));
      setAttribute(button, "aria-label", `${ACTIONS[kind].word} ${nameOf(partition)}`);
    }
    this.#updateRanges(partition);
  }

  /**
   * @param {PartitionSnapshot} partition
   * @param {Paint} paint
   */
  draw(partition, paint) {
    drawStrip(this.strip, partition, paint);
  }

  /** @param {PartitionSnapshot} partition */
  #updateRanges(partition) {
    const { ranges, log_start_offset: logStart, log_end_offset: logEnd, next_offset: next } = partition;
    const passed = Math.max(next, ranges.at(-1)?.end ?? 0);
    const read = Math.max(passed, logStart ?? 0);
    /** @type {[string, number, number, number | null, number | null][]} */
    const rows = ranges.map((range) => [range.kind, range.start, range.end, range.records, range.failed_records]);
    if (read > passed) rows.push(["expired", passed, read, null, null]);
    if (logEnd !== null && logEnd > read) rows.push(["unread", read, logEnd, null, null]);
    // Newest first: the live end of the log is the most interesting.
    rows.reverse();
    const key = rows.map((row) => row[0]).join();
    if (key !== this.#key) {
      this.#key = key;
      this.body.replaceChildren(...rows.map(([kind]) => rangeRow(kind)));
    }
    rows.forEach(([, from, to, records, failed], index) => {
      const cells = this.body.rows[index].cells;
      for (const [column, value] of [from, to, to - from, records, failed].entries()) {
        setText(cells[column + 1], exact(value));
      }
      setAttribute(this.body.rows[index], "title", count(to - from, "offset"));
    });
  }
}

/** @param {string} kind */
function rangeRow(kind) {
  const swatch = make("span", { class: "swatch", "data-kind": kind, "aria-hidden": "true" });
  const numbers = HEADS.slice(1).map(() => make("td", { class: "num" }));
  return make("tr", {}, make("th", { scope: "row" }, swatch, kind), ...numbers);
}
