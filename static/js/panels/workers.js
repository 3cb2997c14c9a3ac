// Who works, and how they are; dead and silent ones cannot be overlooked.
import { byId, icon, keyed, make, setAttribute, setHidden, setIcon, setText } from "../ui/dom.js";
import { age, brief, bytes, count, duration, exact, inFull, rate } from "../ui/format.js";

const HEARTBEAT_LATE_SECONDS = 5;
const LONG_STAGE_SECONDS = 5;
const COLUMNS = 8;
const NUMBERS = ["Partitions", "Events/s", "Memory", "In flight", "Fenced"];

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

function create(worker, canOperate) {
  const cells = NUMBERS.map((label) => make("td", { class: "num", "data-label": label }));
  const place = make("span", { class: "worker-place" });
  const picture = icon("status-none");
  const state = make("span");
  const beat = make("span", { class: "heartbeat" }, icon("icon-heart"), make("span"));
  const name = make("th", { scope: "row" }, make("span", { class: "ellipsis" }, worker.worker_id), place);
  const how = make("td", {}, make("span", { class: "badge" }, picture, state), beat);
  const button = make(
    "button",
    { type: "button", class: "button quiet", "aria-label": `Evict ${worker.worker_id}` },
    "Evict …",
  );
  const row = make("tr", {}, name, how, ...cells, make("td", {}, ...(canOperate ? [button] : [])));
  const error = make("td", { colspan: COLUMNS, class: "worker-error" });
  const errorRow = make("tr", { class: "error-row", hidden: true }, error);
  return {
    root: make("tbody", { "data-id": worker.worker_id }, row, errorRow),
    place,
    picture,
    state,
    beat,
    cells,
    error,
    errorRow,
    button,
  };
}

const whereOf = ({ slot, hostname, process_id: pid }) =>
  [slot && `slot ${slot.split(":").at(-1)}`, `${hostname}:${pid}`].filter(Boolean).join(" · ");

function update(row, worker) {
  const [family, word] = look(worker);
  setAttribute(row.root, "data-status", family);
  setText(row.place, whereOf(worker));
  setAttribute(
    row.place,
    "title",
    `${worker.slot || "foreground worker"}, process ${worker.process_id} on ${worker.hostname}`,
  );
  setIcon(row.picture, `status-${family}`);
  setText(row.state, word);
  setText(row.beat.lastChild, age(worker.heartbeat_age_seconds));
  setAttribute(row.beat, "title", `Last heartbeat ${age(worker.heartbeat_age_seconds)} ago`);
  const values = [
    [exact(worker.partitions.length), worker.partitions.join(", ") || "None"],
    [
      rate(worker.events_per_second),
      `${inFull(worker.events_per_second, "events per second")}; ${count(worker.records, "record")} since it started`,
    ],
    [bytes(worker.memory_bytes), null],
    [brief(worker.batch_in_hand), inFull(worker.batch_in_hand, "records fetched but not yet committed")],
    [exact(worker.fenced_commits), null],
  ];
  values.forEach(([text, title], index) => {
    setText(row.cells[index], text);
    setAttribute(row.cells[index], "title", title);
  });
  setAttribute(row.cells.at(-1), "data-some", worker.fenced_commits > 0);
  // Whoever ended without a word and owns nothing has nothing that could be taken from it.
  setHidden(row.button, worker.state === "stopped" || (worker.state === "dead" && !worker.partitions.length));
  const trouble = troubleOf(worker);
  setHidden(row.errorRow, !trouble);
  setText(row.error, trouble);
  setAttribute(row.error, "title", trouble || null);
}

/** What is wrong in its own words, or what has kept it busy for long. */
function troubleOf({ last_error: error, stage, stage_seconds: seconds }) {
  if (error) return error;
  return stage && seconds > LONG_STAGE_SECONDS ? `${stage} for ${duration(seconds)}` : "";
}

/** The troubled first, otherwise by name: a list this short is found again at a glance. */
function ordered(workers) {
  const order = ["dead", "running", "stopping", "stopped"];
  return [...workers].sort(
    (a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.worker_id.localeCompare(b.worker_id),
  );
}

export class Workers {
  #rows = new Map();
  #workers = [];
  #canOperate;

  constructor(canOperate, onEvict) {
    this.#canOperate = canOperate;
    byId("workers").addEventListener("click", (event) => {
      const body = event.target.closest("button") && event.target.closest("tbody");
      const worker = body && this.#workers.find((one) => one.worker_id === body.dataset.id);
      if (worker) onEvict(worker);
    });
  }

  show({ workers, fenced_commits: fenced }) {
    this.#workers = workers;
    summarise(workers, fenced);
    const table = byId("workers");
    const made = (one) => create(one, this.#canOperate);
    keyed(table, this.#rows, ordered(workers), (one) => one.worker_id, made, update, table.tHead.nextElementSibling);
  }
}

function summarise(workers, fenced) {
  const states = workers.map((one) => look(one)[1].toLowerCase());
  const parts = [...new Set(states)].map((word) => `${exact(states.filter((one) => one === word).length)} ${word}`);
  const alive = workers.filter((one) => one.state === "running").length;
  if (fenced) parts.push(count(fenced, "fenced commit"));
  setText(byId("workers-sum"), workers.length ? parts.join(" · ") : "");
  setHidden(byId("workers-empty"), alive > 0);
}
