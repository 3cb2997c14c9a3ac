// The look of each kind of range: a colour and a pattern, so that either alone is enough.
import { colour } from "../ui/theme.js";

const TILE = 6;

/** Kinds, worst first: the worst is drawn on top where two share a pixel. */
export const KINDS = ["failed", "expired", "claimed", "skipped", "processed"];

/** @type {Record<string, (context: CanvasRenderingContext2D) => void>} */
const PATTERNS = {
  failed(context) {
    context.moveTo(-1, TILE + 1);
    context.lineTo(TILE + 1, -1);
    context.moveTo(-1, -1);
    context.lineTo(TILE + 1, TILE + 1);
  },
  skipped(context) {
    for (const shift of [-TILE, 0, TILE]) {
      context.moveTo(shift - 1, TILE + 1);
      context.lineTo(shift + TILE + 1, -1);
    }
  },
  claimed(context) {
    context.moveTo(1.5, 0);
    context.lineTo(1.5, TILE);
    context.moveTo(4.5, 0);
    context.lineTo(4.5, TILE);
  },
  expired(context) {
    for (const [x, y] of [
      [1.5, 1.5],
      [4.5, 4.5],
    ]) {
      context.moveTo(x + 0.4, y);
      context.arc(x, y, 0.4, 0, Math.PI * 2);
    }
  },
};

/**
 * @param {string} kind
 * @param {number} ratio
 */
function pattern(kind, ratio) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = TILE * ratio;
  const context = /** @type {CanvasRenderingContext2D} */ (tile.getContext("2d"));
  context.scale(ratio, ratio);
  context.fillStyle = colour(`strip-${kind}`);
  context.fillRect(0, 0, TILE, TILE);
  context.strokeStyle = colour(`strip-${kind}-ink`);
  context.lineWidth = kind === "failed" ? 1 : 1.25;
  context.beginPath();
  PATTERNS[kind](context);
  context.stroke();
  return tile;
}

/**
 * Everything needed to paint strips in the present theme and resolution.
 * @returns {Paint}
 */
export function makePaint() {
  const ratio = window.devicePixelRatio || 1;
  const tiles = new Map(Object.keys(PATTERNS).map((kind) => [kind, pattern(kind, ratio)]));
  /** @type {Record<"processed" | "unread" | "line" | "tip" | "gap", string>} */
  const plain = {
    processed: colour("strip-processed"),
    unread: colour("strip-unread"),
    line: colour("strip-unread-line"),
    tip: colour("strip-tip"),
    gap: colour("surface"),
  };
  return {
    ratio,
    ...plain,
    /** `context` works in CSS pixels; patterns were made in device pixels. */
    fill(context, kind) {
      const tile = tiles.get(kind);
      if (!tile) return kind === "processed" || kind === "unread" ? plain[kind] : plain.line;
      const filled = /** @type {CanvasPattern} */ (context.createPattern(tile, "repeat"));
      filled.setTransform(new DOMMatrix().scale(1 / ratio));
      return filled;
    },
  };
}

/**
 * Prepare a canvas for its present size; null while it has none.
 * @param {HTMLCanvasElement} canvas
 * @param {Paint} paint
 */
export function prepare(canvas, paint) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return null;
  const [wide, high] = [Math.round(width * paint.ratio), Math.round(height * paint.ratio)];
  // Setting a size clears and reallocates, even when it is the same.
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(paint.ratio, 0, 0, paint.ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
