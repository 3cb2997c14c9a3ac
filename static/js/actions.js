// What an operator does to a partition: preview in words, a reason, the deed, and then what the ledger says, not what was
// wished.
import { ActionError, apply, preview } from "./action-api.js";
import { announce } from "./announcer.js";
import { byId, make, setAttribute, setHidden, setText } from "./dom.js";
import { clock, exact, UNKNOWN } from "./format.js";
import { nameOf } from "./statuses.js";

const CONFIRM_MS = 8000;
const LOOK_AFTER_MS = 400;
/** `done(now, current)`: whether the ledger shows it. A move begins a new epoch; a rebuild, a new checkpoint. */
const KINDS = {
  pause: { word: "Pause", done: (now) => now.desired_state === "paused" },
  resume: { word: "Resume", done: (now) => now.desired_state === "running" },
  seek: { word: "Move", wantsTarget: true, done: (now, { after }) => now.epoch >= after.epoch },
  accept_loss: { word: "Accept the loss of", done: (now, { after }) => now.epoch >= after.epoch },
  rebuild: { word: "Rebuild", done: (now, { after }) => now.epoch >= after.epoch },
  restart: { word: "Begin again", done: (now, { after }) => now.epoch >= after.epoch },
};
const FACTS = { desired_state: "Wanted state", next_offset: "Next offset", epoch: "Epoch", owner: "Owner" };
// In offsets; only what a move says of itself.
const OUTCOME = { to_count: "To be counted", deduplicated: "Read again, left out", duplicated: "Counted again", lost: "Lost" };

export class Actions {
  #find;
  #current = null; // { id, kind, seen, step: "loading" | "ready" | "sending" | "waiting" | "done" }
  #timer = 0;
  #typing = 0;

