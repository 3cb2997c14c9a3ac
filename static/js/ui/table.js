// A table whose rows follow the snapshot: each is created once per key, and only what changed is written.
import { byId, keyed, make, setAttribute, setHidden, setText } from "./dom.js";

/**
 * A cell of text; `title` gives its tooltip.
 * @template Item
 * @param {(item: Item, snapshot: Snapshot) => string} read
 * @param {{ number?: boolean, title?: (item: Item, snapshot: Snapshot) => string | null }} options
 * @returns {Column<Item>}
 */
export function text(read, { number = false, title } = {}) {
  return {
    create: () => make("td", { class: number ? "num" : null }),
    update(cell, item, snapshot) {
      setText(cell, read(item, snapshot));
      if (title) setAttribute(cell, "title", title(item, snapshot));
    },
  };
}

/**
 * The row's header, in two lines: its name, and details below. `status` colours the row.
 * @template Item
 * @param {(item: Item, snapshot: Snapshot) => string} read
 * @param {(item: Item, snapshot: Snapshot) => string} below
 * @param {{ status?: (item: Item, snapshot: Snapshot) => string }} options
 * @returns {Column<Item>}
 */
export function lead(read, below, { status } = {}) {
  return {
    create() {
      const cell = make("th", { scope: "row" });
      cell.append(make("span", { class: "list-lead" }), make("span", { class: "list-below" }));
      return cell;
    },
    update(cell, item, snapshot) {
      setText(cell.firstChild, read(item, snapshot));
      setText(cell.lastChild, below(item, snapshot));
      if (status && cell.parentElement) setAttribute(cell.parentElement, "data-status", status(item, snapshot));
    },
  };
}

/** @typedef {{ root: HTMLElement, cells: HTMLTableCellElement[], buttons: HTMLButtonElement[] }} Row */

/** @template Item */
export class Table {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {Map<string, Item>} */
  #items = new Map();
  /** @type {Snapshot | null} */
  #snapshot = null;

  /**
   * @param {string} id
   * @param {{ columns: Column<Item>[], buttons: RowButton<Item>[], keyOf: (item: Item) => string | number }} options
   */
  constructor(id, { columns, buttons, keyOf }) {
    this.columns = columns;
    this.buttons = buttons;
    this.keyOf = keyOf;
    this.empty = byId(`${id}-empty`);
    /** @type {HTMLTableElement} */
    const table = byId(id);
    this.table = table;
    this.body = table.tBodies[0];
    // On a narrow screen a row is a card, and each cell has a label.
    this.labels = [...(table.tHead?.rows[0].cells ?? [])].map((head) => head.textContent.trim());
    this.body.addEventListener("click", (event) => this.#clicked(/** @type {Element} */ (event.target)));
  }

  /**
   * @param {Item[]} items
   * @param {Snapshot} snapshot
   */
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
      (row, item) => this.#update(row, item, snapshot),
    );
  }

  /** @param {Element} target */
  #clicked(target) {
    const button = target.closest("button");
    const item = this.#items.get(button?.closest("tr")?.dataset.key ?? "");
    if (!button || !item || !this.#snapshot) return;
    this.buttons.find(({ kind }) => kind === button.dataset.kind)?.press(item, this.#snapshot);
  }

  /** @param {Item} item */
  #create(item) {
    const cells = this.columns.map((column) => column.create());
    for (const [index, cell] of cells.entries()) if (index) setAttribute(cell, "data-label", this.labels[index]);
    const buttons = this.buttons.map(({ kind }) =>
      make("button", { type: "button", class: "button quiet", "data-kind": kind }),
    );
    const actions = make("td", { class: "list-buttons" }, ...buttons);
    return { root: make("tr", { "data-key": this.keyOf(item) }, ...cells, actions), cells, buttons };
  }

  /**
   * @param {Row} row
   * @param {Item} item
   * @param {Snapshot} snapshot
   */
  #update({ cells, buttons }, item, snapshot) {
    for (const [index, column] of this.columns.entries()) column.update(cells[index], item, snapshot);
    for (const [index, { fits, word, label }] of this.buttons.entries()) {
      const button = buttons[index];
      const fitting = fits(item, snapshot);
      setHidden(button, !fitting);
      if (!fitting) continue;
      setText(button, word(item));
      setAttribute(button, "aria-label", label(item));
    }
  }
}
