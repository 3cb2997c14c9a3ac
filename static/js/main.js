// Puts the page together: a snapshot comes in, each part shows its share, and none can break another.
import { Actions } from "./actions/dialog.js";
import { evict, ofPartition, reconcile, replay } from "./actions/plans.js";
import { Live } from "./live/connection.js";
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
const live = new Live(freshness);
const actions = new Actions();
const open = (plan) => actions.open(plan);
const operator = { canOperate: canOperate === "yes", open };
const partitions = new Partitions(operator.canOperate, (kind, id) => open(planOf(kind, partitions.get(id))));
const workers = new Workers(operator.canOperate, (worker) => open(evict(worker)));
const recovery = {
  "incidents-panel": new IncidentsPanel(operator),
  "uncounted-panel": new UncountedPanel(operator),
  "dead-letters-panel": new DeadLettersPanel(operator),
  "replays-panel": new ReplaysPanel(operator),
  "actions-panel": new ActionsPanel(operator),
};
const chart = new MinutesChart();

const parts = [
  ["headline", showHeadline],
  ["headline", showTiles],
  ["partitions-panel", (snapshot) => partitions.show(snapshot)],
  ["minutes-panel", (snapshot) => chart.show(snapshot)],
  ["workers-panel", (snapshot) => workers.show(snapshot)],
  ...Object.entries(recovery).map(([id, panel]) => [id, (snapshot) => panel.show(snapshot)]),
  ["journal-panel", showJournal],
  ["headline", showInvariantDetails],
  ["partitions-panel", (snapshot) => actions.confirm(snapshot)],
  ["headline", announceChanges],
];

function planOf(kind, partition) {
  const [what, store] = kind.split(":");
  if (what === "reconcile") return reconcile(partition, store);
  if (what === "replay") return replay(partition.checkpoint_id, nameOf(partition));
  return ofPartition(kind, partition);
}

const failures = new Map();

/** A part that fails says so, with the time, and leaves the others alone. */
function failed(index, error) {
  if (failures.has(index)) return;
  console.error(error);
  const words = `Failed to update since ${clock(new Date())}: ${error.message}. The rest of the page is live. Reload to try again.`;
  const note = make("p", { class: "note part-failed", "data-level": "error" }, words);
  failures.set(index, note);
  byId(parts[index][0]).append(note);
}

function show(snapshot) {
  if (snapshot.version !== VERSION) {
    live.connection({ kind: "over", reason: "The server was updated, and this page is out of date. Reload it." });
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
  live.tick();
}

function connection(state) {
  if (state.kind === "logged-out") {
    location.assign(`${loginUrl}?next=${encodeURIComponent(location.pathname)}`);
  }
  live.connection(state);
}

new Feed(websocketPath, show, connection).connect();
