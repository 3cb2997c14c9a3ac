// Numbers and times as a person reads them. Unknown is an en dash, never 0.

export const UNKNOWN = "–";
export const HUMANISE_FROM = 100_000;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const time = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

/** @typedef {number | null | undefined} Maybe */

/**
 * @param {Maybe} value
 * @returns {value is number}
 */
const known = (value) => typeof value === "number" && Number.isFinite(value);

/** Every digit: offsets and totals are never abbreviated. @type {(value: Maybe) => string} */
export const exact = (value) => (known(value) ? whole.format(value) : UNKNOWN);

/** Lag: exact below 100,000, three digits above; the caller puts `exact` in the title. @type {(value: Maybe) => string} */
export const brief = (value) => (known(value) && value >= HUMANISE_FROM ? short.format(value) : exact(value));

/** For an axis, where all numbers must be written alike. @type {(value: number) => string} */
export const inThousands = (value) => short.format(value);

/**
 * A rate: a tenth matters below ten per second only.
 * @param {Maybe} value
 */
export function rate(value) {
  if (known(value) && value > 0 && value < 9.95) return tenths.format(value);
  return brief(known(value) ? Math.round(value) : value);
}

/** The title beside a `brief` or a `rate`. @type {(value: Maybe, unit: string) => string} */
export const inFull = (value, unit) =>
  known(value)
    ? `${value < 9.95 && !Number.isInteger(value) ? tenths.format(value) : whole.format(value)} ${unit}`
    : "Unknown";

/**
 * `0.4 s`, `38 s`, `4 min`, `2 h`, `3 d`: the same steps as the server's sentences.
 * @param {Maybe} seconds
 */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 9.95) return `${tenths.format(seconds)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** As `duration`, without tenths: for ages that tick. @type {(seconds: Maybe) => string} */
export const age = (seconds) => (known(seconds) && seconds < 9.95 ? `${Math.floor(seconds)} s` : duration(seconds));

/** @param {Maybe} value */
export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const mebibytes = value / 1024 ** 2;
  return mebibytes < 1000 ? `${whole.format(mebibytes)} MiB` : `${tenths.format(mebibytes / 1024)} GiB`;
}

/** @type {(value: number, noun: string) => string} */
export const count = (value, noun) => `${exact(value)} ${value === 1 ? noun : `${noun}s`}`;

/**
 * A share for a sentence: a tiny share is not shown as 0%.
 * @param {number} part
 * @param {number} total
 */
export function percent(part, total) {
  if (!part || !total) return "0%";
  const value = (part / total) * 100;
  return value < 0.1 ? "< 0.1%" : value > 99.9 && part < total ? "> 99.9%" : `${tenths.format(value)}%`;
}

/** @type {(date: Date) => string} */
export const clock = (date) => time.format(date);
/** @type {(date: Date | number) => string} */
export const hourMinute = (date) => minute.format(date);

/**
 * The time of day, with the date where it is not today's.
 * @param {string} iso
 */
export function moment(iso) {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  return today ? time.format(date) : `${day.format(date)} ${minute.format(date)}`;
}
