// Ranges of offsets that were passed without being counted.
import { acceptFailed, replay } from "../actions/plans.js";
import { byId, make, setAttribute, setText } from "../ui/dom.js";
import { count, duration, exact, UNKNOWN } from "../ui/format.js";
import { nameOf } from "../ui/statuses.js";
import { lead, Table, text } from "../ui/table.js";
import { actionButton, limitNote, secondsBetween } from "./recovery.js";

/** @param {UncountedSnapshot} range */
const keyOf = ({ checkpoint_id: id, start, kind }) => `${id}:${start}:${kind}`;
/** @param {UncountedSnapshot} range */
const whereOf = (range) => `${nameOf(range)} from ${exact(range.start)}`;

/**
 * @param {UncountedSnapshot} range
 * @param {Snapshot} snapshot
 */
function nextRetry({ kind, retry_at: retry, attempts }, { taken_at: now }) {
  if (kind !== "failed") return UNKNOWN;
  const tried = attempts ? `, tried ${count(attempts, "time")}` : "";
  if (retry === null) return `none left${tried}`;
  return new Date(retry) <= new Date(now) ? `now${tried}` : `in ${duration(secondsBetween(now, retry))}${tried}`;
}

/** @type {Column<UncountedSnapshot>} */
const OUTCOME = {
  create: () => make("td", {}, make("span", { class: "swatch", "aria-hidden": "true" }), make("span")),
  update(cell, { kind, gone }) {
    setAttribute(cell.children[0], "data-kind", kind);
    setText(cell.lastChild, kind === "failed" && gone ? "failed, deleted from Kafka" : kind);
  },
};

export class UncountedPanel {
  /** @type {Table<UncountedSnapshot>} */
  #table;

  /** @param {Operator} operator */
  constructor(operator) {
    this.#table = new Table("uncounted", {
      keyOf,
      columns: [
        lead(
          (range) => nameOf(range),
          ({ detail }) => detail || UNKNOWN,
        ),
        OUTCOME,
        text(({ start }) => exact(start), { number: true }),
        text(({ end }) => exact(end), { number: true }),
        text(({ start, end }) => exact(end - start), { number: true }),
        text(nextRetry),
      ],
      buttons: [
        actionButton(operator, {
          kind: "replay",
          word: "Replay …",
          label: (range) => `Replay ${whereOf(range)}`,
          plan: (range) => replay(range.checkpoint_id, nameOf(range), [range]),
          fits: ({ kind, gone }) => kind !== "expired" && !gone,
        }),
        actionButton(operator, {
          kind: "accept",
          word: "Accept …",
          label: (range) => `Accept ${whereOf(range)} as uncounted`,
          plan: (range) => acceptFailed(range, nameOf(range)),
          fits: ({ kind }) => kind === "failed",
        }),
      ],
    });
  }

  /** @param {Snapshot} snapshot */
  show(snapshot) {
    const { uncounted } = snapshot.recovery;
    const offsets = uncounted.reduce((sum, { start, end }) => sum + end - start, 0);
    const total = `${count(offsets, "offset")} in ${count(uncounted.length, "range")}${limitNote(uncounted.length)}`;
    setText(byId("uncounted-sum"), uncounted.length ? total : "");
    this.#table.show(uncounted, snapshot);
  }
}
