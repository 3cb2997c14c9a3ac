// Incidents: what is wrong, since when, and the action that resolves it.
import { evict, ofPartition, replay, retire } from "../actions/plans.js";
import { byId, setAttribute, setText } from "../ui/dom.js";
import { duration, exact, moment } from "../ui/format.js";
import { lead, Table, text } from "../ui/table.js";
import { showIncident } from "./detail-dialog.js";
import { kindName, secondsBetween } from "./recovery.js";

/**
 * The plan is null where the action does not apply.
 * @typedef {(incident: IncidentSnapshot, snapshot: Snapshot) => Plan | null} PlanMaker
 * @typedef {{ verb: string, plan: PlanMaker }} Remedy
 */

const EVICT = { verb: "Evict", plan: evictWorker };
const REPLAY = { verb: "Replay", plan: replayFailed };
const RETIRE = { verb: "Retire", plan: retireTopic };
/**
 * The action that resolves each kind of incident.
 * @type {Record<string, Remedy>}
 */
const REMEDIES = {
  worker_dead: EVICT,
  worker_stuck: EVICT,
  stalled: EVICT,
  halted_expired: { verb: "Accept loss", plan: partitionPlan("accept_loss") },
  halted_recreated: { verb: "Restart", plan: partitionPlan("restart") },
  halted_truncated: { verb: "Restart", plan: partitionPlan("restart") },
  halted_unreadable: { verb: "Skip", plan: partitionPlan("skip") },
  halted_store_missing: { verb: "Seek", plan: partitionPlan("seek") },
  circuit_breaker: { verb: "Resume", plan: partitionPlan("resume") },
  failed_ranges: REPLAY,
  retention: REPLAY,
  topic_missing: RETIRE,
  topic_unread: RETIRE,
};

/** @type {PlanMaker} */
function evictWorker({ worker_id: id }, { workers }) {
  const worker = workers.find(({ worker_id: workerId, state }) => workerId === id && state !== "stopped");
  return worker ? evict(worker) : null;
}

/**
 * @param {string} kind
 * @returns {PlanMaker}
 */
function partitionPlan(kind) {
  return ({ checkpoint_id: id }, { partitions }) => {
    const partition = partitions.find(({ checkpoint_id: checkpointId }) => checkpointId === id);
    return partition ? ofPartition(kind, partition) : null;
  };
}

/** @type {PlanMaker} */
function replayFailed({ checkpoint_id: id, subject, ranges }) {
  const failed = ranges.filter(({ kind }) => kind === "failed");
  return failed.length && id !== null ? replay(id, subject, failed) : null;
}

/** @type {PlanMaker} */
function retireTopic({ subject: topic }, { partitions }) {
  return partitions.some((partition) => partition.topic === topic) ? retire(topic) : null;
}

/** @type {PlanMaker} */
const planFor = (incident, snapshot) =>
  incident.closed_at ? null : (REMEDIES[incident.kind]?.plan(incident, snapshot) ?? null);
/** @param {IncidentSnapshot} incident */
const nameOf = ({ kind, subject }) => `${kindName(kind)}: ${subject}`;

/** @param {IncidentSnapshot} incident */
function statusOf({ closed_at: closed, severity }) {
  if (closed) return "";
  return severity === "critical" ? "halted" : "late";
}

/**
 * @param {IncidentSnapshot} incident
 * @param {Snapshot} snapshot
 */
function recoveredIn({ opened_at: opened, closed_at: closed, recover_seconds: seconds }, { taken_at: now }) {
  return closed ? duration(seconds) : `open for ${duration(secondsBetween(opened, now))}`;
}

export class IncidentsPanel {
  /** @type {Table<IncidentSnapshot>} */
  #table;

  /** @param {Operator} operator */
  constructor({ canOperate, open }) {
    this.#table = new Table("incidents", {
      keyOf: ({ id }) => id,
      columns: [
        lead(nameOf, ({ summary }) => summary, { status: statusOf }),
        text(({ began_at: began }) => moment(began)),
        text(({ detect_seconds: seconds }) => duration(seconds)),
        text(recoveredIn),
      ],
      buttons: [
        {
          kind: "remedy",
          word: ({ kind }) => `${REMEDIES[kind].verb} …`,
          label: (incident) => `${REMEDIES[incident.kind].verb} to resolve ${nameOf(incident)}`,
          fits: (incident, snapshot) => canOperate && planFor(incident, snapshot) !== null,
          press(incident, snapshot) {
            const plan = planFor(incident, snapshot);
            if (plan) open(plan);
          },
        },
        {
          kind: "look",
          word: () => "Timeline",
          label: (incident) => `Timeline of ${nameOf(incident)}`,
          fits: () => true,
          press: showIncident,
        },
      ],
    });
  }

  /** @param {Snapshot} snapshot */
  show(snapshot) {
    const { incidents } = snapshot.recovery;
    const open = incidents.filter(({ closed_at: closed }) => !closed).length;
    const resolved = incidents.length - open;
    const parts = [open ? `${exact(open)} open` : "None open", ...(resolved ? [`${exact(resolved)} resolved`] : [])];
    setText(byId("incidents-sum"), incidents.length ? parts.join(" · ") : "");
    setAttribute(byId("incidents-panel"), "data-some", open > 0);
    this.#table.show(incidents, snapshot);
  }
}
