// What the panels of incidents, uncounted offsets, dead letters, replays and actions share.
import { exact } from "../ui/format.js";

/** The most rows that the server sends of each list. */
const LIST_LIMIT = 30;

/** Appended to a panel's total where the list is cut. @type {(shown: number) => string} */
export const limitNote = (shown) =>
  shown < LIST_LIMIT ? "" : ` · newest ${exact(shown)} shown, all in the Django admin`;

/**
 * A button of a row that opens the dialog of an action; only operators see it.
 * @template Item
 * @param {Operator} operator
 * @param {{
 *   kind: string,
 *   word: string,
 *   label: (item: Item) => string,
 *   plan: (item: Item, snapshot: Snapshot) => Plan,
 *   fits?: (item: Item, snapshot: Snapshot) => boolean,
 * }} button
 * @returns {RowButton<Item>}
 */
export const actionButton = ({ canOperate, open }, { kind, word, label, plan, fits = () => true }) => ({
  kind,
  word: () => word,
  label,
  fits: (item, snapshot) => canOperate && fits(item, snapshot),
  press: (item, snapshot) => open(plan(item, snapshot)),
});

/** @type {(from: string, to: string) => number} */
export const secondsBetween = (from, to) => Math.max(0, (Date.parse(to) - Date.parse(from)) / 1000);

/**
 * "halted_expired" as "Halted expired".
 * @param {string} kind
 */
export function kindName(kind) {
  const text = kind.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}
