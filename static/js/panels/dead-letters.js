// Pending dead letters, with a filter by error and partition; the buttons above act on all that it matches.
import { ofDeadLetters } from "../actions/plans.js";
import { byId, make, setText } from "../ui/dom.js";
import { count, exact, moment } from "../ui/format.js";
import { nameOf } from "../ui/statuses.js";
import { lead, Table, text } from "../ui/table.js";
import { showDeadLetter } from "./detail-dialog.js";
import { actionButton, limitNote } from "./recovery.js";

/** @type {Record<string, string>} */
const KINDS = { requeue: "Requeue", discard: "Discard" };

/** @param {DeadLetterSnapshot} deadLetter */
const whereOf = (deadLetter) => `${nameOf(deadLetter)} offset ${exact(deadLetter.offset)}`;

/** @type {(operator: Operator, kind: string) => RowButton<DeadLetterSnapshot>} */
const rowButton = (operator, kind) =>
  actionButton(operator, {
    kind,
    word: `${KINDS[kind]} …`,
    label: (deadLetter) => `${KINDS[kind]} ${whereOf(deadLetter)}`,
    plan: (deadLetter) => ofDeadLetters(kind, { ids: [deadLetter.id] }, `the dead letter of ${whereOf(deadLetter)}`),
  });

export class DeadLettersPanel {
  /** @type {Table<DeadLetterSnapshot>} */
  #table;
  /** @type {HTMLSelectElement} */
  #code = byId("dead-letters-code");
  /** @type {HTMLSelectElement} */
  #partition = byId("dead-letters-partition");
  /** Only operators have them. @type {HTMLButtonElement[]} */
  #buttons = [];
  /** @type {Snapshot | null} */
  #snapshot = null;

  /** @param {Operator} operator */
  constructor(operator) {
    this.#table = new Table("dead-letters", {
      keyOf: ({ id }) => id,
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
      const button = /** @type {HTMLButtonElement | null} */ (document.getElementById(`dead-letters-${kind}`));
      if (!button) continue;
      this.#buttons.push(button);
      button.addEventListener("click", () =>
        operator.open(ofDeadLetters(kind, this.#filter(), "all matching dead letters")),
      );
    }
    for (const select of [this.#code, this.#partition]) {
      select.addEventListener("change", () => this.#snapshot && this.show(this.#snapshot));
    }
  }

  /** @param {Snapshot} snapshot */
  show(snapshot) {
    this.#snapshot = snapshot;
    const { dead_letters: listed } = snapshot.recovery;
    const { dead_letters: pending } = snapshot;
    setText(byId("dead-letters-sum"), pending ? `${exact(pending)} pending${limitNote(listed.length)}` : "");
    updateOptions(this.#code, [...new Set(listed.map(({ error_code: code }) => code))].sort());
    updateOptions(this.#partition, snapshot.partitions.filter(({ dead_letters: number }) => number).map(nameOf));
    for (const button of this.#buttons) button.disabled = !pending;
    this.#table.show(listed.filter(matcher(this.#filter())), snapshot);
  }

  /** @returns {DeadLetterFilter} */
  #filter() {
    const code = this.#code.value || undefined;
    const name = this.#partition.value;
    const chosen = this.#snapshot?.partitions.find((partition) => nameOf(partition) === name);
    return { error_code: code, topic: chosen?.topic, partition: chosen?.partition };
  }
}

/** @type {(filter: DeadLetterFilter) => (deadLetter: DeadLetterSnapshot) => boolean} */
const matcher = (filter) => (deadLetter) =>
  Object.entries(filter).every(
    ([field, value]) => value === undefined || deadLetter[/** @type {keyof DeadLetterFilter} */ (field)] === value,
  );

/**
 * Keep a select's options in step with `values`; the chosen one stays selected.
 * @param {HTMLSelectElement} select
 * @param {string[]} values
 */
function updateOptions(select, values) {
  const chosen = select.value;
  const options = ["", ...new Set(chosen ? [...values, chosen] : values)];
  if ([...select.options].map(({ value }) => value).join("\n") === options.join("\n")) return;
  select.replaceChildren(...options.map((value) => make("option", { value }, value || "All")));
  select.value = chosen;
}
