// Statuses: a word, a shape, a colour, and how bad each is. Words the page does not know yet count as trouble.

const FAMILIES = [
  // worst last
  { name: "ok", words: ["OK"] },
  { name: "late", words: ["LAGGING", "SLOW"] },
  { name: "paused", words: ["PAUSED"] },
  { name: "stuck", words: ["REWOUND", "STALLED", "STOPPED", "STUCK"] },
  { name: "unowned", words: ["UNOWNED", "OWNER DEAD"] },
  { name: "halted", words: ["FAILED", "HALTED"] },
];

function find(status) {
  for (const [rank, family] of FAMILIES.entries()) {
    const within = family.words.findIndex((word) => status === word || status.startsWith(`${word} `));
    if (within >= 0) return { family: family.name, severity: rank * 10 + within };
  }
  return { family: "stuck", severity: 35 };
}

const known = new Map();

function look(status) {
  if (!known.has(status)) known.set(status, find(status));
  return known.get(status);
}

/** The colour's name, used as `data-status`; the shape is `#status-<family>`. */
export const familyOf = (status) => look(status).family;
export const severityOf = (status) => look(status).severity;
export const shapeOf = (status) => `status-${look(status).family}`;
export const isFine = (status) => status === "OK";

/** `[[status, how many], …]`, worst first. */
export function tally(partitions) {
  const counts = new Map();
  for (const { status } of partitions) counts.set(status, (counts.get(status) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => severityOf(b) - severityOf(a));
}

export const nameOf = (partition) => `${partition.topic}-${partition.partition}`;

const STORE_NAMES = { kafka: "Kafka", redis: "Redis" };
export const storeName = (store) => STORE_NAMES[store] ?? store;
