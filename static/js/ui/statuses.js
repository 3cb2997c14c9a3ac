// Statuses: each has a word, a shape, a colour and a severity. An unknown status counts as trouble.

const FAMILIES = [
  // worst last
  { name: "ok", words: ["OK"] },
  { name: "late", words: ["CATCHING UP", "ATTENTION", "LAGGING", "SLOW", "OPEN TRANSACTION"] },
  { name: "paused", words: ["PAUSED"] },
  { name: "stuck", words: ["REWOUND", "INCIDENT", "STALLED", "STOPPED", "STUCK"] },
  { name: "unowned", words: ["UNOWNED", "REFUSED", "OWNER DEAD", "TOPIC MISSING"] },
  { name: "halted", words: ["FAILED", "HALTED"] },
];

/**
 * @param {string} status
 * @returns {{ family: string, severity: number }}
 */
function classify(status) {
  for (const [rank, family] of FAMILIES.entries()) {
    const within = family.words.findIndex((word) => status === word || status.startsWith(`${word} `));
    if (within >= 0) return { family: family.name, severity: rank * 10 + within };
  }
  return { family: "stuck", severity: 35 };
}

/** @type {Map<string, ReturnType<typeof classify>>} */
const known = new Map();

/** @param {string} status */
function classOf(status) {
  const statusClass = known.get(status) ?? classify(status);
  known.set(status, statusClass);
  return statusClass;
}

/** The colour's name, used as `data-status`; the shape is `#status-<family>`. @type {(status: string) => string} */
export const familyOf = (status) => classOf(status).family;
/** @type {(status: string) => number} */
export const severityOf = (status) => classOf(status).severity;
/** @type {(status: string) => string} */
export const shapeOf = (status) => `status-${classOf(status).family}`;
/** @type {(status: string) => boolean} */
export const isFine = (status) => status === "OK";

/**
 * `[[status, number], …]`, worst first.
 * @param {PartitionSnapshot[]} partitions
 */
export function tally(partitions) {
  const counts = new Map();
  for (const { status } of partitions) counts.set(status, (counts.get(status) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => severityOf(b) - severityOf(a));
}

/** @type {(partition: { topic: string, partition: number }) => string} */
export const nameOf = (partition) => `${partition.topic}-${partition.partition}`;

/** @type {Record<string, string>} */
const STORE_NAMES = { kafka: "Kafka", redis: "Redis" };
/** @type {(store: string) => string} */
export const storeName = (store) => STORE_NAMES[store] ?? store;
