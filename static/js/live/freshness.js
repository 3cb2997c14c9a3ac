// The age of the shown snapshot. Pure, but for the clock that is passed in.

export const STALE_SECONDS = 3;
export const RELOAD_SECONDS = 10;
const REMEMBERED = 30;

/**
 * By how much this browser's clock is ahead of the server's, from the time that the server wrote into the page; the
 * time of the transfer is included.
 * @param {number} servedAtSeconds
 * @returns {number | null}
 */
export function skewOf(servedAtSeconds) {
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  if (!navigation || !Number.isFinite(servedAtSeconds)) return null;
  return (performance.timeOrigin + navigation.responseStart) / 1000 - servedAtSeconds;
}

/**
 * The age is the time since the snapshot arrived, plus its delay on arrival: a snapshot that waited in a stopped server
 * is not new. The clocks of browser and database may differ, so the delay is measured against the quickest of the recent
 * arrivals. The first arrival is compared with the time at which the server rendered the page.
 */
export class Freshness {
  /** @type {number[]} */
  #transits = [];
  /** @type {number | null} */
  #arrived = null;
  #lateSeconds = 0;
  /** @type {Date | null} */
  #takenAt = null;

  /**
   * @param {number | null} skew by how much this browser's clock is ahead of the server's
   * @param {() => number} now
   */
  constructor(skew, now = () => Date.now() / 1000) {
    this.skew = skew;
    this.now = now;
  }

  /** @param {string} takenAtIso */
  heard(takenAtIso) {
    const arrived = this.now();
    const takenAt = new Date(takenAtIso);
    if (this.#takenAt && takenAt < this.#takenAt) {
      // The database's clock was set back: earlier arrivals no longer say how long a snapshot takes.
      this.#transits = [];
      this.skew = null;
    }
    this.#takenAt = takenAt;
    const transit = arrived - this.#takenAt.getTime() / 1000;
    this.#transits.push(transit);
    if (this.#transits.length > REMEMBERED) this.#transits.shift();
    const usual = this.#transits.length > 1 ? Math.min(...this.#transits) : (this.skew ?? transit);
    this.#lateSeconds = Math.max(0, transit - usual);
    this.#arrived = arrived;
  }

  get takenAt() {
    return this.#takenAt;
  }

  /** In seconds; null before the first snapshot. */
  get age() {
    return this.#arrived === null ? null : Math.max(0, this.now() - this.#arrived) + this.#lateSeconds;
  }
}
