// The periodic loops of the application itself; late ones first, with what does not happen meanwhile.
import { byId, icon, keyed, make, setAttribute, setHidden, setIcon, setText } from "../ui/dom.js";
import { age, count, duration } from "../ui/format.js";

const COLUMNS = 4;

/** @type {Map<string, ReturnType<typeof create>>} */
const rows = new Map();

/** @param {LoopSnapshot} loop */
function create(loop) {
  const picture = icon("status-none");
  const word = make("span");
  const last = make("td", { class: "num" });
  const took = make("td", { class: "num" });
  const badge = make("td", {}, make("span", { class: "badge" }, picture, word));
  const row = make("tr", {}, make("th", { scope: "row" }, loop.name), badge, last, took);
  const detail = make("td", { colspan: COLUMNS });
  const detailRow = make("tr", { class: "error-row", hidden: true }, detail);
  return {
    root: make("tbody", { "data-id": loop.name }, row, detailRow),
    picture,
    word,
    last,
    took,
    detail,
    detailRow,
  };
}

/**
 * The family and the word of a loop's state.
 * @param {LoopSnapshot} loop
 */
function stateOf({ late, running }) {
  if (late) return ["late", "Late"];
  return running ? ["ok", "Running"] : ["ok", "On time"];
}

/**
 * @param {ReturnType<typeof create>} row
 * @param {LoopSnapshot} loop
 */
function update(row, loop) {
  const [family, word] = stateOf(loop);
  setAttribute(row.root, "data-status", family);
  setIcon(row.picture, `status-${family}`);
  setText(row.word, word);
  setText(row.last, `${age(Math.max(0, loop.last_run_age_seconds))} ago`);
  setText(row.took, duration(loop.duration_seconds));
  setHidden(row.detailRow, !loop.detail);
  setText(row.detail, loop.detail);
}

/** @param {Snapshot} snapshot */
export function showLoops({ loops }) {
  const late = loops.filter((loop) => loop.late).length;
  setText(byId("loops-sum"), loops.length ? (late ? count(late, "late loop") : "All on time") : "");
  setHidden(byId("loops-empty"), loops.length > 0);
  /** @type {HTMLTableElement} */
  const table = byId("loops");
  keyed(table, rows, loops, (loop) => loop.name, create, update, table.tHead?.nextElementSibling);
}
