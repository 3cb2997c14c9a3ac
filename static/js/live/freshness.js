// How old the shown snapshot is. Pure, but for the clock that is passed in.

export const STALE_SECONDS = 3;
export const RELOAD_SECONDS = 10;
const REMEMBERED = 30;

/** From the time the server wrote into the page; the page's own way here is in it, which is little. */
export function skewOf(servedAtSeconds) {
  const [navigation] = performance.getEntriesByType("navigation");
  if (!navigation || !Number.isFinite(servedAtSeconds)) return null;
  return (performance.timeOrigin + navigation.responseStart) / 1000 - servedAtSeconds;
}

/**
 * The age is the time since the snapshot arrived plus what it was late by then: one that waited in a stopped server
 * must not pass for new. The clocks of browser and database may differ, so "late" is measured against the quickest of the
 * recent arrivals; the first has nothing to be compared with but the time at which the server made the page.
 */
export class Freshness {
  #transits = [];
  #arrived = null;
  #lateSeconds = 0;
  #takenAt = null;

  /** `skew`: by how much this browser's clock is ahead of the server's, or null. */
  constructor(skew, now = () => Date.now() / 1000) {
    this.skew = skew;
    this.now = now;
  }

  heard(takenAtIso) {
    const arrived = this.now();
    this.#takenAt = new Date(takenAtIso);
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

  /** Seconds, or null before the first snapshot. */
  get age() {
    return this.#arrived === null ? null : Math.max(0, this.now() - this.#arrived) + this.#lateSeconds;
  }
}
