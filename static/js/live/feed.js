// The websocket: one snapshot per message, each acknowledged after it was rendered; reconnects by itself. While it
// cannot be opened, snapshots are polled.
import { Poller } from "./polling.js";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 15_000;
// A connection that is cut without a close frame never closes by itself, neither while it opens nor later.
const SILENCE_MS = 20_000;
// A server that restarts fails once or twice; a proxy that blocks websockets fails always.
const FAILURES_BEFORE_POLLING = 2;

// A snapshot that is older by more than this is not late: the database's clock was set back.
const CLOCK_SET_BACK_MS = 10_000;

const NOT_LOGGED_IN = 4401;
const FINAL = new Map([
  [NOT_LOGGED_IN, "You are logged out."],
  [4400, "The server rejected a message from this page, which may be out of date. Reload it."],
  [4403, "You no longer have access to this page. Ask an administrator to add you to the viewer group, then reload."],
  [4404, "The live feed was not found: the server may have been updated. Reload the page."],
]);

/** Calls `onSnapshot(snapshot)` for each newer one, and `onState({kind, …})` as the connection comes and goes. */
export class Feed {
  #url;
  #onSnapshot;
  #onState;
  /** @type {WebSocket | null} */
  #socket = null;
  #timer = 0;
  #watchdog = 0;
  #attempts = 0;
  #sequence = 0;
  #over = false;
  #poller;
  /** Connections in a row that ended without a snapshot. */
  #failures = 0;
  #polling = false;
  /** @type {ConnectionState} */
  #socketState = { kind: "connecting" };

  /**
   * @param {string} path
   * @param {(snapshot: Snapshot) => void} onSnapshot
   * @param {(state: ConnectionState) => void} onState
   */
  constructor(path, onSnapshot, onState) {
    const url = new URL(path, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.#url = url;
    this.#onSnapshot = onSnapshot;
    this.#onState = onState;
    this.#poller = new Poller(
      (snapshot) => this.#show(snapshot),
      (state) => this.#polled(state),
    );
    window.addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  connect() {
    clearTimeout(this.#timer);
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#socketChanged({ kind: "connecting", attempts: this.#attempts });
    this.#listenFor();
    socket.onopen = () => this.#socketChanged({ kind: "open" });
    socket.onmessage = (event) => this.#receive(socket, event.data);
    socket.onclose = (event) => socket === this.#socket && this.#closed(event.code);
  }

  /** The page is visible again, or the network is back: no reason to wait longer. */
  retryNow() {
    if (!this.#socket && !this.#over && this.#timer) this.connect();
  }

  /**
   * @param {WebSocket} socket
   * @param {string} text
   */
  #receive(socket, text) {
    if (socket !== this.#socket) return;
    this.#listenFor();
    const snapshot = JSON.parse(text);
    this.#attempts = this.#failures = 0;
    this.#stopPolling();
    try {
      this.#show(snapshot);
    } finally {
      // Also an older one: the server sends the next only after an answer.
      socket.send(JSON.stringify({ type: "ack", sequence: snapshot.sequence }));
    }
  }

  /** @param {Snapshot} snapshot */
  #show(snapshot) {
    if (snapshot.sequence <= this.#sequence && snapshot.sequence >= this.#sequence - CLOCK_SET_BACK_MS) return;
    this.#sequence = snapshot.sequence;
    this.#onSnapshot(snapshot);
  }

  /**
   * What the socket does is shown only while no snapshot comes by polling.
   * @param {ConnectionState} state
   */
  #socketChanged(state) {
    this.#socketState = state;
    if (!this.#polling) this.#onState(state);
  }

  /** @param {ConnectionState | null} state */
  #polled(state) {
    this.#polling = state?.kind === "polling";
    if (state && !this.#polling) this.#end(state);
    else this.#onState(state ?? this.#socketState);
  }

  #stopPolling() {
    this.#poller.stop();
    if (!this.#polling) return;
    this.#polling = false;
    this.#onState(this.#socketState);
  }

  /** @param {ConnectionState} state */
  #end(state) {
    this.#over = true;
    this.#poller.stop();
    clearTimeout(this.#timer);
    this.#onState(state);
  }

  #listenFor() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      const socket = this.#socket;
      if (!socket) return;
      this.#closed(0);
      socket.close();
    }, SILENCE_MS);
  }

  /** @param {number} code */
  #closed(code) {
    this.#socket = null;
    clearTimeout(this.#watchdog);
    if (this.#over) return;
    if (FINAL.has(code)) {
      this.#end({ kind: code === NOT_LOGGED_IN ? "logged-out" : "over", reason: FINAL.get(code) });
      return;
    }
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempts);
    // Jitter, so that not all pages reconnect to a restarted server at once.
    const wait = longest * (0.5 + Math.random() / 2);
    this.#attempts += 1;
    this.#timer = setTimeout(() => this.connect(), wait);
    this.#failures += 1;
    if (this.#failures >= FAILURES_BEFORE_POLLING) this.#poller.start();
    this.#socketChanged({ kind: "waiting", attempts: this.#attempts, until: Date.now() + wait });
  }
}
