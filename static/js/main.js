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
import { startTheme } from "./theme.js";
import { showTiles } from "./tiles.js";
import { showWorkers } from "./workers.js";

const VERSION = 1; // of the snapshot
const { websocketPath, loginUrl, servedAt, canOperate } = byId("page").dataset;

startTheme();
startMenu();
startInvariants();
const freshness = new Freshness(skewOf(Number(servedAt)));
const live = new Live(freshness);
const actions = new Actions((id) => partitions.get(id));
const partitions = new Partitions(canOperate === "yes", (kind, id) => actions.open(kind, id));
const chart = new MinutesChart();

const parts = [
  ["headline", showHeadline],
  ["headline", showTiles],
  ["partitions-panel", (snapshot) => partitions.show(snapshot)],
  ["minutes-panel", (snapshot) => chart.show(snapshot)],
  ["workers-panel", showWorkers],
  ["journal-panel", showJournal],
  ["headline", showInvariantDetails],
  ["partitions-panel", () => actions.confirm()],
  ["headline", announceChanges],
];

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
