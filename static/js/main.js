// Puts the page together: a snapshot comes in, each part shows its share, and none can break another.
import { Actions } from "./actions.js";
import { announceChanges } from "./announcer.js";
import { MinutesChart } from "./chart.js";
import { byId, make } from "./dom.js";
import { Feed } from "./feed.js";
import { clock } from "./format.js";
import { Freshness, skewOf } from "./freshness.js";
import { showHeadline } from "./headline.js";
import { showInvariantDetails, startInvariants } from "./invariants.js";
import { showJournal } from "./journal.js";
import { Live } from "./live.js";
import { Partitions } from "./partitions.js";
import { startMenu } from "./menu.js";
import { evict, ofPartition, reconcile, replay } from "./plans.js";
import { Recovery } from "./recovery.js";
import { nameOf } from "./statuses.js";
import { startTheme } from "./theme.js";
import { showTiles } from "./tiles.js";
import { Workers } from "./workers.js";

const VERSION = 1; // of the snapshot
const { websocketPath, loginUrl, servedAt, canOperate } = byId("page").dataset;

startTheme();
startMenu();
startInvariants();
const freshness = new Freshness(skewOf(Number(servedAt)));
const live = new Live(freshness);
const actions = new Actions();
const open = (plan) => actions.open(plan);
const partitions = new Partitions(canOperate === "yes", (kind, id) => open(planOf(kind, partitions.get(id))));
const workers = new Workers(canOperate === "yes", (worker) => open(evict(worker)));
const recovery = new Recovery(canOperate === "yes", open);
const chart = new MinutesChart();

const parts = [
  ["headline", showHeadline],
  ["headline", showTiles],
  ["partitions-panel", (snapshot) => partitions.show(snapshot)],
  ["minutes-panel", (snapshot) => chart.show(snapshot)],
  ["workers-panel", (snapshot) => workers.show(snapshot)],
  ["incidents-panel", (snapshot) => recovery.show(snapshot)],
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
  const words = `A part of this has failed since ${clock(new Date())} (${error.message}); the rest of the page is live. Reload to try again.`;
  const note = make("p", { class: "note part-failed", "data-level": "error" }, words);
  failures.set(index, note);
  byId(parts[index][0]).append(note);
}

function show(snapshot) {
  if (snapshot.version !== VERSION) {
    live.connection({ kind: "over", reason: "The server was updated and says more than this page understands. Reload it." });
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
