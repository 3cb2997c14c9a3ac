// Replays, the active ones first, with their progress.
import { cancelReplay, progressOf } from "../actions/plans.js";
import { byId, make, setAttribute, setText } from "../ui/dom.js";
import { count, exact } from "../ui/format.js";
import { lead, Table, text } from "../ui/table.js";
import { actionButton } from "./recovery.js";

/** @param {ReplaySnapshot} replay */
const isActive = ({ status }) => status === "queued" || status === "running";

/** @type {Column<ReplaySnapshot>} */
const PROGRESS = {
  create: () =>
    make(
      "td",
      { class: "list-progress" },
      make("progress", { "aria-label": "Progress" }),
      make("span", { class: "list-below" }),
    ),
  update(cell, replay) {
    setAttribute(cell.children[0], "max", Math.max(1, replay.total_offsets));
    setAttribute(cell.children[0], "value", replay.total_offsets ? replay.done_offsets : 1);
    setText(cell.lastChild, progressOf(replay));
  },
};

/** @param {ReplaySnapshot} replay */
function statusText({ status, cancel_requested: cancelled, starts }) {
  const word = cancelled && status === "running" ? "stopping" : status;
  return word + (starts > 1 ? `, started ${count(starts, "time")}` : "");
}

export class ReplaysPanel {
  /** @type {Table<ReplaySnapshot>} */
  #table;

  /** @param {Operator} operator */
  constructor(operator) {
    this.#table = new Table("replays", {
      keyOf: ({ id }) => id,
      columns: [
        lead(
          ({ id, username, automatic }) => `${id} by ${automatic ? "the recovery manager" : username}`,
          ({ reason, detail }) => [reason, detail].filter(Boolean).join(" – "),
          { status: ({ status }) => (status === "failed" ? "halted" : "") },
        ),
        text(statusText),
        PROGRESS,
        text(({ counted }) => exact(counted), { number: true }),
        text(({ deduplicated }) => exact(deduplicated), { number: true }),
        text(({ dead_letters: number }) => exact(number), { number: true }),
        text(({ expired_offsets: number }) => exact(number), { number: true }),
      ],
      buttons: [
        actionButton(operator, {
          kind: "cancel",
          word: "Cancel …",
          label: ({ id }) => `Cancel replay ${id}`,
          plan: cancelReplay,
          fits: (replay) => isActive(replay) && !replay.cancel_requested,
        }),
      ],
    });
  }

  /** @param {Snapshot} snapshot */
  show(snapshot) {
    const { replays } = snapshot.recovery;
    const active = replays.filter(isActive).length;
    setText(byId("replays-sum"), replays.length ? (active ? `${exact(active)} active` : "None active") : "");
    this.#table.show(replays, snapshot);
  }
}
