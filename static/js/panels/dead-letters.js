// Pending dead letters, with a filter by error and partition; the buttons above act on all that it matches.
import { ofDeadLetters } from "../actions/plans.js";
import { byId, make, setText } from "../ui/dom.js";
import { count, exact, moment } from "../ui/format.js";
import { nameOf } from "../ui/statuses.js";
import { List, lead, text } from "../ui/table.js";
import { showDeadLetter } from "./detail-dialog.js";
import { actionButton, limitNote } from "./recovery.js";

const KINDS = { requeue: "Requeue", discard: "Discard" };

const whereOf = (deadLetter) => `${nameOf(deadLetter)} offset ${exact(deadLetter.offset)}`;

const rowButton = (operator, kind) =>
  actionButton(operator, {
    kind,
    word: `${KINDS[kind]} …`,
    label: (deadLetter) => `${KINDS[kind]} ${whereOf(deadLetter)}`,
    plan: (deadLetter) => ofDeadLetters(kind, { ids: [deadLetter.id] }, `the dead letter of ${whereOf(deadLetter)}`),
  });

export class DeadLettersPanel {
  #list;
  #snapshot = null;

  constructor(operator) {
    this.#list = new List("dead-letters", {
      columns: [
        lead(nameOf, () => ""),
        text(({ offset }) => exact(offset), { number: true }),
        text(({ error_code: code, error_detail: detail }) => `${code}: ${detail}`, {
          title: ({ error_detail: detail }) => detail,
        }),
        text(({ value, value_bytes: bytes }) => (bytes === null ? "tombstone" : (value ?? count(bytes, "byte"))), {
          title: ({ value }) => value,
        }),
        text(({ created_at: created }) => moment(created)),
      ],
      buttons: [
        {
          kind: "look",
          word: () => "Inspect",
          label: (deadLetter) => `Inspect ${whereOf(deadLetter)}`,
          fits: () => true,
          press: showDeadLetter,
        },
        ...Object.keys(KINDS).map((kind) => rowButton(operator, kind)),
      ],
    });
    for (const kind of Object.keys(KINDS)) {
      byId(`dead-letters-${kind}`)?.addEventListener("click", () =>
        operator.open(ofDeadLetters(kind, this.#filter(), "all matching dead letters")),
      );
    }
    for (const id of ["dead-letters-code", "dead-letters-partition"]) {
      byId(id).addEventListener("change", () => this.#snapshot && this.show(this.#snapshot));
    }
  }

  show(snapshot) {
    this.#snapshot = snapshot;
    const { dead_letters: listed } = snapshot.recovery;
    const { dead_letters: pending } = snapshot;
    setText(byId("dead-letters-sum"), pending ? `${exact(pending)} pending${limitNote(listed.length)}` : "");
    updateOptions(byId("dead-letters-code"), [...new Set(listed.map(({ error_code: code }) => code))].sort());
    updateOptions(
      byId("dead-letters-partition"),
      snapshot.partitions.filter(({ dead_letters: number }) => number).map(nameOf),
    );
    for (const kind of Object.keys(KINDS)) {
      const button = byId(`dead-letters-${kind}`);
      if (button) button.disabled = !pending;
    }
    this.#list.show(listed.filter(matcher(this.#filter())), snapshot);
  }

  /** As the server takes it. */
  #filter() {
    const code = byId("dead-letters-code").value || undefined;
    const name = byId("dead-letters-partition").value;
    const chosen = this.#snapshot?.partitions.find((partition) => nameOf(partition) === name);
    return { error_code: code, topic: chosen?.topic, partition: chosen?.partition };
  }
}

const matcher = (filter) => (deadLetter) =>
  Object.entries(filter).every(([field, value]) => value === undefined || deadLetter[field] === value);

/** Keep a select's options in step with `values`; the chosen one stays selected. */
function updateOptions(select, values) {
  const chosen = select.value;
  const options = ["", ...new Set(chosen ? [...values, chosen] : values)];
  if ([...select.options].map(({ value }) => value).join("\n") === options.join("\n")) return;
  select.replaceChildren(...options.map((value) => make("option", { value }, value || "All")));
  select.value = chosen;
}
