// The workers; dead and silent ones stand out.
import { byId, icon, keyed, make, setAttribute, setHidden, setIcon, setText } from "../ui/dom.js";
import { age, brief, bytes, count, duration, exact, inFull, rate } from "../ui/format.js";

const HEARTBEAT_LATE_SECONDS = 5;
const LONG_STAGE_SECONDS = 5;
const COLUMNS = 8;
const NUMBERS = ["Partitions", "Events/s", "Memory", "In flight", "Fenced"];

/** @type {Record<string, [string, string]>} */
const STATES = {
  running: ["ok", "Running"],
  stopping: ["paused", "Stopping"],
  stopped: ["none", "Stopped"],
  dead: ["halted", "Dead"],
};

/**
 * The family and the word of a worker's state.
 * @param {WorkerSnapshot} worker
 */
function stateOf({ state, heartbeat_age_seconds: seconds }) {
  if (state === "running" && seconds > HEARTBEAT_LATE_SECONDS) return ["late", "Silent"];
  return STATES[state] ?? ["stuck", state];
}

/**
 * @param {WorkerSnapshot} worker
 * @param {boolean} canOperate
 */
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

/** @param {WorkerSnapshot} worker */
const whereOf = ({ slot, hostname, process_id: pid }) =>
  [slot && `slot ${slot.split(":").at(-1)}`, `${hostname}:${pid}`].filter(Boolean).join(" · ");

/**
 * @param {ReturnType<typeof create>} row
 * @param {WorkerSnapshot} worker
 */
function update(row, worker) {
  const [family, word] = stateOf(worker);
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
  /** @type {[string, string | null][]} */
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
  setAttribute(row.cells[NUMBERS.length - 1], "data-some", worker.fenced_commits > 0);
  // A dead worker that owns nothing needs no eviction.
  setHidden(row.button, worker.state === "stopped" || (worker.state === "dead" && !worker.partitions.length));
  const trouble = troubleOf(worker);
  setHidden(row.errorRow, !trouble);
  setText(row.error, trouble);
  setAttribute(row.error, "title", trouble || null);
}

/**
 * Its last error, or the stage that has kept it busy for long.
 * @param {WorkerSnapshot} worker
 */
function troubleOf({ last_error: error, stage, stage_seconds: seconds }) {
  if (error) return error;
  return stage && seconds !== null && seconds > LONG_STAGE_SECONDS ? `${stage} for ${duration(seconds)}` : "";
}

/**
 * Dead ones first, then by name.
 * @param {WorkerSnapshot[]} workers
 */
function ordered(workers) {
  const order = ["dead", "running", "stopping", "stopped"];
  return [...workers].sort(
    (a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.worker_id.localeCompare(b.worker_id),
  );
}

export class Workers {
  /** @type {Map<string, ReturnType<typeof create>>} */
  #rows = new Map();
  /** @type {WorkerSnapshot[]} */
  #workers = [];
  #canOperate;

  /**
   * @param {boolean} canOperate
   * @param {(worker: WorkerSnapshot) => void} onEvict
   */
  constructor(canOperate, onEvict) {
    this.#canOperate = canOperate;
    byId("workers").addEventListener("click", (event) => {
      const target = /** @type {Element} */ (event.target);
      const body = target.closest("button") && target.closest("tbody");
      const worker = body && this.#workers.find(({ worker_id: id }) => id === body.dataset.id);
      if (worker) onEvict(worker);
    });
  }

  /** @param {Snapshot} snapshot */
  show({ workers, fenced_commits: fenced }) {
    this.#workers = workers;
    summarise(workers, fenced);
    /** @type {HTMLTableElement} */
    const table = byId("workers");
    keyed(
      table,
      this.#rows,
      ordered(workers),
      (worker) => worker.worker_id,
      (worker) => create(worker, this.#canOperate),
      update,
      table.tHead?.nextElementSibling,
    );
  }
}

/**
 * @param {WorkerSnapshot[]} workers
 * @param {number} fenced
 */
function summarise(workers, fenced) {
  const states = workers.map((worker) => stateOf(worker)[1].toLowerCase());
  const parts = [...new Set(states)].map((word) => `${exact(states.filter((state) => state === word).length)} ${word}`);
  const alive = workers.filter(({ state }) => state === "running").length;
  if (fenced) parts.push(count(fenced, "fenced commit"));
  setText(byId("workers-sum"), workers.length ? parts.join(" · ") : "");
  setHidden(byId("workers-empty"), alive > 0);
}
