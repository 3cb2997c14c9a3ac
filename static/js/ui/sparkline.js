// Five minutes of one number, from zero, with gaps where it was unknown.
import { setAttribute } from "./dom.js";
import { duration } from "./format.js";

const WINDOW_SECONDS = 300;
const WIDTH = 100;
const HEIGHT = 28;
const HEADROOM = 2;

/** A longer silence is a gap as well: a line across it would claim to know. */
function longestStep(at) {
  const steps = at.slice(1).map((second, index) => second - at[index]);
  return Math.max(10, 3 * Math.min(...steps));
}

/** Runs of neighbouring known points, as `[[x, y], …]` in the picture's own units. */
function runs(at, values, highest) {
  const found = [];
  const from = at.at(-1) - WINDOW_SECONDS;
  const longest = longestStep(at);
  let open = null;
  at.forEach((second, index) => {
    if (index && second - at[index - 1] > longest) open = null;
    const value = values[index];
    if (value === null || second < from) {
      open = null;
      return;
    }
    if (!open) found.push((open = []));
    const x = ((second - from) / WINDOW_SECONDS) * WIDTH;
    open.push([x.toFixed(2), (HEIGHT - 1 - (value / highest) * (HEIGHT - 1 - HEADROOM)).toFixed(2)]);
  });
  return found;
}

export function drawSparkline(picture, at, values, say) {
  const known = values.filter((value) => value !== null);
  const [area, line] = picture.children;
  if (!known.length) {
    setAttribute(area, "d", null);
    setAttribute(line, "d", null);
    setAttribute(picture, "aria-label", "No history yet");
    return;
  }
  const found = runs(at, values, Math.max(...known) || 1);
  const joined = found.map((run) => `M${run.map((point) => point.join(" ")).join("L")}`);
  setAttribute(line, "d", joined.map((path, index) => (found[index].length > 1 ? path : `${path}h.5`)).join(""));
  const closed = joined.map(
    (path, index) => `${path}L${found[index].at(-1)[0]} ${HEIGHT}L${found[index][0][0]} ${HEIGHT}Z`,
  );
  setAttribute(area, "d", closed.join(""));
  const span = duration(at.at(-1) - at[0]);
  setAttribute(picture, "aria-label", `Last ${span}: from ${say(Math.min(...known))} to ${say(Math.max(...known))}`);
}
