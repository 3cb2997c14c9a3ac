// Who works, and how they are; dead and silent ones cannot be overlooked.
import { byId, icon, keyed, make, setAttribute, setHidden, setIcon, setText } from "./dom.js";
import { age, brief, bytes, count, exact, inFull, rate } from "./format.js";

const HEARTBEAT_LATE_SECONDS = 5;
const COLUMNS = 7;
const NUMBERS = ["Partitions", "Events/s", "Memory", "In hand", "Fenced"];

const STATES = {
  running: ["ok", "Running"],
  stopping: ["paused", "Stopping"],
  stopped: ["none", "Stopped"],
  dead: ["halted", "Dead"],
};

function look({ state, heartbeat_age_seconds: seconds }) {
  if (state === "running" && seconds > HEARTBEAT_LATE_SECONDS) return ["late", "Silent"];
  return STATES[state] ?? ["stuck", state];
}

function create(worker) {
  const cells = NUMBERS.map((label) => make("td", { class: "num", "data-label": label }));
  const place = make("span", { class: "worker-place" });
  const picture = icon("status-none");
  const state = make("span");
  const beat = make("span", { class: "heartbeat" }, icon("icon-heart"), make("span"));
  const name = make("th", { scope: "row" }, make("span", { class: "ellipsis" }, worker.worker_id), place);
  const how = make("td", {}, make("span", { class: "badge" }, picture, state), beat);
  const row = make("tr", {}, name, how, ...cells);
  const error = make("td", { colspan: COLUMNS, class: "worker-error" });
  const errorRow = make("tr", { class: "error-row", hidden: true }, error);
  return { root: make("tbody", {}, row, errorRow), place, picture, state, beat, cells, error, errorRow };
}

const whereOf = ({ slot, hostname, process_id: pid }) => [slot && `slot ${slot.split(":").at(-1)}`, `${hostname}:${pid}`].filter(Boolean).join(" · ");

function update(row, worker) {
  const [family, word] = look(worker);
  setAttribute(row.root, "data-status", family);
  setText(row.place, whereOf(worker));
  setAttribute(row.place, "title", `${worker.slot || "foreground worker"}, process ${worker.process_id} on ${worker.hostname}`);
  setIcon(row.picture, `status-${family}`);
  setText(row.state, word);
  setText(row.beat.lastChild, age(worker.heartbeat_age_seconds));
  setAttribute(row.beat, "title", `Last heartbeat ${age(worker.heartbeat_age_seconds)} ago`);
  const values = [
    [exact(worker.partitions.length), worker.partitions.join(", ") || "None"],
    [rate(worker.events_per_second), `${inFull(worker.events_per_second, "events a second")}; ${count(worker.records, "record")} since it started`],
    [bytes(worker.memory_bytes), null],
    [brief(worker.batch_in_hand), inFull(worker.batch_in_hand, "records fetched and not yet committed")],
    [exact(worker.fenced_commits), null],
  ];
  values.forEach(([text, title], index) => {
    setText(row.cells[index], text);
    setAttribute(row.cells[index], "title", title);
  });
  setAttribute(row.cells.at(-1), "data-some", worker.fenced_commits > 0);
  setHidden(row.errorRow, !worker.last_error);
  setText(row.error, worker.last_error);
  setAttribute(row.error, "title", worker.last_error || null);
}

const rows = new Map();

/** The troubled first, otherwise by name: a list this short is found again at a glance. */
function ordered(workers) {
  const order = ["dead", "running", "stopping", "stopped"];
  return [...workers].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.worker_id.localeCompare(b.worker_id));
}

export function showWorkers({ workers, fenced_commits: fenced }) {
  const states = workers.map((one) => look(one)[1].toLowerCase());
  const parts = [...new Set(states)].map((word) => `${exact(states.filter((one) => one === word).length)} ${word}`);
  const alive = workers.filter((one) => one.state === "running").length;
  if (fenced) parts.push(`${count(fenced, "stale commit")} refused`);
  setText(byId("workers-sum"), workers.length ? parts.join(" · ") : "");
  setHidden(byId("workers-empty"), alive > 0);
  const table = byId("workers");
  keyed(table, rows, ordered(workers), (one) => one.worker_id, create, update, table.tHead.nextElementSibling);
}
