// Events per minute, stacked by type: one bar for each minute, drawn by uPlot.
import { byId, make, setHidden, setText } from "../ui/dom.js";
import { exact, HUMANISE_FROM, hourMinute, inThousands } from "../ui/format.js";
import { colour, onTheme } from "../ui/theme.js";

/** @type {(keyof TypeCounts)[]} */
const TYPES = ["view", "like", "comment", "share"];
const AXIS_WIDTH = 56;
const BAR_SHARE = 0.78;

/**
 * `[minutes, all four, the first three, …]`: each bar covers the lower part of the one drawn before it.
 * @param {MinuteSnapshot[]} minutes
 * @returns {any}
 */
function stacked(minutes) {
  // At the middle of its minute, a bar covers the minute, and the nearest bar is the one under the pointer.
  const middles = minutes.map(({ minute }) => Date.parse(minute) / 1000 + 30);
  const sums = TYPES.map(() => /** @type {number[]} */ ([]));
  for (const { counts } of minutes) {
    let sum = 0;
    for (const [index, type] of TYPES.entries()) {
      sum += counts[type];
      sums[index].push(sum);
    }
  }
  return [middles, ...sums.reverse()];
}

export class MinutesChart {
  /** @type {import("uplot") | null} */
  #plot = null;
  /** @type {typeof import("uplot") | null} */
  #library = null;
  /** @type {MinuteSnapshot[]} */
  #minutes = [];
  #shown = "";
  /** @type {Record<string, string>} */
  #colours = {};
  #place = byId("minutes-chart");

  constructor() {
    this.#readColours();
    onTheme(() => {
      this.#readColours();
      this.#plot?.redraw();
    });
    this.#place.addEventListener("keydown", (event) => this.#key(event));
    // Imported on its own: without the library, the rest of the page still works.
    import("../../uplot/uPlot.esm.js").then(
      ({ default: library }) => {
        this.#library = library;
        this.#draw();
      },
      () => {
        setText(
          byId("minutes-note"),
          "Chart unavailable: the chart library is not installed. Run npm ci --omit=dev, then reload. All numbers are live.",
        );
        setHidden(byId("minutes-note"), false);
      },
    );
  }

  /** @param {Snapshot} snapshot */
  show({ minutes, implausible_times: times }) {
    setText(byId("event-times"), times.map(({ text }) => text).join(" "));
    setHidden(byId("event-times"), !times.length);
    const key = JSON.stringify(minutes);
    if (key === this.#shown) return;
    this.#shown = key;
    this.#minutes = minutes;
    this.#draw();
  }

  #draw() {
    if (!this.#library || !this.#minutes.length) return;
    const data = stacked(this.#minutes);
    if (this.#plot) {
      this.#plot.setData(data);
    } else {
      const plot = new this.#library(this.#options(this.#library), data, this.#place);
      this.#plot = plot;
      new ResizeObserver(() => plot.setSize(this.#size())).observe(this.#place);
    }
    this.#read(this.#plot.cursor.idx);
  }

  #size() {
    return { width: Math.max(200, this.#place.clientWidth), height: Math.max(120, this.#place.clientHeight) };
  }

  #readColours() {
    for (const name of ["text-3", "line", "surface"]) this.#colours[name] = colour(name);
    for (const type of TYPES) this.#colours[type] = colour(`type-${type}`);
  }

  /**
   * @param {typeof import("uplot")} library
   * @returns {import("uplot").Options}
   */
  #options(library) {
    const font = `12px ${getComputedStyle(this.#place).fontFamily}`;
    const axis = { stroke: () => this.#colours["text-3"], font, ticks: { show: false } };
    const grid = { stroke: () => this.#colours.line, width: 1 };
    const bars = library.paths.bars?.({ size: [BAR_SHARE, 24] });
    const series = [...TYPES].reverse().map((type) => ({
      label: type,
      paths: bars,
      points: { show: false },
      width: 0,
      fill: () => this.#colours[type],
    }));
    return {
      ...this.#size(),
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: {
        x: { range: (_plot, first, last) => [first - 30, last + 30] },
        y: { range: (_plot, _lowest, highest) => [0, Math.max(10, (highest ?? 0) * 1.08)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 24,
          space: 72,
          values: (_plot, ticks) => ticks.map((tick) => hourMinute(tick * 1000)),
        },
        {
          ...axis,
          grid,
          size: AXIS_WIDTH,
          space: 40,
          values: (_plot, ticks) => ticks.map((ticks.at(-1) ?? 0) < HUMANISE_FROM ? exact : inThousands),
        },
      ],
      series: [{}, ...series],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
  }

  /**
   * Show the numbers under the cursor, otherwise those of the last complete minute.
   * @param {number | null} [index]
   */
  #read(index) {
    const last = this.#minutes.length - 1;
    const chosen = this.#minutes[index ?? Math.max(0, last - 1)];
    if (!chosen) return;
    const when = hourMinute(Date.parse(chosen.minute)) + (chosen === this.#minutes[last] ? " so far" : "");
    const readout = byId("minutes-readout");
    if (!readout.childElementCount) readout.append(...readoutParts());
    setText(byId("minutes-when"), when);
    for (const [place, type] of TYPES.entries()) {
      setText(readout.children[place].lastElementChild, exact(chosen.counts[type]));
    }
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    /** @type {Record<string, number>} */
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const step = steps[event.key];
    if (!step || !this.#plot) return;
    event.preventDefault();
    const last = this.#minutes.length - 1;
    const index = Math.min(last, Math.max(0, (this.#plot.cursor.idx ?? last) + step));
    const left = this.#plot.valToPos(this.#plot.data[0][index], "x");
    this.#plot.setCursor({ left, top: 0 });
  }
}

function readoutParts() {
  return TYPES.map((type) =>
    make(
      "span",
      { class: "readout-type" },
      make("span", { class: "swatch", "data-type": type, "aria-hidden": "true" }),
      type,
      " ",
      make("b"),
    ),
  );
}
