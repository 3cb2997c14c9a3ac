// What an operator can do, as plans for the dialog: how each is previewed, applied, and seen to be done.
//
// { title, button, fields, preview(values) -> { text, before, after, token (null: nothing to apply) }, apply(reason, token, values) -> answer,
//   done(answer, snapshot) -> a sentence once the snapshot shows it, or null; progress(answer, snapshot) -> { value, max, text } }

import { clock, count, duration, exact, rate } from "../ui/format.js";
import { nameOf, storeName } from "../ui/statuses.js";
import { ActionError, read, send } from "./client.js";

const now = () => clock(new Date());

// --- Partitions -----------------------------------------------------------------------------------

/** `done(now, after)`: whether the ledger shows it. A move begins a new epoch; a rebuild, a new checkpoint. */
const moved = (one, after) => one.epoch >= after.epoch;
const KINDS = {
  pause: { word: "Pause", done: (one) => one.desired_state === "paused" },
  resume: { word: "Resume", done: (one) => one.desired_state === "running" },
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
      const shown = await read(`/api/partitions/${id}/preview/${kind}/`, { to: target });
      // "latest" means the place that was shown, not where the end will be.
      return { ...shown, token: { seen: shown.seen, to: target === undefined ? undefined : shown.to } };
    },
    apply: (reason, token) => send(`/api/partitions/${id}/${kind}/`, { reason, ...token }),
    done(answer, { partitions }) {
      const shown = partitions.find((one) => one.checkpoint_id === (answer.after.checkpoint_id ?? id));
      if (!shown || !done(shown, answer.after)) return null;
      return `Done: the ledger shows ${name} as ${shown.status} at ${now()}, at offset ${exact(shown.next_offset)}.`;
    },
  };
}

/** Update a store from the ledger; the other direction is a seek. */
export function reconcile(partition, store) {
  const name = nameOf(partition);
  const path = `/api/partitions/${partition.checkpoint_id}/reconcile/${store}/`;
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

export function progressOf({ done_offsets: done, total_offsets: total, offsets_per_second: speed, eta_seconds: eta }) {
  const parts = [`${exact(done)} of ${count(total, "offset")}`];
  if (speed !== null) parts.push(`${rate(speed)} per second`);
  if (eta !== null) parts.push(`${duration(eta)} left`);
  return parts.join(", ");
}

/** One range, or several of one partition; without any, the operator says which. */
export function replay(id, name, ranges = null) {
  const given = ranges ?? [];
  return {
    title: `Replay offsets of ${name}`,
    button: `Replay ${name}`,
    fields: ranges ? [RATE] : [START, END, RATE],
    async preview({ start, end, rate: limit }) {
      if (limit && !(Number(limit) >= 1))
        throw new ActionError(`Invalid rate '${limit}'. Enter a whole number above 0, or leave it empty.`, 400);
      const wanted = ranges ? given : [{ start, end }];
      const plans = await Promise.all(
        wanted.map((one) => read("/api/replays/preview/", { checkpoint_id: id, start: one.start, end: one.end })),
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
      send("/api/replays/", { reason, ranges: token, records_per_second: limit ? Number(limit) : null }),
    progress(answer, { recovery }) {
      const one = recovery.replays.find((each) => each.id === answer.replay_id);
      return one ? { value: one.done_offsets, max: one.total_offsets, text: progressOf(one) } : null;
    },
    done(answer, { recovery }) {
      const one = recovery.replays.find((each) => each.id === answer.replay_id);
      if (!one || one.finished_at === null) return null;
      return `Replay ${one.id} is ${one.status}: ${one.detail}`;
    },
    patient: true, // it may take hours, and goes on without this page
  };
}

export const acceptFailed = ({ checkpoint_id: id, start, end }, name) => ({
  title: `Accept failed offsets of ${name}`,
  button: "Accept as uncounted",
  fields: [],
  async preview() {
    const shown = await read("/api/failed/accept/", { checkpoint_id: id, start, end });
    return { text: shown.text, token: { checkpoint_id: id, start, end, failed: shown.failed } };
  },
  apply: (reason, token) => send("/api/failed/accept/", { reason, ...token }),
  done(answer, { recovery }) {
    const left = recovery.uncounted.some(
      (one) => one.checkpoint_id === id && one.kind === "failed" && one.start < end && start < one.end,
    );
    return left ? null : `Done: the ledger shows no failed offsets of ${name} in this range at ${now()}.`;
  },
});

export const cancelReplay = ({ id }) => ({
  title: `Cancel replay ${id}`,
  button: `Cancel replay ${id}`,
  fields: [],
  async preview() {
    return { ...(await read(`/api/replays/${id}/cancel/`)), token: {} };
  },
  apply: (reason) => send(`/api/replays/${id}/cancel/`, { reason }),
  done(answer, { recovery }) {
    const one = recovery.replays.find((each) => each.id === id);
    return one?.finished_at ? `Replay ${id} is ${one.status}: ${one.detail}` : null;
  },
});

// --- Dead letters, workers, actions ---------------------------------------------------------------

const DEAD_LETTER_WORDS = { requeue: "Requeue", discard: "Discard", reopen: "Reopen" };

/** `chosen`: { ids } or a filter { error_code, topic, partition }; `what` names it. */
export const ofDeadLetters = (kind, chosen, what) => ({
  title: `${DEAD_LETTER_WORDS[kind]} ${what}`,
  button: `${DEAD_LETTER_WORDS[kind]} ${what}`,
  fields: [],
  async preview() {
    const shown = await read(`/api/dead-letters/${kind}/`, chosen.ids ? { ids: chosen.ids.join() } : chosen);
    const reasons = [...new Set(shown.reasons)].map((reason) => ` ${reason}`).join("");
    return { text: shown.text + reasons, token: shown.will_change ? { ids: shown.ids } : null };
  },
  apply: (reason, token) => send(`/api/dead-letters/${kind}/`, { reason, ...token }),
  done(answer) {
    const rest = answer.still_fail
      ? ` ${exact(answer.still_fail)} failed again and stay pending: ${answer.reasons.join(" ")}`
      : "";
    return `Done: ${count(answer.changed, "dead letter")} changed.${rest}`;
  },
});

export const evict = ({ worker_id: id }) => ({
  title: `Evict ${id}`,
  button: `Evict ${id}`,
  fields: [],
  async preview() {
    const shown = await read(`/api/workers/${encodeURIComponent(id)}/evict/`);
    return { text: shown.text, token: { seen: shown.seen } };
  },
  apply: (reason, token) => send(`/api/workers/${encodeURIComponent(id)}/evict/`, { reason, ...token }),
  done(answer, { partitions, workers }) {
    if (partitions.some((one) => one.owner === id)) return null;
    const worker = workers.find((one) => one.worker_id === id);
    return `Done: the ledger shows no partition of ${id} at ${now()}${worker ? `; it is ${worker.state}` : ""}.`;
  },
});

export const undo = ({ id, kind, target }) => ({
  title: `Undo ${kind.replaceAll("_", " ")} ${target}`,
  button: "Undo",
  fields: [],
  async preview() {
    const { texts } = await read(`/api/actions/${id}/undo/`);
    return { text: texts.join(" "), token: {} };
  },
  apply: (reason) => send(`/api/actions/${id}/undo/`, { reason }),
  done(answer, { recovery }) {
    const shown = recovery.actions.find((one) => one.id === id);
    return shown?.undone ? `Done: action ${id} is undone by action ${answer.action_id}, at ${now()}.` : null;
  },
});
