// Five minutes of one number, from zero, with gaps where it was unknown.
import { setAttribute } from "./dom.js";
import { duration } from "./format.js";

const WINDOW_SECONDS = 300;
const WIDTH = 100;
const HEIGHT = 28;
const HEADROOM = 2;

/**
 * The longest step between samples that a line may cross; a longer one is a gap.
 * @param {number[]} seconds
 */
function longestStep(seconds) {
  const steps = seconds.slice(1).map((second, index) => second - seconds[index]);
  return Math.max(10, 3 * Math.min(...steps));
}

/**
 * Runs of neighbouring known points, as `[[x, y], …]` in the picture's own units.
 * @param {number[]} seconds
 * @param {(number | null)[]} values
 * @param {number} highest
 */
function runsOf(seconds, values, highest) {
  /** @type {string[][][]} */
  const runs = [];
  const from = (seconds.at(-1) ?? 0) - WINDOW_SECONDS;
  const longest = longestStep(seconds);
  /** @type {string[][] | null} */
  let open = null;
  seconds.forEach((second, index) => {
    if (index && second - seconds[index - 1] > longest) open = null;
    const value = values[index];
    if (value === null || second < from) {
      open = null;
      return;
    }
    if (!open) {
      open = [];
      runs.push(open);
    }
    const x = ((second - from) / WINDOW_SECONDS) * WIDTH;
    open.push([x.toFixed(2), (HEIGHT - 1 - (value / highest) * (HEIGHT - 1 - HEADROOM)).toFixed(2)]);
  });
  return runs;
}

/**
 * @param {HTMLElement} picture
 * @param {number[]} seconds
 * @param {(number | null)[]} values
 * @param {(value: number) => string} format
 */
export function drawSparkline(picture, seconds, values, format) {
  const known = values.filter((value) => value !== null);
  const [area, line] = picture.children;
  if (!known.length) {
    setAttribute(area, "d", null);
    setAttribute(line, "d", null);
    setAttribute(picture, "aria-label", "No history yet");
    return;
  }
  const runs = runsOf(seconds, values, Math.max(...known) || 1);
  const paths = runs.map((run) => `M${run.map((point) => point.join(" ")).join("L")}`);
  setAttribute(line, "d", paths.map((path, index) => (runs[index].length > 1 ? path : `${path}h.5`)).join(""));
  const closed = paths.map(
    (path, index) => `${path}L${runs[index].at(-1)?.[0]} ${HEIGHT}L${runs[index][0][0]} ${HEIGHT}Z`,
  );
  setAttribute(area, "d", closed.join(""));
  const span = duration((seconds.at(-1) ?? 0) - seconds[0]);
  setAttribute(
    picture,
    "aria-label",
    `Last ${span}: from ${format(Math.min(...known))} to ${format(Math.max(...known))}`,
  );
}
