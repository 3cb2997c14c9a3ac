// Replays, the active ones first, with their progress.
import { cancelReplay, progressOf } from "../actions/plans.js";
import { byId, make, setAttribute, setText } from "../ui/dom.js";
import { count, exact } from "../ui/format.js";
import { List, lead, text } from "../ui/table.js";
import { actionButton } from "./recovery.js";

const isActive = ({ status }) => status === "queued" || status === "running";

const PROGRESS = {
  create: () =>
    make(
      "td",
      { class: "list-progress" },
      make("progress", { "aria-label": "Progress" }),
      make("span", { class: "list-below" }),
    ),
  update(cell, replay) {
    setAttribute(cell.firstChild, "max", Math.max(1, replay.total_offsets));
    setAttribute(cell.firstChild, "value", replay.total_offsets ? replay.done_offsets : 1);
    setText(cell.lastChild, progressOf(replay));
  },
};

function statusText({ status, cancel_requested: cancelled, starts }) {
  const word = cancelled && status === "running" ? "stopping" : status;
  return word + (starts > 1 ? `, started ${count(starts, "time")}` : "");
}

export class ReplaysPanel {
  #list;

  constructor(operator) {
    this.#list = new List("replays", {
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

  show(snapshot) {
    const { replays } = snapshot.recovery;
    const active = replays.filter(isActive).length;
    setText(byId("replays-sum"), replays.length ? (active ? `${exact(active)} active` : "None active") : "");
    this.#list.show(replays, snapshot);
  }
}
