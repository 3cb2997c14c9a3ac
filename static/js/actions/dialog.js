// The dialog of everything an operator does: preview in words, a reason, the deed, and then what the ledger says, not what
// was wished. What is done, and how it is seen to be done, is a plan of plans.js.

import { byId, make, setAttribute, setHidden, setText } from "../ui/dom.js";
import { exact, UNKNOWN } from "../ui/format.js";
import { announce } from "../ui/live-region.js";
import { ActionError } from "./client.js";

const CONFIRM_MS = 8000;
const LOOK_AFTER_MS = 400;
const FACTS = { desired_state: "Desired state", next_offset: "Next offset", epoch: "Epoch", owner: "Owner" };
// In offsets; only what a move says of itself.
const OUTCOME = { to_count: "To be counted", deduplicated: "Deduplicated", duplicated: "Counted twice", lost: "Lost" };

export class Actions {
  #current = null; // { plan, token, answer, step: "loading" | "ready" | "refused" | "sending" | "waiting" | "done" }
  #snapshot = null;
  #inputs = [];
  #timer = 0;
  #typing = 0;

  constructor() {
    byId("action-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("action-close").addEventListener("click", () => byId("action").close());
    byId("action-again").addEventListener("click", () => this.#look());
    byId("action-fields").addEventListener("input", () => {
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

  open(plan) {
    if (byId("action").open) return;
    this.#current = { plan, token: null, answer: null, step: "loading" };
    byId("action-reason").value = "";
    this.#inputs = plan.fields.map(input);
    byId("action-fields").replaceChildren(...this.#inputs.map(({ root }) => root));
    setHidden(byId("action-fields"), !this.#inputs.length);
    setText(byId("action-title"), plan.title);
    setText(byId("action-apply"), plan.button);
    setHidden(byId("action-change"), true);
    byId("action").showModal();
    (this.#inputs.find(({ field }) => !field.optional)?.box ?? byId("action-reason")).focus();
    this.#look();
  }

  /** Each snapshot may be the one that shows the outcome. */
  confirm(snapshot) {
    this.#snapshot = snapshot;
    const current = this.#current;
    if (current?.step !== "waiting") return;
    const far = current.plan.progress?.(current.answer, snapshot);
    if (far) showProgress(far);
    const words = current.plan.done(current.answer, snapshot);
    if (!words) return;
    clearTimeout(this.#timer);
    this.#step("done", words, "done");
    announce(words);
  }

  #values() {
    return Object.fromEntries(this.#inputs.map(({ field, box }) => [field.name, box.value.trim()]));
  }

  async #look() {
    const current = this.#current;
    if (!current) return;
    const values = this.#values();
    current.token = null;
    this.#step("loading", "");
    const empty = this.#inputs.find(({ field }) => !field.optional && !values[field.name]);
    if (empty) {
      setText(byId("action-text"), empty.field.missing);
      return;
    }
    setText(byId("action-text"), "Loading preview …");
    try {
      const shown = await current.plan.preview(values);
      if (current !== this.#current || JSON.stringify(values) !== JSON.stringify(this.#values())) return;
      current.token = shown.token;
      setText(byId("action-text"), shown.text);
      current.facts = Boolean(shown.before && shown.after);
      if (current.facts) fillChange(shown.before, shown.after, current.plan.kind);
      this.#step(shown.token ? "ready" : "refused", "");
    } catch (error) {
      if (current === this.#current) this.#failed(error, "Preview unavailable.");
    }
  }

  async #submit() {
    const current = this.#current;
    if (current?.step !== "ready") return;
    const reason = byId("action-reason").value.trim();
    if (!reason) {
      this.#step("ready", "Enter a reason. It is saved in the audit log.", "error");
      byId("action-reason").focus();
      return;
    }
    this.#step("sending", "");
    try {
      current.answer = await current.plan.apply(reason, current.token, this.#values());
      if (current !== this.#current) return;
      const waits = current.plan.patient
        ? "It continues if you close this page."
        : "Waiting for the ledger to confirm …";
      this.#step("waiting", `Recorded as ${current.answer.outcome}. ${waits}`);
      if (!current.plan.patient) this.#timer = setTimeout(() => this.#unconfirmed(), CONFIRM_MS);
      if (this.#snapshot) this.confirm(this.#snapshot);
    } catch (error) {
      if (current === this.#current) this.#failed(error);
    }
  }

  #unconfirmed() {
    this.#step(
      "done",
      "The action was recorded, but no snapshot confirms it yet: the page may be stale. Close this dialog and check the partition; do not apply the action again.",
      "warning",
    );
  }

  #failed(error, lead) {
    if (!(error instanceof ActionError)) throw error;
    if (lead) setText(byId("action-text"), lead);
    // What was seen is no longer true, or was never known: only a new look leads on. Otherwise it may be tried again.
    const lookFirst = !this.#current.token || error.status === 409 || error.status === 0;
    this.#step(lookFirst ? "refused" : "ready", error.message, "error");
    // Not out of the hands of somebody who is still typing where to.
    if (lookFirst && !this.#inputs.some(({ box }) => box === document.activeElement)) byId("action-again").focus();
  }

  #step(step, note, level) {
    const current = this.#current;
    current.step = step;
    const over = step === "waiting" || step === "done";
    byId("action-apply").disabled = step !== "ready";
    setHidden(byId("action-apply"), over);
    setHidden(byId("action-again"), step !== "refused");
    // A preview speaks of the future; once it is done, the outcome alone counts.
    setHidden(byId("action-text"), step === "done");
    setHidden(byId("action-field"), over);
    setHidden(byId("action-fields"), over || !this.#inputs.length);
    setHidden(byId("action-change"), !current.token || !current.facts || over);
    if (!over) setHidden(byId("action-progress"), true);
    setText(byId("action-close"), over ? "Close" : "Cancel");
    setAttribute(byId("action-close"), "data-kind", step === "done" ? "primary" : null);
    const box = byId("action-note");
    setAttribute(box, "data-level", level ?? null);
    setText(box, note);
    setHidden(box, !note);
    if (over) byId("action-close").focus();
  }
}

function input(field) {
  const id = `action-${field.name}`;
  const box = make("input", {
    id,
    type: "text",
    maxlength: 20,
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": field.hint ? `${id}-hint` : null,
  });
  const root = make("div", { class: "field" }, make("label", { class: "field" }, make("span", {}, field.label), box));
  if (field.hint) root.append(make("p", { class: "hint", id: `${id}-hint` }, field.hint));
  return { field, box, root };
}

function showProgress({ value, max, text }) {
  setHidden(byId("action-progress"), false);
  setAttribute(byId("action-meter"), "max", Math.max(1, max));
  setAttribute(byId("action-meter"), "value", value);
  setText(byId("action-far"), text);
}

// The offset is the worker's: it has a batch in hand when it is told to stop.
const OFFSET_AFTER = { pause: "stops within 1 s", resume: "advances" };

function fillChange(before, after, kind) {
  const say = (value) => (typeof value === "number" ? exact(value) : (value ?? UNKNOWN));
  const rows = Object.keys(FACTS).map((name) => {
    const same = before[name] === after[name];
    const now = make("td", {}, say(before[name]));
    const worker = name === "next_offset" && before.owner ? OFFSET_AFTER[kind] : undefined;
    const then = make("td", {}, worker ?? (same ? "unchanged" : say(after[name])));
    return make("tr", { "data-same": same }, make("th", { scope: "row" }, FACTS[name]), now, then);
  });
  const outcome = Object.keys(OUTCOME).filter((name) => after[name]);
  rows.push(
    ...outcome.map((name) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, OUTCOME[name]),
        make("td", {}, ""),
        make("td", {}, `${exact(after[name])} offsets`),
      ),
    ),
  );
  byId("action-rows").replaceChildren(...rows);
}
