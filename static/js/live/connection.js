// Shows the age of the data. After 3 s the page is marked stale, after 10 s it offers to reload.

import { showAdvice, showNothing } from "../overview/headline.js";
import { byId, setAttribute, setHidden, setText } from "../ui/dom.js";
import { age, clock, duration } from "../ui/format.js";
import { announce } from "../ui/live-region.js";
import { RELOAD_SECONDS, STALE_SECONDS } from "./freshness.js";
import { POLL_SECONDS } from "./polling.js";

const TICK_MS = 200;
const POLLING = `Live updates are blocked (websocket); polling every ${POLL_SECONDS} s.`;

export class Connection {
  #freshness;
  /** @type {ConnectionState} */
  #connection = { kind: "connecting", attempts: 0 };
  #opened = Date.now();
  #stale = false;

  /** @param {import("./freshness.js").Freshness} freshness */
  constructor(freshness) {
    this.#freshness = freshness;
    byId("reload").addEventListener("click", () => location.reload());
    setInterval(() => this.tick(), TICK_MS);
  }

  /** @param {ConnectionState} state */
  changed(state) {
    this.#connection = state;
    this.tick();
  }

  tick() {
    const seconds = this.#freshness.age;
    if (seconds === null) this.#waiting((Date.now() - this.#opened) / 1000);
    else this.#aged(seconds);
  }

  /** @param {number} seconds */
  #waiting(seconds) {
    const late = seconds > STALE_SECONDS || this.#connection.kind === "over";
    this.#show(late ? "stale" : "connecting", late ? `no data for ${age(seconds)}` : "connecting", seconds);
    if (late) {
      showNothing("No data received yet.");
      showAdvice(this.#trouble(new Date(this.#opened)), "NO DATA · ");
    }
  }

  /** @param {number} seconds */
  #aged(seconds) {
    const polling = this.#connection.kind === "polling";
    const limit = STALE_SECONDS + (polling ? POLL_SECONDS : 0);
    const stale = seconds > limit || this.#connection.kind === "over";
    const fresh = polling ? `polling · ${duration(seconds)}` : duration(seconds);
    this.#show(stale ? "stale" : "fresh", stale ? `stale for ${age(seconds)}` : fresh, seconds);
    setText(byId("live-note"), polling ? POLLING : "");
    showAdvice(stale ? this.#trouble(this.#freshness.takenAt) : "", stale ? "STALE · " : "");
    if (stale === this.#stale) return;
    this.#stale = stale;
    announce(stale ? "The page is stale: no updates from the server." : "The page is live again.");
  }

  /**
   * @param {string} state
   * @param {string} text
   * @param {number} seconds
   */
  #show(state, text, seconds) {
    setAttribute(document.documentElement, "data-live", state);
    setAttribute(byId("live"), "data-state", state);
    setText(byId("live-text"), text);
    setHidden(byId("reload"), !(seconds > RELOAD_SECONDS || this.#connection.kind === "over"));
  }

  /**
   * What failed, since when, and what still works.
   * @param {Date | null} since
   */
  #trouble(since) {
    const { kind, reason, until } = this.#connection;
    const shown = this.#freshness.age === null || !since ? "" : `Showing data from ${clock(since)}. `;
    if (kind === "over") return `${shown}${reason}`;
    const retry =
      kind === "polling"
        ? POLLING
        : kind === "waiting"
          ? `The server is not responding; next retry in ${Math.max(1, Math.ceil(((until ?? 0) - Date.now()) / 1000))} s.`
          : kind === "connecting"
            ? "Connecting to the server."
            : "Connected, but the server sends no data; its database may be unavailable.";
    return `${shown}${retry} Workers keep counting; check manage.py offsets_status.`;
  }
}
