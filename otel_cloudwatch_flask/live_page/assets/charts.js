// Sparklines drawn as SVG, and charts drawn with uPlot (MIT, see uplot.LICENSE).

import { clock, compact, number, render } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, PADDING] = [120, 28, 3];

const make = (tag, attributes) => {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

// Draw a sparkline into an element, unless it already shows these values.
export const sparkline = (container, values) => render(container, values, () => (values.length < 2 ? [] : [drawing(values)]));

const drawing = (values) => {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const x = (index) => PADDING + (index * (WIDTH - 2 * PADDING)) / (values.length - 1);
  const y = (value) => (high === low ? HEIGHT / 2 : HEIGHT - PADDING - ((value - low) * (HEIGHT - 2 * PADDING)) / (high - low));
  const points = values.map((value, index) => `${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  const made = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "xMinYMid meet", class: "sparkline", "aria-hidden": "true", focusable: "false" });
  const end = points.slice(points.lastIndexOf("L") + 1).split(" ");
  made.append(
    make("path", { d: `M${PADDING} ${HEIGHT}L${points}L${WIDTH - PADDING} ${HEIGHT}Z`, class: "area" }),
    make("path", { d: `M${points}`, class: "line" }),
    make("circle", { cx: end[0], cy: end[1], r: 2, class: "end" }),
  );
  return made;
};

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const axis = (more) => ({
  stroke: color("--muted"),
  grid: { stroke: color("--line"), width: 1 },
  ticks: { show: false },
  font: "12px system-ui, sans-serif",
  ...more,
});

const times24 = (self, seconds) => seconds.map(clock);

const tick = (value) => (value === null ? "" : compact.format(value));

// lines: [{ label, color (a custom property), values, style: "line" | "bars" | "band" }]
export const chart = (container, times, lines, height) => {
  const numbers = (self, values) => values.map(tick);
  const options = {
    width: Math.max(container.clientWidth, 200),
    height,
    cursor: { y: false, points: { size: 7 } },
    legend: { live: true, markers: { width: 0, fill: (self, index) => color(lines[index - 1].color) } },
    scales: { x: { time: true, range: (self, first, last) => around(first, last, times.length) }, y: { range: (self, low, high) => range(low, high, lines) } },
    axes: [axis({ size: 32, space: 90, values: times24 }), axis({ size: 58, values: numbers, space: 36 })],
    series: [
      { label: "Time", value: (self, seconds) => (seconds === null ? "–" : clock(seconds)) },
      ...lines.map((line) => ({
        label: line.label,
        stroke: color(line.color),
        width: line.width ?? 1.75,
        spanGaps: true,
        fill: line.style === "bars" ? color(line.color) : undefined,
        paths: line.style === "bars" ? uPlot.paths.bars({ size: [0.7, 24], radius: 0.15 }) : undefined,
        points: { show: line.style !== "bars" && times.length < 3 },
        value: (self, value) => number(value),
      })),
    ],
    hooks: { ready: [showLast], setCursor: [(self) => self.cursor.idx === null && showLast(self)], setData: [showLast] },
    bands: lines.some((line) => line.style === "band")
      ? [{ series: [lines.findIndex((line) => line.label === "max") + 1, lines.findIndex((line) => line.label === "min") + 1], fill: color("--band") }]
      : [],
  };
  return new uPlot(options, [times, ...lines.map((line) => line.values)], container);
};

// Without a cursor, the legend shows the latest values.
const showLast = (self) => self.setLegend({ idx: self.data[0].length - 1 }, false);

// Extend the time axis by half a bar on either side. For a single point, uPlot suggests a day.
const around = (first, last, count) => {
  if (count === 1) return [first - 5, first + 5];
  const margin = (last - first) / (count - 1) / 2 || 0.5;
  return [first - margin, last + margin];
};

const range = (low, high, lines) => {
  if (low === null || high === null) return [0, 1];
  if (lines.some((line) => line.style === "bars")) return [Math.min(low, 0), Math.max(high, 0) * 1.08 || 1];
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
};
