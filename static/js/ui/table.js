// A table whose rows follow the snapshot: made once per key, and only what changed is written.
import { byId, keyed, make, setAttribute, setHidden, setText } from "./dom.js";

/** A cell of text; `read(item, snapshot)` gives it, `title` what it says in full. */
export function text(read, { number = false, title = null } = {}) {
  return {
    create: () => make("td", { class: number ? "num" : null }),
    update(cell, item, snapshot) {
      setText(cell, read(item, snapshot));
      if (title) setAttribute(cell, "title", title(item, snapshot));
    },
  };
}

/** A cell of two lines: what it is, and below it what is to be said of it. `status` colours the row. */
export function lead(read, below, { status = null } = {}) {
  return {
    create() {
      const cell = make("th", { scope: "row" });
      cell.append(make("span", { class: "list-lead" }), make("span", { class: "list-below" }));
      return cell;
    },
    update(cell, item, snapshot) {
      setText(cell.firstChild, read(item, snapshot));
      setText(cell.lastChild, below(item, snapshot));
      if (status) setAttribute(cell.parentNode, "data-status", status(item, snapshot));
    },
  };
}

export class List {
  #rows = new Map();
  #items = new Map();
  #snapshot = null;

  /** `buttons`: [{ kind, word(item), label(item), fits(item, snapshot), press(item, snapshot) }]; `keyOf` names a row. */
  constructor(id, { columns, buttons, keyOf = (item) => item.id }) {
    this.columns = columns;
    this.buttons = buttons;
    this.keyOf = keyOf;
    this.empty = byId(`${id}-empty`);
    this.table = byId(id);
    this.body = this.table.tBodies[0];
    // On a narrow screen a row is a card, and each cell says what it is.
    this.labels = [...this.table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    this.body.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const item = this.#items.get(button.closest("tr").dataset.key);
      this.buttons.find((one) => one.kind === button.dataset.kind).press(item, this.#snapshot);
    });
  }

  show(items, snapshot) {
    this.#snapshot = snapshot;
    this.#items = new Map(items.map((item) => [String(this.keyOf(item)), item]));
    setHidden(this.table, items.length === 0);
    setHidden(this.empty, items.length > 0);
    keyed(
      this.body,
      this.#rows,
      items,
      (item) => String(this.keyOf(item)),
      (item) => this.#create(item),
      (row, item) => this.#update(row, item),
    );
  }

  #create(item) {
    const cells = this.columns.map((column) => column.create());
    cells.forEach((cell, index) => index && setAttribute(cell, "data-label", this.labels[index]));
    const made = this.buttons.map(({ kind }) =>
      make("button", { type: "button", class: "button quiet", "data-kind": kind }),
    );
    const root = make("tr", { "data-key": this.keyOf(item) }, ...cells, make("td", { class: "list-buttons" }, ...made));
    return { root, cells, made };
  }

  #update({ cells, made }, item) {
    this.columns.forEach((column, index) => column.update(cells[index], item, this.#snapshot));
    this.buttons.forEach((button, index) => {
      const fits = button.fits(item, this.#snapshot);
      setHidden(made[index], !fits);
      if (!fits) return;
      setText(made[index], button.word(item));
      setAttribute(made[index], "aria-label", button.label(item));
    });
  }
}
