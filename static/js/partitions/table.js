// The partition table. Order is the reader's; ticks only change cells.

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

export class Partitions {
  #rows = new Map();
  #order = { key: "status", direction: "descending" };
  #paint = null;
  #canOperate;
  #table = byId("partitions");

  constructor(canOperate, onAction) {
    this.#canOperate = canOperate;
    setAttribute(this.#table, "data-can-operate", canOperate ? "yes" : "no");
    this.seen = new IntersectionObserver((entries) => this.#look(entries), { rootMargin: NEAR });
    new ResizeObserver(() => this.#redraw()).observe(this.#table.querySelector(".col-ledger-head"));
    new ResizeObserver(() => this.#redraw()).observe(this.#table);
    onTheme(() => {
      this.#paint = null;
      this.#redraw();
    });
    this.#table.addEventListener("click", (event) => this.#clicked(event.target, onAction));
    this.#table.addEventListener("pointermove", (event) => this.#pointed(event));
    this.#table.addEventListener("pointerleave", hideTooltip);
    byId("sort-select").addEventListener("change", (event) => this.#sortBy(event.target.value));
    byId("resort").addEventListener("click", () => this.#sortBy("status"));
    byId("filter").addEventListener("input", () => this.#filter());
    this.#markHeads();
  }

  show({ partitions }) {
    this.#table.querySelector(".skeleton")?.remove();
    this.#paint ??= makePaint();
    const first = this.#rows.size === 0;
    const gone = new Set(this.#rows.keys());
    // At first in order; later ones are appended, since nothing may jump under the pointer.
    for (const one of first ? sorted(partitions, this.#order) : partitions) {
      gone.delete(one.checkpoint_id);
      (this.#rows.get(one.checkpoint_id) ?? this.#add(one)).update(one, this.#paint);
    }
    for (const id of gone) this.#remove(id);
    this.#summarise(partitions);
    for (const row of this.#rows.values()) row.draw();
    if (byId("filter").value) this.#filter();
  }

  get(id) {
    return this.#rows.get(id)?.partition ?? null;
  }

  #add(partition) {
    const row = new PartitionRow(partition, this.#canOperate);
    this.#rows.set(row.id, row);
    this.#table.append(row.root);
    this.seen.observe(row.root);
    return row;
  }

  #remove(id) {
    const row = this.#rows.get(id);
    this.seen.unobserve(row.root);
    row.root.remove();
    this.#rows.delete(id);
  }

  #summarise(partitions) {
    const words = tally(partitions).map(([status, number]) => `${exact(number)} ${status}`);
    setText(byId("partitions-sum"), [count(partitions.length, "partition"), ...words].join(" · "));
    setHidden(byId("partitions-empty"), partitions.length > 0);
    setHidden(this.#table, partitions.length === 0);
    setHidden(byId("filter"), partitions.length < FILTER_FROM);
    const shown = [...this.#rows.values()].map((row) => row.partition);
    setHidden(
      byId("resort"),
      this.#order.key !== "status" || this.#order.direction !== "descending" || worstFirst(shown),
    );
  }

  // --- Order ------------------------------------------------------------------------------------

  #sortBy(key, direction = firstDirection(key)) {
    this.#order = { key, direction };
    const rows = sorted(
      [...this.#rows.values()].map((row) => row.partition),
      this.#order,
    );
    const focused = document.activeElement;
    this.#rows = new Map(rows.map((one) => [one.checkpoint_id, this.#rows.get(one.checkpoint_id)]));
    this.#table.append(...[...this.#rows.values()].map((row) => row.root));
    // Moving a node takes the focus away from what is in it.
    if (focused !== document.activeElement && focused?.isConnected) focused.focus();
    this.#markHeads();
    this.#summarise(rows);
  }

  #markHeads() {
    for (const head of this.#table.querySelectorAll("th[data-key]")) {
      const active = head.dataset.key === this.#order.key;
      setAttribute(head, "aria-sort", active ? this.#order.direction : "none");
    }
    byId("sort-select").value = this.#order.key;
  }

  #filter() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of this.#rows.values()) {
      const shown = matches(row.partition, words);
      left += shown;
      setHidden(row.root, !shown);
    }
    setHidden(byId("partitions-none"), left > 0);
  }

  // --- Pointers ---------------------------------------------------------------------------------

  #clicked(target, onAction) {
    const head = target.closest("th[data-key]");
    if (head) {
      const { key, direction } = this.#order;
      const other = direction === "descending" ? "ascending" : "descending";
      this.#sortBy(head.dataset.key, head.dataset.key === key ? other : undefined);
    }
    const button = target.closest("button.act");
    if (button) onAction(button.dataset.action, Number(button.closest("tbody").dataset.id));
  }

  #pointed(event) {
    const canvas = event.target.closest("canvas.strip");
    if (!canvas) return hideTooltip();
    const partition = this.get(Number(canvas.closest("tbody").dataset.id));
    if (partition) showTooltip(event, under(partition, canvas.clientWidth, event.offsetX));
  }

  // --- Strips -----------------------------------------------------------------------------------

  #look(entries) {
    for (const { target, isIntersecting } of entries) {
      const row = this.#rows.get(Number(target.dataset.id));
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
