// The actions of an operator, as plans for the dialog.

import { clock, count, duration, exact, rate } from "../ui/format.js";
import { nameOf, storeName } from "../ui/statuses.js";
import { ActionError, read, send } from "./client.js";

const now = () => clock(new Date());

// --- Partitions -----------------------------------------------------------------------------------

/** @typedef {(partition: PartitionSnapshot, after: any) => boolean} Confirmed whether the ledger shows the outcome */

/** A seek begins a new epoch; a rebuild, a new checkpoint. @type {Confirmed} */
const moved = (partition, after) => partition.epoch >= after.epoch;
/** @type {Record<string, { word: string, done: Confirmed }>} */
const KINDS = {
  pause: { word: "Pause", done: ({ desired_state: state }) => state === "paused" },
  resume: { word: "Resume", done: ({ desired_state: state }) => state === "running" },
  seek: { word: "Seek", done: moved },
  skip: { word: "Skip offsets of", done: moved },
  accept_loss: { word: "Accept loss of", done: moved },
  rebuild: { word: "Rebuild", done: moved },
  restart: { word: "Restart", done: moved },
};
const TARGET = {
  name: "target",
  label: "Next offset to read",
  hint: "An offset, earliest or latest. The preview shows the effect.",
  missing: "Enter an offset, earliest or latest.",
};

/**
 * @param {string} kind
 * @param {PartitionSnapshot} partition
 * @returns {Plan}
 */
export function ofPartition(kind, partition) {
  const { word, done } = KINDS[kind];
  const name = nameOf(partition);
  const id = partition.checkpoint_id;
  return {
    title: `${word} ${name}`,
    button: `${word} ${name}`,
    kind,
    fields: kind === "seek" || kind === "skip" ? [TARGET] : [],
    async preview({ target }) {
      const shown = await read(`api/partitions/${id}/preview/${kind}/`, { to: target });
      // "latest" is the offset that was shown, not the log end by then.
      return { ...shown, token: { seen: shown.seen, to: target === undefined ? undefined : shown.to } };
    },
    apply: (reason, token) => send(`api/partitions/${id}/${kind}/`, { reason, ...token }),
    done(answer, { partitions }) {
      const shown = partitions.find((candidate) => candidate.checkpoint_id === (answer.after.checkpoint_id ?? id));
      if (!shown || !done(shown, answer.after)) return null;
      const state = kind === "pause" || kind === "resume" ? shown.desired_state : shown.status;
      return `Done: the ledger shows ${name} as ${state} at ${now()}, at offset ${exact(shown.next_offset)}.`;
    },
  };
}

/**
 * All partitions of a topic, whose counts stay.
 * @param {string} topic
 * @returns {Plan}
 */
export function retire(topic) {
  return {
    title: `Retire topic ${topic}`,
    button: `Retire ${topic}`,
    fields: [],
    async preview() {
      const { text, seen } = await read("api/retire/", { topic });
      return { text, token: { seen } };
    },
    apply: (reason, token) => send("api/retire/", { reason, ...token }),
    done: (answer, { partitions }) =>
      partitions.some((partition) => partition.topic === topic)
        ? null
        : `Done: the page no longer shows ${topic} at ${now()}; its counts stay. Undo: action ${answer.action_id}.`,
  };
}

/**
 * Update a store from the ledger; the other direction is a seek.
 * @param {PartitionSnapshot} partition
 * @param {string} store
 * @returns {Plan}
 */
export function reconcile(partition, store) {
  const name = nameOf(partition);
  const path = `api/partitions/${partition.checkpoint_id}/reconcile/${store}/`;
  return {
    title: `Reconcile ${storeName(store)} store of ${name}`,
    button: `Update ${storeName(store)} store`,
    fields: [],
    async preview() {
      const { text, stored } = await read(path);
      return { text, token: { stored } };
    },
    apply: (reason, token) => send(path, { reason, ...token }),
    done: (answer) => `Done: ${answer.detail} While the group is active, the owner commits to Kafka within 1 s.`,
  };
}

// --- Offsets that were not counted ----------------------------------------------------------------

const START = {
  name: "start",
  label: "From offset",
  missing: "Enter the first offset and the end offset (exclusive).",
};
const END = {
  name: "end",
  label: "To offset (exclusive)",
  hint: "Offsets that are already counted are not counted again.",
  missing: START.missing,
};

const RATE = { name: "rate", label: "Maximum records per second", hint: "Leave empty for no limit.", optional: true };

/** @param {ReplaySnapshot} replay */
export function progressOf({ done_offsets: done, total_offsets: total, offsets_per_second: speed, eta_seconds: eta }) {
  const parts = [`${exact(done)} of ${count(total, "offset")}`];
  if (speed !== null) parts.push(`${rate(speed)} per second`);
  if (eta !== null) parts.push(`${duration(eta)} left`);
  return parts.join(", ");
}

/**
 * One range, or several of one partition; without any, the operator enters one.
 * @param {number} id
 * @param {string} name
 * @param {{ start?: any, end?: any }[] | null} ranges
 * @returns {Plan}
 */