  /** `find(checkpointId)` gives the partition as the last snapshot has it. */
  constructor(find) {
    this.#find = find;
    byId("action-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("action-close").addEventListener("click", () => byId("action").close());
    byId("action-again").addEventListener("click", () => this.#look());
    byId("action-target").addEventListener("input", () => {
      // What was shown is not what is asked for any more.
      this.#step("loading", "");
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#look(), LOOK_AFTER_MS);
    });
    byId("action").addEventListener("close", () => {
      clearTimeout(this.#timer);
      clearTimeout(this.#typing);
      this.#current = null;
    });
  }

  open(kind, id) {
    const partition = this.#find(id);
    if (!partition || byId("action").open) return;
    const { word, wantsTarget = false } = KINDS[kind];
    this.#current = { id, kind, name: nameOf(partition), wantsTarget, seen: null, after: null, step: "loading" };
    byId("action-reason").value = "";
    byId("action-target").value = "";
    setHidden(byId("action-target-field"), !wantsTarget);
    setText(byId("action-title"), `${word} ${this.#current.name}`);
    setText(byId("action-apply"), `${word} ${this.#current.name}`);
    byId("action").showModal();
    byId(wantsTarget ? "action-target" : "action-reason").focus();
    this.#look();
  }

  /** Each snapshot may be the one that shows the outcome. */
  confirm() {
    const current = this.#current;
    if (current?.step !== "waiting") return;
    const partition = this.#find(current.id);
    if (!partition || !KINDS[current.kind].done(partition, current)) return;
    clearTimeout(this.#timer);
    const words = `Done: the ledger shows ${current.name} as ${partition.status} at ${clock(new Date())}, at offset ${exact(partition.next_offset)}.`;
    this.#step("done", words, "done");
    announce(words);
  }

  async #look() {
    const current = this.#current;
    if (!current) return;
    const to = current.wantsTarget ? byId("action-target").value.trim() : undefined;
    current.seen = null;
    this.#step("loading", "");
    if (to === "") {
      setText(byId("action-text"), "Say where to: an offset, earliest or latest.");
      return;
    }
    setText(byId("action-text"), "Asking what it would do …");
    try {
      const shown = await preview(current.id, current.kind, to);
      if (current !== this.#current || (current.wantsTarget && byId("action-target").value.trim() !== to)) return;
      current.seen = shown.seen;
      // "latest" means the place that was shown, not where the end will be.
      current.to = shown.to;
      setText(byId("action-text"), shown.text);
      fillChange(shown.before, shown.after, current.kind);
      this.#step("ready", "");
    } catch (error) {
      if (current === this.#current) this.#failed(error, "No preview, so nothing to apply.");
    }
  }

  async #submit() {
    const current = this.#current;
    if (current?.step !== "ready") return;
    const reason = byId("action-reason").value.trim();
    if (!reason) {
      this.#step("ready", "Say why: a reason is required, and kept with the action.", "error");
      byId("action-reason").focus();
      return;
    }
    this.#step("sending", "");
    try {
      const answer = await apply(current.id, current.kind, reason, current.seen, current.wantsTarget ? current.to : undefined);
      if (current !== this.#current) return;
      current.after = answer.after;
      current.id = answer.after.checkpoint_id ?? current.id;
      this.#step("waiting", `Recorded as ${answer.outcome}. Waiting for the ledger to show it …`);
      this.#timer = setTimeout(() => this.#unconfirmed(), CONFIRM_MS);
      this.confirm();
    } catch (error) {
      if (current === this.#current) this.#failed(error);
    }
  }

  #unconfirmed() {
    this.#step("done", "It was recorded, but no snapshot has shown it yet: the page may be stale. Close this and watch the row; do not press twice.", "warning");
  }

  #failed(error, lead) {
    if (!(error instanceof ActionError)) throw error;
    if (lead) setText(byId("action-text"), lead);
    // What was seen is no longer true, or was never known: only a new look leads on. Otherwise it may be tried again.
    const lookFirst = !this.#current.seen || error.status === 409 || error.status === 0;
    this.#step(lookFirst ? "refused" : "ready", error.message, "error");
    if (lookFirst) byId("action-again").focus();
  }

  #step(step, note, level) {
    this.#current.step = step;
    const over = step === "waiting" || step === "done";
    byId("action-apply").disabled = step !== "ready";
    setHidden(byId("action-apply"), over);
    setHidden(byId("action-again"), step !== "refused");
    // A preview speaks of the future; once it is done, the outcome alone counts.
    setHidden(byId("action-text"), step === "done");
    setHidden(byId("action-field"), over);
    setHidden(byId("action-target-field"), over || !this.#current.wantsTarget);
    setHidden(byId("action-change"), !this.#current.seen || over);
    setText(byId("action-close"), over ? "Close" : "Cancel");
    setAttribute(byId("action-close"), "data-kind", step === "done" ? "primary" : null);
    const box = byId("action-note");
    setAttribute(box, "data-level", level ?? null);
    setText(box, note);
    setHidden(box, !note);
    if (over) byId("action-close").focus();
  }
}

// The offset is the worker's: it has a batch in hand when it is told to stop.
const OFFSET_AFTER = { pause: "stops within a second", resume: "moves on" };

function fillChange(before, after, kind) {
  const say = (value) => (typeof value === "number" ? exact(value) : (value ?? UNKNOWN));
  const rows = Object.keys(FACTS).map((name) => {
    const same = before[name] === after[name];
    const now = make("td", {}, say(before[name]));
    const worker = name === "next_offset" && before.owner ? OFFSET_AFTER[kind] : undefined;
    const then = make("td", {}, worker ?? (same ? "stays" : say(after[name])));
    return make("tr", { "data-same": same }, make("th", { scope: "row" }, FACTS[name]), now, then);
  });
  const outcome = Object.keys(OUTCOME).filter((name) => after[name]);
  rows.push(...outcome.map((name) => make("tr", {}, make("th", { scope: "row" }, OUTCOME[name]), make("td", {}, ""), make("td", {}, `${exact(after[name])} offsets`))));
  byId("action-rows").replaceChildren(...rows);
}
