// The order of the table: worst first at first; afterwards it changes only when somebody asks.
import { isFine, nameOf, severityOf } from "../ui/statuses.js";

const byName = (a, b) => a.topic.localeCompare(b.topic) || a.partition - b.partition;

/** Among the troubled the larger lag is the worse; the others keep their places. */
function byStatus(a, b) {
  return severityOf(a.status) - severityOf(b.status) || (isFine(a.status) ? 0 : (a.lag ?? 0) - (b.lag ?? 0));
}

/** What is compared, and whether the first press sorts the largest first. */
const KEYS = {
  partition: { compare: byName, descending: false },
  status: { compare: byStatus, descending: true },
  owner: { value: (one) => one.owner, descending: false },
  epoch: { value: (one) => one.epoch, descending: true },
  next_offset: { value: (one) => one.next_offset, descending: true },
  log_end_offset: { value: (one) => one.log_end_offset, descending: true },
  lag: { value: (one) => one.lag, descending: true },
  lag_seconds: { value: (one) => one.lag_seconds, descending: true },
  events_per_second: { value: (one) => one.events_per_second, descending: true },
};

export const firstDirection = (key) => (KEYS[key].descending ? "descending" : "ascending");

/** The unknown comes last in either direction: it is neither much nor little. */
function compareValues(value, sign) {
  return (a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === right) return 0;
    if (left === null) return 1;
    if (right === null) return -1;
    return (left < right ? -1 : 1) * sign;
  };
}

export function sorted(partitions, { key, direction }) {
  const sign = direction === "descending" ? -1 : 1;
  const { compare, value } = KEYS[key];
  const primary = value ? compareValues(value, sign) : (a, b) => compare(a, b) * sign;
  return [...partitions].sort((a, b) => primary(a, b) || byName(a, b));
}

/** Whether the shown order still puts the worse status first. */
export function worstFirst(shown) {
  return shown.every((one, index) => !index || severityOf(shown[index - 1].status) >= severityOf(one.status));
}

export const matches = (partition, words) =>
  words.every((word) =>
    `${nameOf(partition)} ${partition.status} ${partition.owner ?? ""}`.toLowerCase().includes(word),
  );
