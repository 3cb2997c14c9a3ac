// Incidents, offsets that were not counted, dead letters, replays and actions: each with its buttons in its row.
import { byId, make, setAttribute, setText } from "../ui/dom.js";
import { count, duration, exact, moment, UNKNOWN } from "../ui/format.js";
import { lead, List, text } from "../ui/table.js";
import { acceptFailed, cancelReplay, evict, howFar, letters, ofPartition, replay, undo } from "../actions/plans.js";
import { showIncident, showLetter, words } from "./detail-dialog.js";
import { nameOf } from "../ui/statuses.js";

/** How many rows the server sends of each list. */
const SHOWN = 30;
const all = (number, shown) => (shown < SHOWN ? "" : ` · the newest ${exact(number)} are shown; the admin has all`);

/** What an incident asks for, as the plan of its first action; null where nothing on this page helps. */
const REMEDIES = {
  worker_dead: (one, { workers }) => workerOf(one, workers),
  worker_stuck: (one, { workers }) => workerOf(one, workers),
  stalled: (one, { workers }) => workerOf(one, workers),
  halted_expired: (one, snapshot) => partitionPlan("accept_loss", one, snapshot),
  halted_recreated: (one, snapshot) => partitionPlan("restart", one, snapshot),
  halted_truncated: (one, snapshot) => partitionPlan("restart", one, snapshot),
  halted_store_missing: (one, snapshot) => partitionPlan("seek", one, snapshot),
  circuit_breaker: (one, snapshot) => partitionPlan("resume", one, snapshot),
  failed_ranges: (one) => replay(one.checkpoint_id, one.subject, one.ranges.filter(({ kind }) => kind === "failed")),
  retention: (one) => failedPart(one),
};

function workerOf({ worker_id: id }, workers) {
  const worker = workers.find((each) => each.worker_id === id && each.state !== "stopped");
  return worker ? evict(worker) : null;
}

function partitionPlan(kind, { checkpoint_id: id }, { partitions }) {
  const partition = partitions.find((each) => each.checkpoint_id === id);
  return partition ? ofPartition(kind, partition) : null;
}

function failedPart(one) {
  const ranges = one.ranges.filter(({ kind }) => kind === "failed");
  return ranges.length ? replay(one.checkpoint_id, one.subject, ranges) : null;
}

const remedyOf = (one, snapshot) => (one.closed_at ? null : (REMEDIES[one.kind]?.(one, snapshot) ?? null));
const secondsBetween = (from, to) => Math.max(0, (new Date(to) - new Date(from)) / 1000);
const key = ({ checkpoint_id: id, start, kind }) => `${id}:${start}:${kind}`;
const isActive = ({ status }) => status === "queued" || status === "running";

const nextTry = ({ kind, retry_at: at, attempts }, { taken_at: now }) => {
  if (kind !== "failed") return UNKNOWN;
  const tried = attempts ? `, tried ${count(attempts, "time")}` : "";
  if (at === null) return `none left${tried}`;
  return new Date(at) <= new Date(now) ? `now${tried}` : `in ${duration(secondsBetween(now, at))}${tried}`;
};

export class Recovery {
  #canOperate;
  #open;
  #snapshot = null;