export function replay(id, name, ranges = null) {
  return {
    title: `Replay offsets of ${name}`,
    button: `Replay ${name}`,
    fields: ranges ? [RATE] : [START, END, RATE],
    async preview({ start, end, rate: limit }) {
      if (limit && !(Number(limit) >= 1))
        throw new ActionError(`Invalid rate '${limit}'. Enter a whole number above 0, or leave it empty.`, 400);
      const wanted = ranges ?? [{ start, end }];
      const plans = await Promise.all(
        wanted.map((range) => read("api/replays/preview/", { checkpoint_id: id, start: range.start, end: range.end })),
      );
      const token = plans.map((plan) => ({
        checkpoint_id: id,
        start: plan.start,
        end: plan.end,
        to_count: plan.to_count,
      }));
      return { text: plans.map((plan) => plan.text).join(" "), token };
    },
    apply: (reason, token, { rate: limit }) =>
      send("api/replays/", { reason, ranges: token, records_per_second: limit ? Number(limit) : null }),
    progress(answer, { recovery }) {
      const replay = recovery.replays.find(({ id: replayId }) => replayId === answer.replay_id);
      return replay ? { value: replay.done_offsets, max: replay.total_offsets, text: progressOf(replay) } : null;
    },
    done(answer, { recovery }) {
      const replay = recovery.replays.find(({ id: replayId }) => replayId === answer.replay_id);
      if (!replay || replay.finished_at === null) return null;
      return `Replay ${replay.id} is ${replay.status}: ${replay.detail}`;
    },
    patient: true,
  };
}

/** @type {(range: UncountedSnapshot, name: string) => Plan} */
export const acceptFailed = ({ checkpoint_id: id, start, end }, name) => ({
  title: `Accept failed offsets of ${name}`,
  button: "Accept as uncounted",
  fields: [],
  async preview() {
    const shown = await read("api/failed/accept/", { checkpoint_id: id, start, end });
    return { text: shown.text, token: { checkpoint_id: id, start, end, failed: shown.failed } };
  },
  apply: (reason, token) => send("api/failed/accept/", { reason, ...token }),
  done(_answer, { recovery }) {
    const left = recovery.uncounted.some(
      (range) => range.checkpoint_id === id && range.kind === "failed" && range.start < end && start < range.end,
    );
    return left ? null : `Done: the ledger shows no failed offsets of ${name} in this range at ${now()}.`;
  },
});

/** @type {(replay: ReplaySnapshot) => Plan} */
export const cancelReplay = ({ id }) => ({
  title: `Cancel replay ${id}`,
  button: `Cancel replay ${id}`,
  fields: [],
  async preview() {
    return { ...(await read(`api/replays/${id}/cancel/`)), token: {} };
  },
  apply: (reason) => send(`api/replays/${id}/cancel/`, { reason }),
  done(_answer, { recovery }) {
    const replay = recovery.replays.find(({ id: replayId }) => replayId === id);
    return replay?.finished_at ? `Replay ${id} is ${replay.status}: ${replay.detail}` : null;
  },
});

// --- Dead letters, workers, actions ---------------------------------------------------------------

/** @type {Record<string, string>} */
const DEAD_LETTER_WORDS = { requeue: "Requeue", discard: "Discard", reopen: "Reopen" };

/**
 * `name` is that of the selection.
 * @type {(kind: string, selection: { ids: number[] } | DeadLetterFilter, name: string) => Plan}
 */
export const ofDeadLetters = (kind, selection, name) => ({
  title: `${DEAD_LETTER_WORDS[kind]} ${name}`,
  button: `${DEAD_LETTER_WORDS[kind]} ${name}`,
  fields: [],
  async preview() {
    const shown = await read(
      `api/dead-letters/${kind}/`,
      "ids" in selection ? { ids: selection.ids.join() } : selection,
    );
    const reasons = [...new Set(shown.reasons)].map((reason) => ` ${reason}`).join("");
    return { text: shown.text + reasons, token: shown.will_change ? { ids: shown.ids } : null };
  },
  apply: (reason, token) => send(`api/dead-letters/${kind}/`, { reason, ...token }),
  done(answer) {
    const rest = answer.still_fail
      ? ` ${exact(answer.still_fail)} failed again and stay pending: ${answer.reasons.join(" ")}`
      : "";
    return `Done: ${count(answer.changed, "dead letter")} changed.${rest}`;
  },
});

/** @type {(worker: WorkerSnapshot) => Plan} */
export const evict = ({ worker_id: id }) => ({
  title: `Evict ${id}`,
  button: `Evict ${id}`,
  fields: [],
  async preview() {
    const shown = await read(`api/workers/${encodeURIComponent(id)}/evict/`);
    return { text: shown.text, token: { seen: shown.seen } };
  },
  apply: (reason, token) => send(`api/workers/${encodeURIComponent(id)}/evict/`, { reason, ...token }),
  done(_answer, { partitions, workers }) {
    if (partitions.some(({ owner }) => owner === id)) return null;
    const worker = workers.find(({ worker_id: workerId }) => workerId === id);
    return `Done: the ledger shows no partition of ${id} at ${now()}${worker ? `; it is ${worker.state}` : ""}.`;
  },
});

/** @type {(action: ActionSnapshot) => Plan} */
export const undo = ({ id, kind, target }) => ({
  title: `Undo ${kind.replaceAll("_", " ")} ${target}`,
  button: "Undo",
  fields: [],
  async preview() {
    const { texts } = await read(`api/actions/${id}/undo/`);
    return { text: texts.join(" "), token: {} };
  },
  apply: (reason) => send(`api/actions/${id}/undo/`, { reason }),
  done(answer, { recovery }) {
    const shown = recovery.actions.find((action) => action.id === id);
    return shown?.undone ? `Done: action ${id} is undone by action ${answer.action_id}, at ${now()}.` : null;
  },
});
