// The detail view of one series: its statistics, charts, dimensions, and the last data points as they were sent.

import { chart } from "./charts.js";
import { clock, element, escaped, exact, name, number, unit } from "./text.js";

const FIGURES = [
  ["samples", "Samples"], ["sum", "Sum"], ["minimum", "Minimum"], ["p50", "p50"], ["p90", "p90"], ["p99", "p99"], ["maximum", "Maximum"],
];

export class Detail {
  constructor(processes) {
    this.processes = processes;
    this.dialog = document.getElementById("detail");
    this.charts = [];
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    new ResizeObserver(() => this.resize()).observe(this.dialog);
  }

  get isOpen() {
    return this.dialog.open;
  }

  open(series, rule, opener) {
    this.opener = opener;
    this.series = series;
    this.changed = null;
    this.build(series, rule);
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
    return this.refresh();
  }

  // The event is asynchronous: the next series may be open already.
  closed() {
    if (this.isOpen) return;
    for (const each of this.charts) each.destroy();
    this.charts = [];
    this.dialog.replaceChildren();
    this.opener?.focus();
  }

  build(series, rule) {
    const close = element("button", { type: "button", className: "close", textContent: "Close", autofocus: true });
    close.addEventListener("click", () => this.dialog.close());
    const heading = element("h2", { id: "detail-name", textContent: name(series.metric_name, 255) });
    this.figures = element("dl", { className: "figures" });
    this.plots = element("div", { className: "plots" });
    this.datums = element("div", { className: "datums" });
    this.dialog.replaceChildren(
      element("div", { className: "panel" },
        element("header", {}, element("div", {}, element("p", { className: "muted", textContent: name(series.namespace, 255) }), heading), close),
        this.figures, this.plots, facts(series, rule),
        element("h3", { textContent: "Latest data points, as sent" }), this.datums));
    this.fillFigures(series);
  }

  fillFigures(series) {
    this.figures.replaceChildren(...FIGURES.map(([key, label]) =>
      element("div", {}, element("dt", { textContent: label }), element("dd", { textContent: number(series[key]), title: exact(series[key], series.kind) }))));
  }

  // Fetch the series, and redraw it if it changed.
  async refresh(isForced = false) {
    const series = await this.processes.series(this.series.id);
    if (!this.isOpen) return;
    if (series === null) return this.gone();
    const last = JSON.stringify(series.flushes.at(-1)) + series.samples;
    if (last === this.changed && !isForced) return;
    this.changed = last;
    this.latest = series;
    this.fillFigures(series);
    this.draw(series);
    this.list(series);
  }

  gone() {
    this.datums.replaceChildren(element("p", { className: "muted", textContent: "This series was evicted, or its process has ended." }));
  }

  draw(series) {
    for (const each of this.charts) each.destroy();
    this.charts = [];
    this.plots.replaceChildren();
    const times = series.flushes.map((flush) => flush.time);
    const column = (key) => series.flushes.map((flush) => flush[key]);
    const isSingle = series.flushes.every((flush) => flush.samples === 1);
    const inUnit = unit(series.unit) ? `, ${unit(series.unit)}` : "";
    if (isSingle) {
      this.plot(`Value per flush${inUnit}`, times, [{ label: "value", color: "--accent", values: column("sum"), style: "bars" }]);
      return;
    }
    const outer = [
      { label: "max", color: "--faint", values: column("maximum"), width: 1, style: "band" },
      { label: "min", color: "--faint", values: column("minimum"), width: 1 },
    ];
    const inner = series.p50 === null
      ? [{ label: "mean", color: "--accent", values: series.flushes.map((flush) => flush.sum / flush.samples) }]
      : [
        { label: "p50", color: "--accent", values: column("p50") },
        { label: "p90", color: "--second", values: column("p90") },
        { label: "p99", color: "--third", values: column("p99") },
      ];
    this.plot(`Distribution per flush${inUnit}`, times, [...outer, ...inner], 230);
    this.plot("Samples per flush", times, [{ label: "samples", color: "--accent", values: column("samples"), style: "bars" }], 150);
  }

  plot(title, times, lines, height) {
    const container = element("div", { className: "plot" });
    const description = `${title}; latest: ${lines.map((line) => `${line.label} ${number(line.values.at(-1))}`).join(", ")}.`;
    this.plots.append(element("figure", {}, element("figcaption", { textContent: title }), container));
    container.setAttribute("role", "img");
    container.setAttribute("aria-label", description);
    this.charts.push(chart(container, times, lines, height));
  }

  list(series) {
    this.datums.replaceChildren(...series.last_datums.toReversed().map((datum, index) => {
      const text = compactJson(datum);
      const copy = element("button", { type: "button", className: "copy", textContent: "Copy" });
      copy.addEventListener("click", () => navigator.clipboard?.writeText(JSON.stringify(datum)).then(() => (copy.textContent = "Copied")));
      return element("details", { open: index === 0 },
        element("summary", { textContent: `Timestamp ${clock(datum.Timestamp)}` }), element("div", { className: "code" }, copy, element("pre", { textContent: text, tabIndex: 0 })));
    }));
  }

  resize() {
    for (const each of this.charts) {
      const width = each.root.parentElement?.clientWidth;
      if (width && Math.abs(width - each.width) > 2) each.setSize({ width, height: each.height });
    }
  }
}

const facts = (series, rule) => {
  const rows = [
    ...Object.entries(series.dimensions).map(([key, value]) => [name(key, 255), name(value, 1024)]),
    ["Instrument kind", series.kind ?? "unknown"],
    ["Unit", name(series.unit, 40)],
    ["Resolution", series.storage_resolution === 1 ? "1 second" : "1 minute"],
    ["Rule", rule],
    ["Percentiles", precision(series)],
  ];
  return element("dl", { className: "facts" }, ...rows.map(([key, value]) =>
    element("div", {}, element("dt", { textContent: key }), element("dd", { textContent: value }))));
};

const precision = ({ kind, percentile_error: error }) => {
  if (kind === "counter") return "not meaningful for a counter";
  if (error === null) return "not available: sent as statistic sets";
  return error === 0 ? "exact" : `within ${number(Number((100 * error).toPrecision(1)))} %`;
};

// Put each list of numbers on one line.
const compactJson = (datum) =>
  escapedLines(JSON.stringify(datum, null, 2).replace(/\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]/g, (list) => list.replace(/\s+/g, " ")));

const escapedLines = (text) => text.split("\n").map(escaped).join("\n");
