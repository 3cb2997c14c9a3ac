// The order of the table: worst first at the start; later it changes only on request.
import { isFine, nameOf, severityOf } from "../ui/statuses.js";

/** @typedef {(a: PartitionSnapshot, b: PartitionSnapshot) => number} Compare */
/** @typedef {{ key: string, direction: string }} Order */

/** @type {Compare} */
const byName = (a, b) => a.topic.localeCompare(b.topic) || a.partition - b.partition;

/** With the same status other than OK, the larger lag is worse. @type {Compare} */
function byStatus(a, b) {
  return severityOf(a.status) - severityOf(b.status) || (isFine(a.status) ? 0 : (a.lag ?? 0) - (b.lag ?? 0));
}

/**
 * What is compared, and whether the first click sorts in descending order.
 * @type {Record<string, { compare?: Compare, value?: (partition: PartitionSnapshot) => any, descending: boolean }>}
 */
const KEYS = {
  partition: { compare: byName, descending: false },
  status: { compare: byStatus, descending: true },
  owner: { value: ({ owner }) => owner, descending: false },
  epoch: { value: ({ epoch }) => epoch, descending: true },
  next_offset: { value: ({ next_offset: offset }) => offset, descending: true },
  log_end_offset: { value: ({ log_end_offset: offset }) => offset, descending: true },
  lag: { value: ({ lag }) => lag, descending: true },
  lag_seconds: { value: ({ lag_seconds: seconds }) => seconds, descending: true },
  events_per_second: { value: ({ events_per_second: rate }) => rate, descending: true },
};

/** @type {(key: string) => string} */
export const firstDirection = (key) => (KEYS[key].descending ? "descending" : "ascending");

/**
 * Unknown values come last in either direction.
 * @param {(partition: PartitionSnapshot) => any} value
 * @param {number} sign
 * @returns {Compare}
 */
function compareValues(value, sign) {
  return (a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === right) return 0;
    if (left === null) return 1;
    if (right === null) return -1;
    return (left < right ? -1 : 1) * sign;
  };
}

/**
 * @param {PartitionSnapshot[]} partitions
 * @param {Order} order
 */
export function sorted(partitions, { key, direction }) {
  const sign = direction === "descending" ? -1 : 1;
  const { compare, value } = KEYS[key];
  /** @type {Compare} */
  const primary = value ? compareValues(value, sign) : (a, b) => (compare?.(a, b) ?? 0) * sign;
  return [...partitions].sort((a, b) => primary(a, b) || byName(a, b));
}

/**
 * Whether the shown order still puts the worst status first.
 * @param {PartitionSnapshot[]} shown
 */
export function worstFirst(shown) {
  return shown.every(({ status }, index) => !index || severityOf(shown[index - 1].status) >= severityOf(status));
}

/** @type {(partition: PartitionSnapshot, words: string[]) => boolean} */
export const matches = (partition, words) =>
  words.every((word) =>
    `${nameOf(partition)} ${partition.status} ${partition.owner ?? ""}`.toLowerCase().includes(word),
  );
