// The actions of operators and of the recovery manager, from the audit log.
import { undo } from "../actions/plans.js";
import { moment } from "../ui/format.js";
import { List, lead, text } from "../ui/table.js";
import { actionButton, words } from "./recovery.js";

const nameOf = ({ kind, target }) => `${words(kind)} ${target}`;

export class ActionsPanel {
  #list;

  constructor(operator) {
    this.#list = new List("actions", {
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

  show(snapshot) {
    this.#list.show(snapshot.recovery.actions, snapshot);
  }
}
