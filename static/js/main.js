// Assembles the page: each part shows its share of a snapshot, and none can break another.
import { ActionDialog } from "./actions/dialog.js";
import { evict, ofPartition, reconcile, replay } from "./actions/plans.js";
import { Connection } from "./live/connection.js";
import { Feed } from "./live/feed.js";
import { Freshness, skewOf } from "./live/freshness.js";
import { showHeadline } from "./overview/headline.js";
import { showInvariantDetails, startInvariants } from "./overview/invariants.js";
import { MinutesChart } from "./overview/minutes-chart.js";
import { showTiles } from "./overview/tiles.js";
import { ActionsPanel } from "./panels/actions.js";
import { DeadLettersPanel } from "./panels/dead-letters.js";
import { IncidentsPanel } from "./panels/incidents.js";
import { showJournal } from "./panels/journal.js";
import { showLoops } from "./panels/loops.js";
import { ReplaysPanel } from "./panels/replays.js";
import { UncountedPanel } from "./panels/uncounted.js";
import { Workers } from "./panels/workers.js";
import { Partitions } from "./partitions/table.js";
import { byId, make } from "./ui/dom.js";
import { clock } from "./ui/format.js";
import { announceChanges } from "./ui/live-region.js";
import { startMenu } from "./ui/menu.js";
import { nameOf } from "./ui/statuses.js";
import { startTheme } from "./ui/theme.js";

const VERSION = 1; // of the snapshot
const { websocketPath, loginUrl, servedAt, canOperate } = byId("page").dataset;

startTheme();
startMenu();
startInvariants();
const freshness = new Freshness(skewOf(Number(servedAt)));
const connection = new Connection(freshness);
const dialog = new ActionDialog();
/** @param {Plan} plan */
const open = (plan) => dialog.open(plan);
const operator = { canOperate: canOperate === "yes", open };
const partitions = new Partitions(operator.canOperate, (action, id) => {
  const partition = partitions.get(id);
  if (partition) open(planOf(action, partition));
});
const workers = new Workers(operator.canOperate, (worker) => open(evict(worker)));
const incidents = new IncidentsPanel(operator);
const uncounted = new UncountedPanel(operator);
const deadLetters = new DeadLettersPanel(operator);
const replays = new ReplaysPanel(operator);
const actions = new ActionsPanel(operator);
const chart = new MinutesChart();

/** Each part with the id of the element that shows its failure. @type {[string, (snapshot: Snapshot) => void][]} */
const parts = [
  ["headline", showHeadline],
  ["headline", showTiles],
  ["partitions-panel", (snapshot) => partitions.show(snapshot)],
  ["minutes-panel", (snapshot) => chart.show(snapshot)],
  ["workers-panel", (snapshot) => workers.show(snapshot)],
  ["loops-panel", showLoops],
  ["incidents-panel", (snapshot) => incidents.show(snapshot)],
  ["uncounted-panel", (snapshot) => uncounted.show(snapshot)],
  ["dead-letters-panel", (snapshot) => deadLetters.show(snapshot)],
  ["replays-panel", (snapshot) => replays.show(snapshot)],
  ["actions-panel", (snapshot) => actions.show(snapshot)],
  ["journal-panel", showJournal],
  ["headline", showInvariantDetails],
  ["partitions-panel", (snapshot) => dialog.confirm(snapshot)],
  ["headline", announceChanges],
];

/**
 * @param {string} action
 * @param {PartitionSnapshot} partition
 */
function planOf(action, partition) {
  const [kind, store] = action.split(":");
  if (kind === "reconcile") return reconcile(partition, store);
  if (kind === "replay") return replay(partition.checkpoint_id, nameOf(partition));
  return ofPartition(kind, partition);
}

/** @type {Map<number, HTMLElement>} */
const failures = new Map();

/**
 * A part that fails is marked with the time; the others go on.
 * @param {number} index
 * @param {unknown} error
 */
function failed(index, error) {
  if (failures.has(index)) return;
  console.error(error);
  const text = `Failed to update since ${clock(new Date())}: ${error instanceof Error ? error.message : error}. The rest of the page is live. Reload to try again.`;
  const note = make("p", { class: "note part-failed", "data-level": "error" }, text);
  failures.set(index, note);
  byId(parts[index][0]).append(note);
}

/** @param {Snapshot} snapshot */
function show(snapshot) {
  if (snapshot.version !== VERSION) {
    connection.changed({ kind: "over", reason: "The server was updated, and this page is out of date. Reload it." });
    return;
  }
  freshness.heard(snapshot.taken_at);
  for (const [index, [, part]] of parts.entries()) {
    try {
      part(snapshot);
      failures.get(index)?.remove();
      failures.delete(index);
    } catch (error) {
      failed(index, error);
    }
  }
  connection.tick();
}

/** @param {ConnectionState} state */
function connectionChanged(state) {
  if (state.kind === "logged-out") {
    location.assign(`${loginUrl}?next=${encodeURIComponent(location.pathname)}`);
  }
  connection.changed(state);
}

new Feed(websocketPath ?? "", show, connectionChanged).connect();
