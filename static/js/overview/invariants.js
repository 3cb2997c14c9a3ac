// What I1 to I6 promise and what the last check found, on demand.
import { byId, make, setAttribute, setText } from "../ui/dom.js";
import { age } from "../ui/format.js";

const PROMISES = {
  I1: ["Coverage", "Every offset from the baseline to the next offset is in a range: no gaps."],
  I2: ["Disjoint", "No offset is in two ranges."],
  I3: ["Conservation", "Counted events equal the records in the ledger, per partition and dimension."],
  I4: ["Time", "The minute buckets add up to the same total."],
  I5: ["Monotonic", "The next offset never decreases within an epoch."],
  I6: ["Accounted failures", "Every failed record has a dead letter."],
};

let latest = null;

function fill() {
  const dialog = byId("invariants");
  if (!dialog.open) return;
  const when = latest ? `Checked ${age(latest.checked_age_seconds)} ago.` : "Not checked yet.";
  setText(byId("invariants-age"), when);
  for (const [name, { mark, detail }] of rows()) {
    const result = latest?.invariants[name];
    setAttribute(mark, "data-ok", result ? (result.ok ? "yes" : "no") : null);
    setText(detail, result ? `${result.ok ? "Holds" : "Broken"}. ${result.detail}` : "Not checked yet.");
  }
}

let made = null;

function rows() {
  made ??= new Map(
    Object.entries(PROMISES).map(([name, [title, promise]]) => {
      const mark = make("span", { class: "check" }, name);
      const detail = make("td");
      const head = make("th", { scope: "row" }, mark, " ", title);
      byId("invariants-rows").append(make("tr", {}, head, make("td", { class: "muted" }, promise), detail));
      return [name, { mark, detail }];
    }),
  );
  return made;
}

export function startInvariants() {
  byId("invariants-more").addEventListener("click", () => {
    byId("invariants").showModal();
    fill();
  });
}

export function showInvariantDetails(snapshot) {
  latest = snapshot.invariants;
  fill();
}
