// The dialog of every action: a preview, a reason, the action, and then its outcome as the ledger shows it.
// Each action is a plan of plans.js.

import { byId, make, setAttribute, setHidden, setText } from "../ui/dom.js";
import { exact, UNKNOWN } from "../ui/format.js";
import { announce } from "../ui/live-region.js";
import { ActionError } from "./client.js";

const CONFIRM_MS = 8000;
const PREVIEW_AFTER_MS = 400;
/** @type {Record<string, string>} */
const FACTS = { desired_state: "Desired state", next_offset: "Next offset", epoch: "Epoch", owner: "Owner" };
// In offsets; only seeks have them.
/** @type {Record<string, string>} */
const OUTCOME = { to_count: "To be counted", deduplicated: "Deduplicated", duplicated: "Counted twice", lost: "Lost" };

/** @typedef {"loading" | "ready" | "refused" | "sending" | "waiting" | "done"} Step */
/** @typedef {{ plan: Plan, token: any, answer: any, facts: boolean, step: Step }} Current */

export class ActionDialog {
  /** @type {Current | null} */
  #current = null;
  /** @type {Snapshot | null} */
  #snapshot = null;
  /** @type {ReturnType<typeof input>[]} */
  #inputs = [];
  #timer = 0;
  #typing = 0;
  /** @type {HTMLDialogElement} */
  #dialog = byId("action");
  /** @type {HTMLTextAreaElement} */
  #reason = byId("action-reason");
  /** @type {HTMLButtonElement} */
  #apply = byId("action-apply");

  constructor() {
    byId("action-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("action-close").addEventListener("click", () => this.#dialog.close());
    byId("action-refresh").addEventListener("click", () => this.#preview());
    byId("action-fields").addEventListener("input", () => {
      // The preview shown no longer matches the input.
      this.#step("loading", "");
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#preview(), PREVIEW_AFTER_MS);
    });
    this.#dialog.addEventListener("close", () => {
      clearTimeout(this.#timer);
      clearTimeout(this.#typing);
      this.#current = null;
    });
  }

  /** @param {Plan} plan */
  open(plan) {
    if (this.#dialog.open) return;
    this.#current = { plan, token: null, answer: null, facts: false, step: "loading" };
    this.#reason.value = "";
    this.#inputs = plan.fields.map(input);
    byId("action-fields").replaceChildren(...this.#inputs.map(({ root }) => root));
    setHidden(byId("action-fields"), !this.#inputs.length);
    setText(byId("action-title"), plan.title);
    setText(this.#apply, plan.button);
    setHidden(byId("action-change"), true);
    this.#dialog.showModal();
    (this.#inputs.find(({ field }) => !field.optional)?.box ?? this.#reason).focus();
    this.#preview();
  }

  /**
   * Called with each snapshot: it may show the outcome.
   * @param {Snapshot} snapshot
   */
  confirm(snapshot) {
    this.#snapshot = snapshot;
    const current = this.#current;
    if (current?.step !== "waiting") return;
    const progress = current.plan.progress?.(current.answer, snapshot);
    if (progress) showProgress(progress);
    const outcome = current.plan.done(current.answer, snapshot);
    if (!outcome) return;
    clearTimeout(this.#timer);
    this.#step("done", outcome, "done");
    announce(outcome);
  }

  #values() {
    return Object.fromEntries(this.#inputs.map(({ field, box }) => [field.name, box.value.trim()]));
  }

  async #preview() {
    const current = this.#current;
    if (!current) return;
    const values = this.#values();
    current.token = null;
    this.#step("loading", "");
    const empty = this.#inputs.find(({ field }) => !field.optional && !values[field.name]);
    if (empty) {
      setText(byId("action-text"), empty.field.missing ?? "");
      return;
    }
    setText(byId("action-text"), "Loading preview …");
    try {
      const shown = await current.plan.preview(values);
      if (current !== this.#current || JSON.stringify(values) !== JSON.stringify(this.#values())) return;
      current.token = shown.token;
      setText(byId("action-text"), shown.text);
      current.facts = Boolean(shown.before && shown.after);
      if (shown.before && shown.after) fillChange(shown.before, shown.after, current.plan.kind);
      this.#step(shown.token ? "ready" : "refused", "");
    } catch (error) {
      if (current === this.#current) this.#failed(error, "Preview unavailable.");
    }
  }

  async #submit() {
    const current = this.#current;
    if (current?.step !== "ready") return;
    const reason = this.#reason.value.trim();
    if (!reason) {
      this.#step("ready", "Enter a reason. It is saved in the audit log.", "error");
      this.#reason.focus();
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

  /**
   * @param {unknown} error
   * @param {string} [lead]
   */
  #failed(error, lead) {
    if (!(error instanceof ActionError)) throw error;
    if (lead) setText(byId("action-text"), lead);
    // After a conflict, or without an answer, the preview is out of date; otherwise the action may be tried again.
    const outdated = !this.#current?.token || error.status === 409 || error.status === 0;
    this.#step(outdated ? "refused" : "ready", error.message, "error");
    // Do not steal focus while the operator is typing.
    if (outdated && !this.#inputs.some(({ box }) => box === document.activeElement)) byId("action-refresh").focus();
  }

  /**
   * @param {Step} step
   * @param {string} note
   * @param {string} [level]
   */
  #step(step, note, level) {
    const current = this.#current;
    if (!current) return;
    current.step = step;
    const over = step === "waiting" || step === "done";
    this.#apply.disabled = step !== "ready";
    setHidden(this.#apply, over);
    setHidden(byId("action-refresh"), step !== "refused");
    // Once the action is done, only the outcome matters.
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

/** @param {Field} field */
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

/** @param {Progress} progress */
function showProgress({ value, max, text }) {
  setHidden(byId("action-progress"), false);
  setAttribute(byId("action-meter"), "max", Math.max(1, max));
  setAttribute(byId("action-meter"), "value", value);
  setText(byId("action-progress-text"), text);
}

// The worker owns the offset: it has a batch in flight when it is asked to stop.
/** @type {Record<string, string>} */
const OFFSET_AFTER = { pause: "stops within 1 s", resume: "advances" };

/**
 * @param {Facts} before
 * @param {Facts} after
 * @param {string} [kind]
 */
function fillChange(before, after, kind) {
  /** @param {string | number | null} value */
  const format = (value) => (typeof value === "number" ? exact(value) : (value ?? UNKNOWN));
  const rows = Object.keys(FACTS).map((name) => {
    const same = before[name] === after[name];
    const now = make("td", {}, format(before[name]));
    const worker = name === "next_offset" && before.owner && kind ? OFFSET_AFTER[kind] : undefined;
    const then = make("td", {}, worker ?? (same ? "unchanged" : format(after[name])));
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
        make("td", {}, `${format(after[name])} offsets`),
      ),
    ),
  );
  byId("action-rows").replaceChildren(...rows);
}
