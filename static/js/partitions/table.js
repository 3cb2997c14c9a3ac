// The partition table. Snapshots change cells only; the operator chooses the order.

import { byId, setAttribute, setHidden, setText } from "../ui/dom.js";
import { count, exact } from "../ui/format.js";
import { tally } from "../ui/statuses.js";
import { onTheme } from "../ui/theme.js";
import { hideTooltip, showTooltip } from "../ui/tooltip.js";
import { PartitionRow } from "./row.js";
import { firstDirection, matches, sorted, worstFirst } from "./sorting.js";
import { under } from "./strip.js";
import { makePaint } from "./strip-paint.js";

const FILTER_FROM = 13; // more rows than one screen holds
const NEAR = "200px";

/** @param {Element} node in the `tbody` of a partition */
const idOf = (node) => Number(node.closest("tbody")?.dataset.id);

export class Partitions {
  /** @type {Map<number, PartitionRow>} */
  #rows = new Map();
  #order = { key: "status", direction: "descending" };
  /** @type {Paint | null} */
  #paint = null;
  #canOperate;
  #retired = 0;
  /** @type {HTMLTableElement} */
  #table = byId("partitions");
  /** @type {HTMLSelectElement} */
  #sortSelect = byId("sort-select");
  /** @type {HTMLInputElement} */
  #filterInput = byId("filter");

  /**
   * @param {boolean} canOperate
   * @param {(action: string, id: number) => void} onAction
   */
  constructor(canOperate, onAction) {
    this.#canOperate = canOperate;
    setAttribute(this.#table, "data-can-operate", canOperate ? "yes" : "no");
    this.seen = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: NEAR });
    new ResizeObserver(() => this.#redraw()).observe(
      /** @type {Element} */ (this.#table.querySelector(".col-ledger-head")),
    );
    new ResizeObserver(() => this.#redraw()).observe(this.#table);
    onTheme(() => {
      this.#paint = null;
      this.#redraw();
    });
    this.#table.addEventListener("click", (event) => this.#clicked(/** @type {Element} */ (event.target), onAction));
    this.#table.addEventListener("pointermove", (event) => this.#pointed(event));
    this.#table.addEventListener("pointerleave", hideTooltip);
    this.#sortSelect.addEventListener("change", () => this.#sortBy(this.#sortSelect.value));
    byId("resort").addEventListener("click", () => this.#sortBy("status"));
    this.#filterInput.addEventListener("input", () => this.#filter());
    this.#markHeads();
  }

  /** @param {Snapshot} snapshot */
  show({ partitions, retired }) {
    this.#retired = retired;
    this.#table.querySelector(".skeleton")?.remove();
    this.#paint ??= makePaint();
    const first = this.#rows.size === 0;
    const gone = new Set(this.#rows.keys());
    // The first snapshot in order; later partitions are appended, so that nothing moves under the pointer.
    for (const partition of first ? sorted(partitions, this.#order) : partitions) {
      gone.delete(partition.checkpoint_id);
      (this.#rows.get(partition.checkpoint_id) ?? this.#add(partition)).update(partition, this.#paint);
    }
    for (const id of gone) this.#remove(id);
    this.#summarise(partitions);
    for (const row of this.#rows.values()) row.draw();
    if (this.#filterInput.value) this.#filter();
  }

  /** @param {number} id */
  get(id) {
    return this.#rows.get(id)?.partition ?? null;
  }

  /** @param {PartitionSnapshot} partition */
  #add(partition) {
    const row = new PartitionRow(partition, this.#canOperate);
    this.#rows.set(row.id, row);
    this.#table.append(row.root);
    this.seen.observe(row.root);
    return row;
  }

  /** @param {number} id */
  #remove(id) {
    const row = this.#rows.get(id);
    if (!row) return;
    this.seen.unobserve(row.root);
    row.root.remove();
    this.#rows.delete(id);
  }

  /** @param {PartitionSnapshot[]} partitions */
  #summarise(partitions) {
    const statuses = tally(partitions).map(([status, number]) => `${exact(number)} ${status}`);
    if (this.#retired) statuses.push(`${exact(this.#retired)} retired`);
    setText(byId("partitions-sum"), [count(partitions.length, "partition"), ...statuses].join(" · "));
    setHidden(byId("partitions-empty"), partitions.length > 0);
    setHidden(this.#table, partitions.length === 0);
    setHidden(this.#filterInput, partitions.length < FILTER_FROM);
    const shown = [...this.#rows.values()].map((row) => row.partition);
    setHidden(
      byId("resort"),
      this.#order.key !== "status" || this.#order.direction !== "descending" || worstFirst(shown),
    );
  }

  // --- Order ------------------------------------------------------------------------------------

  /**
   * @param {string} key
   * @param {string} direction
   */
  #sortBy(key, direction = firstDirection(key)) {
    this.#order = { key, direction };
    const partitions = sorted(
      [...this.#rows.values()].map((row) => row.partition),
      this.#order,
    );
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const rows = partitions.flatMap(({ checkpoint_id: id }) => this.#rows.get(id) ?? []);
    this.#rows = new Map(rows.map((row) => [row.id, row]));
    this.#table.append(...[...this.#rows.values()].map((row) => row.root));
    // Moving a node takes the focus away from its contents.
    if (focused !== document.activeElement && focused?.isConnected) focused.focus();
    this.#markHeads();
    this.#summarise(partitions);
  }

  #markHeads() {
    for (const head of /** @type {NodeListOf<HTMLElement>} */ (this.#table.querySelectorAll("th[data-key]"))) {
      const active = head.dataset.key === this.#order.key;
      setAttribute(head, "aria-sort", active ? this.#order.direction : "none");
    }
    this.#sortSelect.value = this.#order.key;
  }

  #filter() {
    const words = this.#filterInput.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of this.#rows.values()) {
      const shown = matches(row.partition, words);
      if (shown) left += 1;
      setHidden(row.root, !shown);
    }
    setHidden(byId("partitions-none"), left > 0);
  }

  // --- Pointers ---------------------------------------------------------------------------------

  /**
   * @param {Element} target
   * @param {(action: string, id: number) => void} onAction
   */
  #clicked(target, onAction) {
    /** @type {HTMLElement | null} */
    const head = target.closest("th[data-key]");
    if (head) {
      const { key, direction } = this.#order;
      const other = direction === "descending" ? "ascending" : "descending";
      const headKey = head.dataset.key ?? key;
      this.#sortBy(headKey, headKey === key ? other : undefined);
    }
    /** @type {HTMLElement | null} */
    const button = target.closest("button.act");
    if (button) onAction(button.dataset.action ?? "", idOf(button));
  }

  /** @param {PointerEvent} event */
  #pointed(event) {
    /** @type {HTMLCanvasElement | null} */
    const canvas = /** @type {Element} */ (event.target).closest("canvas.strip");
    if (!canvas) return hideTooltip();
    const partition = this.get(idOf(canvas));
    if (partition) showTooltip(event, under(partition, canvas.clientWidth, event.offsetX));
  }

  // --- Strips -----------------------------------------------------------------------------------

  /** @param {IntersectionObserverEntry[]} entries */
  #seen(entries) {
    for (const { target, isIntersecting } of entries) {
      const row = this.#rows.get(idOf(target));
      if (!row) continue;
      row.visible = isIntersecting;
      row.draw();
    }
  }

  #redraw() {
    if (!this.#rows.size) return;
    this.#paint ??= makePaint();
    for (const row of this.#rows.values()) row.update(row.partition, this.#paint);
    for (const row of this.#rows.values()) row.draw();
  }
}
