// Reads the snapshot by HTTP every few seconds, for browsers behind a proxy that blocks websockets.
import { ActionError, read } from "../actions/client.js";

export const POLL_SECONDS = 5;

export class Poller {
  #onSnapshot;
  #onState;
  #timer = 0;
  #running = false;

  /**
   * @param {(snapshot: Snapshot) => void} onSnapshot
   * @param {(state: ConnectionState | null) => void} onState null: the server does not answer here either
   */
  constructor(onSnapshot, onState) {
    this.#onSnapshot = onSnapshot;
    this.#onState = onState;
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#poll();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
  }

  async #poll() {
    try {
      const snapshot = await read("api/snapshot/");
      if (!this.#running) return;
      this.#onState({ kind: "polling" });
      this.#onSnapshot(snapshot);
    } catch (error) {
      if (!(error instanceof ActionError)) throw error;
      if (!this.#running) return;
      this.#onState(stateAfter(error));
    } finally {
      if (this.#running) this.#timer = setTimeout(() => this.#poll(), POLL_SECONDS * 1000);
    }
  }
}

/**
 * @param {ActionError} error
 * @returns {ConnectionState | null}
 */
function stateAfter({ status, loginRequired, message }) {
  if (loginRequired) return { kind: "logged-out" };
  return status === 403 ? { kind: "over", reason: message } : null;
}