  /** `open(plan)` shows the dialog of an action. */
  constructor(canOperate, open) {
    this.#canOperate = canOperate;
    this.#open = open;
    this.incidents = this.#incidents();
    this.uncounted = this.#uncounted();
    this.letters = this.#letters();
    this.replays = this.#replays();
    this.actions = this.#actions();
    for (const kind of ["requeue", "discard"]) {
      byId(`letters-${kind}`)?.addEventListener("click", () => open(letters(kind, this.#chosen(), "all of these dead letters")));
    }
    for (const name of ["letters-code", "letters-partition"]) {
      byId(name).addEventListener("change", () => this.#showLetters(this.#snapshot));
    }
  }

  #act = (kind, word, label, plan, fits = () => true) => ({
    kind,
    word: () => word,
    label,
    fits: (item, snapshot) => this.#canOperate && fits(item, snapshot),
    press: (item, snapshot) => this.#open(plan(item, snapshot)),
  });

  #incidents() {
    return new List("incidents", {
      columns: [
        lead(
          ({ kind, subject }) => `${words(kind)}: ${subject}`,
          ({ summary }) => summary,
          { status: ({ closed_at: closed, severity }) => (closed ? "" : severity === "critical" ? "halted" : "late") },
        ),
        text(({ began_at: at }) => moment(at)),
        text(({ detect_seconds: seconds }) => duration(seconds)),
        text((one, { taken_at: now }) => (one.closed_at ? duration(one.recover_seconds) : `open for ${duration(secondsBetween(one.opened_at, now))}`)),
      ],
      buttons: [
        {
          kind: "remedy",
          word: () => "Act …",
          label: ({ kind, subject }) => `Act on ${words(kind)}: ${subject}`,
          fits: (one, snapshot) => this.#canOperate && remedyOf(one, snapshot) !== null,
          press: (one, snapshot) => this.#open(remedyOf(one, snapshot)),
        },
        { kind: "look", word: () => "Timeline", label: ({ kind, subject }) => `Timeline of ${words(kind)}: ${subject}`, fits: () => true, press: showIncident },
      ],
    });
  }

  #uncounted() {
    const where = (one) => `${nameOf(one)} from ${exact(one.start)}`;
    return new List("uncounted", {
      keyOf: key,
      columns: [
        lead(nameOf, ({ detail }) => detail || "–"),
        {
          create: () => make("td", {}, make("span", { class: "swatch", "aria-hidden": "true" }), make("span")),
          update(cell, { kind, gone }) {
            setAttribute(cell.firstChild, "data-kind", kind);
            setText(cell.lastChild, kind === "failed" && gone ? "failed, gone from Kafka" : kind);
          },
        },
        text(({ start }) => exact(start), { number: true }),
        text(({ end }) => exact(end), { number: true }),
        text(({ start, end }) => exact(end - start), { number: true }),
        text(nextTry),
      ],
      buttons: [
        this.#act(
          "replay",
          "Replay …",
          (one) => `Replay ${where(one)}`,
          (one) => replay(one.checkpoint_id, nameOf(one), [one]),
          (one) => one.kind !== "expired" && !one.gone,
        ),
        this.#act(
          "accept",
          "Accept …",
          (one) => `Accept ${where(one)} as not counted`,
          (one) => acceptFailed(one, nameOf(one)),
          ({ kind }) => kind === "failed",
        ),
      ],
    });
  }

  #letters() {
    const where = (one) => `${nameOf(one)} offset ${exact(one.offset)}`;
    const about = (kind, word) =>
      this.#act(
        kind,
        `${word} …`,
        (one) => `${word} ${where(one)}`,
        (one) => letters(kind, { ids: [one.id] }, `the dead letter of ${where(one)}`),
      );
    return new List("letters", {
      columns: [
        lead(nameOf, () => ""),
        text(({ offset }) => exact(offset), { number: true }),
        text(({ error_code: code, error_detail: detail }) => `${code}: ${detail}`, { title: ({ error_detail: detail }) => detail }),
        text(({ value, value_bytes: bytes }) => (bytes === null ? "tombstone" : (value ?? count(bytes, "byte"))), { title: ({ value }) => value }),
        text(({ created_at: at }) => moment(at)),
      ],
      buttons: [
        { kind: "look", word: () => "Inspect", label: (one) => `Inspect ${where(one)}`, fits: () => true, press: showLetter },
        about("requeue", "Requeue"),
        about("discard", "Discard"),
      ],
    });
  }

  #replays() {
    const meter = {
      create() {
        const bar = make("progress", { "aria-label": "Progress" });
        return make("td", { class: "list-progress" }, bar, make("span", { class: "list-below" }));
      },
      update(cell, one) {
        setAttribute(cell.firstChild, "max", Math.max(1, one.total_offsets));
        setAttribute(cell.firstChild, "value", one.total_offsets ? one.done_offsets : 1);
        setText(cell.lastChild, howFar(one));
      },
    };
    return new List("replays", {
      columns: [
        lead(
          ({ id, username, automatic }) => `${id} by ${automatic ? "the recovery manager" : username}`,
          ({ reason, detail }) => [reason, detail].filter(Boolean).join(" – "),
          { status: ({ status }) => (status === "failed" ? "halted" : "") },
        ),
        text(({ status, cancel_requested: cancelled, starts }) => (cancelled && status === "running" ? "stopping" : status) + (starts > 1 ? `, started ${count(starts, "time")}` : "")),
        meter,
        text(({ counted }) => exact(counted), { number: true }),
        text(({ deduplicated }) => exact(deduplicated), { number: true }),
        text(({ dead_letters: number }) => exact(number), { number: true }),
        text(({ expired_offsets: number }) => exact(number), { number: true }),
      ],
      buttons: [this.#act("cancel", "Cancel …", ({ id }) => `Cancel replay ${id}`, cancelReplay, (one) => isActive(one) && !one.cancel_requested)],
    });
  }

  #actions() {
    const said = ({ kind, target }) => `${words(kind)} ${target}`;
    return new List("actions", {
      columns: [
        lead(said, ({ reason, detail }) => [reason, detail].filter(Boolean).join(" – "), { status: ({ outcome }) => (outcome === "applied" ? "" : "late") }),
        text(({ at }) => moment(at)),
        text(({ username, source }) => `${username} (${source})`),
        text(({ outcome, undone }) => (undone ? "undone" : outcome)),
      ],
      buttons: [this.#act("undo", "Undo …", (one) => `Undo ${said(one)}`, undo, ({ undoable }) => undoable)],
    });
  }

  // --- Each tick --------------------------------------------------------------------------------

  show(snapshot) {
    this.#snapshot = snapshot;
    const { incidents, uncounted, replays, actions } = snapshot.recovery;
    const open = incidents.filter((one) => !one.closed_at).length;
    setText(byId("incidents-sum"), incidents.length ? `${open ? `${exact(open)} open` : "None open"}; those that are over follow` : "");
    setAttribute(byId("incidents-panel"), "data-some", open > 0);
    this.incidents.show(incidents, snapshot);
    const offsets = uncounted.reduce((sum, { start, end }) => sum + end - start, 0);
    setText(byId("uncounted-sum"), uncounted.length ? `${count(offsets, "offset")} in ${count(uncounted.length, "range")}${all(SHOWN, uncounted.length)}` : "");
    this.uncounted.show(uncounted, snapshot);
    this.#showLetters(snapshot);
    const active = replays.filter(isActive).length;
    setText(byId("replays-sum"), replays.length ? `${active ? `${exact(active)} under way` : "None under way"}` : "");
    this.replays.show(replays, snapshot);
    this.actions.show(actions, snapshot);
  }

  #showLetters(snapshot) {
    if (!snapshot) return;
    const { dead_letters: shown } = snapshot.recovery;
    const waiting = snapshot.dead_letters;
    setText(byId("letters-sum"), waiting ? `${exact(waiting)} ${waiting === 1 ? "waits" : "wait"} for a decision${all(SHOWN, shown.length)}` : "");
    options(byId("letters-code"), [...new Set(shown.map(({ error_code: code }) => code))].sort());
    options(byId("letters-partition"), snapshot.partitions.filter(({ dead_letters: number }) => number).map(nameOf));
    for (const kind of ["requeue", "discard"]) if (byId(`letters-${kind}`)) byId(`letters-${kind}`).disabled = !waiting;
    const { error_code: code, topic, partition } = this.#chosen();
    const fits = (one) => (!code || one.error_code === code) && (!topic || (one.topic === topic && one.partition === partition));
    this.letters.show(shown.filter(fits), snapshot);
  }

  /** The filter above the dead letters, as the server takes it. */
  #chosen() {
    const code = byId("letters-code").value || undefined;
    const name = byId("letters-partition").value;
    const found = this.#snapshot?.partitions.find((one) => nameOf(one) === name);
    return { error_code: code, topic: found?.topic, partition: found?.partition };
  }
}

/** Keep a select's choices in step, and what is chosen as long as it is there. */
function options(select, values) {
  const chosen = select.value;
  const wanted = ["", ...new Set(chosen ? [...values, chosen] : values)];
  if ([...select.options].map((one) => one.value).join("\n") === wanted.join("\n")) return;
  select.replaceChildren(...wanted.map((value) => make("option", { value }, value || "any")));
  select.value = chosen;
}
