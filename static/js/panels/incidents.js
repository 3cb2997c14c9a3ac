// Incidents: what is wrong, since when, and the action that resolves it.
import { evict, ofPartition, replay } from "../actions/plans.js";
import { byId, setAttribute, setText } from "../ui/dom.js";
import { duration, exact, moment } from "../ui/format.js";
import { lead, List, text } from "../ui/table.js";
import { showIncident } from "./detail-dialog.js";
import { secondsBetween, words } from "./recovery.js";

/** The plan of the action that resolves an incident; null where nothing on this page does. */
const REMEDIES = {
  worker_dead: evictWorker,
  worker_stuck: evictWorker,
  stalled: evictWorker,
  halted_expired: (incident, snapshot) => partitionPlan("accept_loss", incident, snapshot),
  halted_recreated: (incident, snapshot) => partitionPlan("restart", incident, snapshot),
  halted_truncated: (incident, snapshot) => partitionPlan("restart", incident, snapshot),
  halted_store_missing: (incident, snapshot) => partitionPlan("seek", incident, snapshot),
  circuit_breaker: (incident, snapshot) => partitionPlan("resume", incident, snapshot),
  failed_ranges: replayFailed,
  retention: replayFailed,
};

function evictWorker({ worker_id: id }, { workers }) {
  const worker = workers.find(({ worker_id: workerId, state }) => workerId === id && state !== "stopped");
  return worker ? evict(worker) : null;
}

function partitionPlan(kind, { checkpoint_id: id }, { partitions }) {
  const partition = partitions.find(({ checkpoint_id: checkpointId }) => checkpointId === id);
  return partition ? ofPartition(kind, partition) : null;
}

function replayFailed({ checkpoint_id: id, subject, ranges }) {
  const failed = ranges.filter(({ kind }) => kind === "failed");
  return failed.length ? replay(id, subject, failed) : null;
}

const remedyOf = (incident, snapshot) => (incident.closed_at ? null : (REMEDIES[incident.kind]?.(incident, snapshot) ?? null));
const nameOf = ({ kind, subject }) => `${words(kind)}: ${subject}`;

function statusOf({ closed_at: closed, severity }) {
  if (closed) return "";
  return severity === "critical" ? "halted" : "late";
}

function recovery({ opened_at: opened, closed_at: closed, recover_seconds: seconds }, { taken_at: now }) {
  return closed ? duration(seconds) : `open for ${duration(secondsBetween(opened, now))}`;
}

export class IncidentsPanel {
  #list;

  constructor({ canOperate, open }) {
    this.#list = new List("incidents", {
      columns: [
        lead(nameOf, ({ summary }) => summary, { status: statusOf }),
        text(({ began_at: began }) => moment(began)),
        text(({ detect_seconds: seconds }) => duration(seconds)),
        text(recovery),
      ],
      buttons: [
        {
          kind: "remedy",
          word: () => "Act …",
          label: (incident) => `Act on ${nameOf(incident)}`,
          fits: (incident, snapshot) => canOperate && remedyOf(incident, snapshot) !== null,
          press: (incident, snapshot) => open(remedyOf(incident, snapshot)),
        },
        { kind: "look", word: () => "Timeline", label: (incident) => `Timeline of ${nameOf(incident)}`, fits: () => true, press: showIncident },
      ],
    });
  }

  show(snapshot) {
    const { incidents } = snapshot.recovery;
    const open = incidents.filter(({ closed_at: closed }) => !closed).length;
    setText(byId("incidents-sum"), incidents.length ? `${open ? `${exact(open)} open` : "None open"}; those that are over follow` : "");
    setAttribute(byId("incidents-panel"), "data-some", open > 0);
    this.#list.show(incidents, snapshot);
  }
}
