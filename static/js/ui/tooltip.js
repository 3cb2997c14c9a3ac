// One tooltip for all strips. Each partition's details hold the same numbers, for keyboards and touch screens.
import { byId, make, setHidden } from "./dom.js";

const GAP = 12;
const MARGIN = 8;

/**
 * @param {MouseEvent} event
 * @param {[string, string]} text
 */
export function showTooltip(event, [title, detail]) {
  const tooltip = byId("tooltip");
  tooltip.replaceChildren(make("strong", {}, title), make("span", {}, detail));
  setHidden(tooltip, false);
  const { offsetWidth: width, offsetHeight: height } = tooltip;
  const left = Math.min(event.clientX + GAP, innerWidth - width - MARGIN);
  const below = event.clientY + GAP + height < innerHeight - MARGIN;
  tooltip.style.left = `${Math.max(MARGIN, left)}px`;
  tooltip.style.top = `${below ? event.clientY + GAP : event.clientY - GAP - height}px`;
}

export const hideTooltip = () => setHidden(byId("tooltip"), true);
