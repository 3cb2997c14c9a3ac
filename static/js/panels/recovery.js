// What the panels of incidents, uncounted offsets, dead letters, replays and actions share.
import { exact } from "../ui/format.js";

/** The most rows that the server sends of each list. */
const LIST_LIMIT = 30;

/** Appended to a panel's total where the list is cut. */
export const limitNote = (shown) =>
  shown < LIST_LIMIT ? "" : ` · newest ${exact(shown)} shown, all in the Django admin`;

/** A button of a row that opens the dialog of an action; only operators see it. */
export const actionButton = ({ canOperate, open }, { kind, word, label, plan, fits = () => true }) => ({
  kind,
  word: () => word,
  label,
  fits: (item, snapshot) => canOperate && fits(item, snapshot),
  press: (item, snapshot) => open(plan(item, snapshot)),
});

export const secondsBetween = (from, to) => Math.max(0, (new Date(to) - new Date(from)) / 1000);

/** "halted_expired" as a person says it. */
export function words(kind) {
  const text = kind.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}
