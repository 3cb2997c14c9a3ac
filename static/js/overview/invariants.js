// The dialog with the rules of I1 to I6 and the result of the last check.
import { send } from "../actions/client.js";
import { byId, make, setAttribute, setText } from "../ui/dom.js";
import { age } from "../ui/format.js";

/** The name and the rule of each. @type {Record<string, [string, string]>} */
const RULES = {
  I1: ["Coverage", "Every offset from the baseline to the next offset is in a range: no gaps."],
  I2: ["Disjoint", "No offset is in two ranges."],
  I3: ["Conservation", "Counted events equal the records in the ledger, per partition and dimension."],
  I4: ["Time", "The minute buckets add up to the same total."],
  I5: ["Monotonic", "The next offset never decreases within an epoch."],
  I6: ["Accounted failures", "Every failed record has a dead letter."],
};

/** @type {InvariantsSnapshot | null} */
let latest = null;

/** @param {InvariantsSnapshot} report */
function coverage({ complete_age_seconds: seconds }) {
  return seconds === null ? "" : ` Every partition was checked in full within the last ${age(seconds)}.`;
}

function fill() {
  /** @type {HTMLDialogElement} */
  const dialog = byId("invariants");
  if (!dialog.open) return;
  const when = latest ? `Checked ${age(latest.checked_age_seconds)} ago.${coverage(latest)}` : "Not checked yet.";
  setText(byId("invariants-age"), when);
  for (const [name, { mark, detail }] of getRows()) {
    const result = latest?.invariants[name];
    setAttribute(mark, "data-ok", result ? (result.ok ? "yes" : "no") : null);
    setText(detail, result ? `${result.ok ? "Holds" : "Broken"}. ${result.detail}` : "Not checked yet.");
  }
}

/** @type {Map<string, { mark: HTMLElement, detail: HTMLElement }> | null} */
let rows = null;

function getRows() {
  rows ??= new Map(
    Object.entries(RULES).map(([name, [title, rule]]) => {
      const mark = make("span", { class: "check" }, name);
      const detail = make("td");
      const head = make("th", { scope: "row" }, mark, " ", title);
      byId("invariants-rows").append(make("tr", {}, head, make("td", { class: "muted" }, rule), detail));
      return [name, { mark, detail }];
    }),
  );
  return rows;
}

/** @param {HTMLButtonElement} button */
async function checkNow(button) {
  button.disabled = true;
  setText(byId("invariants-outcome"), "Checking …");
  try {
    const { detail } = await send("api/invariants/check/", {});
    setText(byId("invariants-outcome"), detail);
  } catch (error) {
    setText(byId("invariants-outcome"), error instanceof Error ? error.message : String(error));
  }
  button.disabled = false;
}

/** @param {boolean} canOperate */
export function startInvariants(canOperate) {
  /** @type {HTMLButtonElement} */
  const button = byId("invariants-check");
  button.hidden = !canOperate;
  button.addEventListener("click", () => checkNow(button));
  byId("invariants-more").addEventListener("click", () => {
    /** @type {HTMLDialogElement} */ (byId("invariants")).showModal();
    fill();
  });
}

/** @param {Snapshot} snapshot */
export function showInvariantDetails(snapshot) {
  latest = snapshot.invariants;
  fill();
}
