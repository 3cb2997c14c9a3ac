// The actions of operators and of the recovery manager, from the audit log.
import { undo } from "../actions/plans.js";
import { moment } from "../ui/format.js";
import { lead, Table, text } from "../ui/table.js";
import { actionButton, kindName } from "./recovery.js";

/** @param {ActionSnapshot} action */
const nameOf = ({ kind, target }) => `${kindName(kind)} ${target}`;

export class ActionsPanel {
  /** @type {Table<ActionSnapshot>} */
  #table;

  /** @param {Operator} operator */
  constructor(operator) {
    this.#table = new Table("actions", {
      keyOf: ({ id }) => id,
      columns: [
        lead(nameOf, ({ reason, detail }) => [reason, detail].filter(Boolean).join(" – "), {
          status: ({ outcome }) => (outcome === "applied" ? "" : "late"),
        }),
        text(({ at: applied }) => moment(applied)),
        text(({ username, source }) => `${username} (${source})`),
        text(({ outcome, undone }) => (undone ? "undone" : outcome)),
      ],
      buttons: [
        actionButton(operator, {
          kind: "undo",
          word: "Undo …",
          label: (action) => `Undo ${nameOf(action)}`,
          plan: undo,
          fits: ({ undoable }) => undoable,
        }),
      ],
    });
  }

  /** @param {Snapshot} snapshot */
  show(snapshot) {
    this.#table.show(snapshot.recovery.actions, snapshot);
  }
}
