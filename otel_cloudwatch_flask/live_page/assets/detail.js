// The detail view of one series (its statistics, charts, dimensions, and the last data points as they were sent), or of
// all series of a metric in one chart.

import { chart } from "./charts.js";
import { alarm, consoleUrl, dropRule, reduceRule, widget } from "./links.js";
import { mootReason, valuesByDimension } from "./model.js";
import { dimension, showStatistic, trendOf, isCounted } from "./table.js";
import { clock, copyButton, counted, element, escaped, name, number, unit } from "./text.js";

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

  open(series, group, rule, region, opener) {
    this.series = series;
    this.instance = this.processes.chosen; // another process may be chosen later, whose series have other IDs
    this.build(series, group, rule, region);
    return this.show(opener);
  }

  // Compare the series of a metric. ``members`` returns them, with their latest data.
  openGroup(members, region, opener) {
    this.series = null;
    this.members = members;
    const [first] = members();
    this.panel(first, counted(members().length, "metric"));
    this.plots = element("div", { className: "plots" });
    this.datums = element("div", { className: "datums" });
    this.dialog.firstElementChild.append(this.plots, element("div", { className: "buttons" }, ...actions(members(), members(), region)), this.datums);
    return this.show(opener);
  }

  show(opener) {
    this.opener = opener;
    this.changed = null;
    if (!this.isOpen) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    return this.refresh();
  }

  // The event is asynchronous: the next series may be open already.
  closed() {
    if (this.isOpen) return;
    this.clearPlots();
    this.dialog.replaceChildren();
    this.opener?.focus();
  }

  panel(series, above = "") {
    const close = element("button", { type: "button", className: "close", textContent: "Close", autofocus: true });
    close.addEventListener("click", () => this.dialog.close());
    const heading = element("h2", { id: "detail-name", textContent: name(series.metric_name, 255) });
    const context = [name(series.namespace, 255), above].filter(Boolean).join(" · ");
    this.dialog.replaceChildren(
      element("div", { className: "panel" },
        element("header", {}, element("div", {}, element("p", { className: "muted", textContent: context }), heading), close)));
  }

  build(series, group, rule, region) {
    this.figures = element("dl", { className: "figures" });
    this.plots = element("div", { className: "plots" });
    this.datums = element("div", { className: "datums" });
    this.panel(series);
    const identity = Object.entries(series.dimensions).map(([key, value]) => dimension(key, value));
    this.dialog.querySelector("header > div").append(element("p", { className: "identity" }, ...identity));
    const reason = FIGURES.map(([key]) => mootReason(series, key)).find(Boolean);
    this.dialog.firstElementChild.append(
      this.figures, element("p", { className: "reason muted", textContent: reason ? `Statistics in gray are ${reason.split(",")[0].toLowerCase()}.` : "" }),
      this.plots, element("div", { className: "buttons" }, ...actions([series], group, region)), facts(series, rule),
      element("h3", { textContent: "Latest data points, as sent" }), this.datums);
    this.fillFigures(series);
  }

  fillFigures(series) {
    this.figures.replaceChildren(...FIGURES.map(([key, label]) => {
      const figure = element("dd");
      showStatistic(figure, series, key);
      return element("div", {}, element("dt", { textContent: label }), figure);
    }));
  }

  // Fetch the series, and redraw it if it changed.
  async refresh(isForced = false) {
    const opened = this.series;
    if (opened === null) return this.refreshGroup(isForced);
    const series = await this.processes.series(opened.id, this.instance);
    // Meanwhile, the view may have been closed, or another series opened.
    if (!this.isOpen || this.series !== opened || series === undefined) return;
    if (series === null) return this.gone();
    const last = JSON.stringify(series.flushes.at(-1)) + series.samples;
    if (last === this.changed && !isForced) return;
    this.changed = last;
    this.fillFigures(series);
    this.draw(series);
    this.list(series);
  }

  refreshGroup(isForced) {
    const members = this.members().sort((a, b) => b.samples - a.samples);
    const changed = members.map((series) => [series.id, series.samples]).join();
    if (changed === this.changed && !isForced) return;
    this.changed = changed;
    if (!members.length) return this.gone();
    this.clearPlots();
    this.datums.replaceChildren();
    const shown = members.slice(0, COLORS.length);
    const times = [...new Set(shown.flatMap((series) => series.flushes.map(([time]) => time)))].sort((a, b) => a - b);
    const differing = labels(members);
    const lines = shown.map((series, index) => {
      const values = new Map(series.flushes.map(([time], at) => [time, trendOf(series)[at]]));
      return { label: name(differing(series), 60), color: COLORS[index], values: times.map((time) => values.get(time) ?? null) };
    });
    const what = isCounted(members[0]) ? "Sum" : "Mean";
    const rest = members.length > shown.length ? `, for the ${shown.length} of ${members.length} metrics with the most samples` : "";
    this.plot(`${what} per flush${inUnit(members[0])}${rest}`, times, lines, 280);
  }

  clearPlots() {
    for (const each of this.charts) each.destroy();
    this.charts = [];
    this.plots.replaceChildren();
  }

  gone() {
    this.changed = null;
    this.datums.replaceChildren(element("p", { className: "muted", textContent: "This metric is no longer on the page, or its process has ended." }));
  }

  draw(series) {
    this.clearPlots();
    const times = series.flushes.map((flush) => flush.time);
    const column = (key) => series.flushes.map((flush) => flush[key]);
    const isSingle = series.flushes.every((flush) => flush.samples === 1);
    if (isSingle) {
      this.plot(`Value per flush${inUnit(series)}`, times, [{ label: "value", color: "--accent", values: column("sum"), style: "bars" }], 180);
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
    this.plot(`Distribution per flush${inUnit(series)}`, times, [...outer, ...inner], 230);
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
      const copy = copyButton("Copy", JSON.stringify(datum));
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

const COLORS = ["--accent", "--second", "--third", "--fourth", "--fifth", "--faint"];

const inUnit = (series) => (unit(series.unit) ? `, ${unit(series.unit)}` : "");

// A function that names a series by the dimensions in which the members differ.
const labels = (members) => {
  const values = valuesByDimension(members);
  return (series) => Object.entries(series.dimensions).filter(([key]) => values.get(key).size > 1).map(([, value]) => value).join(" ") || series.metric_name;
};

// A link and copy buttons for one or more series of a metric. ``group`` has all series of the metric.
export const actions = (members, group, region, className = "action") => {
  const reduced = reduceRule(group);
  return [
    region
      ? element("a", { className, href: consoleUrl(members, region), target: "_blank", rel: "noopener noreferrer", textContent: "Open in CloudWatch" })
      : element("span", { className: "muted", textContent: "To open the CloudWatch console from here, set a Region." }),
    copyButton("Copy dashboard widget", widget(members, region), className),
    copyButton(members.length > 1 ? "Copy alarm on the first metric" : "Copy alarm", alarm(members[0]), className),
    copyButton("Copy rule to drop all metrics with this name", dropRule(members[0]), className),
    ...(reduced ? [copyButton(`Copy rule to drop dimension ${name(reduced.without, 40)}`, reduced.text, className)] : []),
  ];
};

const facts = (series, rule) => {
  const rows = [
    ...Object.entries(series.dimensions).map(([key, value]) => [name(key, 255), name(value, 1024)]),
    ["Instrument kind", series.kind ?? "unknown"],
    ["Unit", name(series.unit, 40)],
    ["Resolution", series.storage_resolution === 1 ? "1 second" : "1 minute"],
    ["Rule", rule],
    ["Percentiles", precision(series)],
    ...(series.undelivered > 0 ? [["Not delivered", `${number(series.undelivered)} of ${number(series.samples)} samples`]] : []),
  ];
  return element("dl", { className: "facts" }, ...rows.map(([key, value]) =>
    element("div", {}, element("dt", { textContent: key }), element("dd", { textContent: value }))));
};

const precision = ({ kind, percentile_error: error }) => {
  if (kind === "counter") return "not meaningful for a counter";
  if (error === null) return "not available for statistic sets or negative values";
  return error === 0 ? "exact" : `within ${number(Number((100 * error).toPrecision(1)))}%`;
};

// Put each list of numbers on one line.
const compactJson = (datum) =>
  escapedLines(JSON.stringify(datum, null, 2).replace(/\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]/g, (list) => list.replace(/\s+/g, " ")));

const escapedLines = (text) => text.split("\n").map(escaped).join("\n");
