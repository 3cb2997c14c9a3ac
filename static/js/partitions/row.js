// One partition of the table: its cells are created once, and only what changed is written.

import { icon, make, setAttribute, setHidden, setIcon, setText } from "../ui/dom.js";
import { age, brief, duration, exact, inFull, rate, UNKNOWN } from "../ui/format.js";
import { familyOf, nameOf, shapeOf } from "../ui/statuses.js";
import { PartitionDetails } from "./details.js";
import { drawStrip, inWords } from "./strip.js";

// Owners send a heartbeat each second; some missed in a row are worth a look.
const HEARTBEAT_LATE_SECONDS = 5;

/** @type {(name: string, label: string, ...children: (Node | string)[]) => HTMLTableCellElement} */
const cell = (name, label, ...children) => make("td", { role: "cell", class: name, "data-label": label }, ...children);
/** @type {(name: string, label: string) => HTMLTableCellElement} */
const number = (name, label) => cell(`num ${name}`, label);

/**
 * The log end is sampled once a second; a worker that has read past the sample proves that the log is longer.
 * @param {PartitionSnapshot} partition
 */
function knownEnd({ log_end_offset: sampled, next_offset: next, halt_reason: halted }) {
  return sampled === null || halted ? sampled : Math.max(sampled, next);
}

export class PartitionRow {
  /**
   * @param {PartitionSnapshot} partition
   * @param {boolean} canOperate
   */
  constructor(partition, canOperate) {
    this.partition = partition;
    /** @type {Paint | null} */
    this.paint = null;
    this.id = partition.checkpoint_id;
    this.visible = false;
    const name = nameOf(partition);
    this.expand = make(
      "button",
      { type: "button", class: "expand", "aria-expanded": "false", "aria-controls": `details-${this.id}` },
      icon("icon-right"),
      make("span", { class: "ellipsis" }, name),
    );
    this.statusIcon = icon("status-none");
    this.statusText = make("span", { class: "ellipsis" });
    this.owner = make("span", { class: "ellipsis" });
    this.heartbeat = make("span", { class: "heartbeat" }, icon("icon-heart"), make("span"));
    this.strip = make("canvas", { class: "strip", role: "img" });
    this.cells = {
      partition: make("th", { role: "rowheader", scope: "row", class: "partition", title: name }, this.expand),
      status: cell("status", "Status", make("span", { class: "badge" }, this.statusIcon, this.statusText)),
      owner: cell("owner", "Owner", make("span", { class: "owner-line" }, this.owner, this.heartbeat)),
      epoch: number("epoch", "Epoch"),
      next_offset: number("next", "Next offset"),
      log_end_offset: number("end", "Log end"),
      lag: number("lag", "Lag"),
      lag_seconds: number("behind", "Behind"),
      events_per_second: number("rate", "Events/s"),
      ledger: cell("ledger", "Ledger", this.strip),
      action: cell("action", ""),
    };
    this.button = canOperate ? this.#makeButton() : null;
    this.row = make("tr", { role: "row" }, ...Object.values(this.cells));
    this.details = new PartitionDetails(this.id, canOperate);
    this.root = make("tbody", { role: "rowgroup", "data-id": this.id }, this.row, this.details.root);
    this.expand.addEventListener("click", () => this.toggle());
  }

  #makeButton() {
    const label = make("span", { class: "action-word" });
    const button = make("button", { type: "button", class: "icon-button act" }, icon("icon-pause"), label);
    this.cells.action.append(button);
    return button;
  }

  toggle() {
    const open = this.expand.getAttribute("aria-expanded") !== "true";
    setAttribute(this.expand, "aria-expanded", open ? "true" : "false");
    setHidden(this.details.root, !open);
    if (!open) return;
    this.details.update(this.partition);
    this.draw();
  }

  get open() {
    return !this.details.root.hidden;
  }

  /**
   * @param {PartitionSnapshot} partition
   * @param {Paint} paint
   */
  update(partition, paint) {
    this.partition = partition;
    this.paint = paint;
    const { cells } = this;
    setAttribute(this.root, "data-status", familyOf(partition.status));
    setIcon(this.statusIcon, shapeOf(partition.status));
    setText(this.statusText, partition.status);
    setAttribute(cells.status, "title", partition.status_detail);
    this.#updateOwner(partition);
    setText(cells.epoch, exact(partition.epoch));
    setText(cells.next_offset, exact(partition.next_offset));
    setText(cells.log_end_offset, exact(knownEnd(partition)));
    const hidden = partition.open_transaction_records ? ` + ${brief(partition.open_transaction_records)}` : "";
    setText(cells.lag, brief(partition.lag) + hidden);
    const waiting = hidden && `, ${exact(partition.open_transaction_records)} behind an open transaction`;
    setAttribute(cells.lag, "title", `${inFull(partition.lag, "records behind")}${waiting}`);
    setText(cells.lag_seconds, duration(partition.lag_seconds));
    setText(cells.events_per_second, rate(partition.events_per_second));
    setAttribute(cells.events_per_second, "title", inFull(partition.events_per_second, "offsets per second"));
    if (this.button) this.#updateButton(this.button, partition);
    if (this.open) this.details.update(partition);
  }

  /** @param {PartitionSnapshot} partition */
  #updateOwner({ owner, owner_heartbeat_age_seconds: seconds }) {
    setText(this.owner, owner ?? UNKNOWN);
    setAttribute(this.cells.owner, "title", owner ? `${owner}, heartbeat ${duration(seconds)} ago` : "No owner");
    setHidden(this.heartbeat, !owner);
    setText(this.heartbeat.lastChild, age(seconds));
    setAttribute(this.heartbeat, "data-late", owner && !(seconds !== null && seconds <= HEARTBEAT_LATE_SECONDS));
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {PartitionSnapshot} partition
   */
  #updateButton(button, partition) {
    const kind = partition.desired_state === "paused" ? "resume" : "pause";
    const word = kind === "pause" ? "Pause" : "Resume";
    setAttribute(button, "data-action", kind);
    setAttribute(button, "aria-label", `${word} ${nameOf(partition)}`);
    setAttribute(button, "title", `${word} ${nameOf(partition)} …`);
    setIcon(button.children[0], `icon-${kind}`);
    setText(button.lastChild, word);
  }

  /** Apart from `update`, because it measures: all rows are written first. A row out of sight is drawn later. */
  draw() {
    if (!this.visible || !this.paint) return;
    drawStrip(this.strip, this.partition, this.paint);
    if (this.open) this.details.draw(this.partition, this.paint);
    setAttribute(this.strip, "aria-label", inWords(this.partition));
  }
}
