// The table of series. All rows are in the document, for keyboards, screen readers and the browser's search, but only
// visible rows are updated, so that a thousand rows cost as much as twenty.

import { element, exact, name, number, unit } from "./text.js";
import { sparkline } from "./charts.js";

const COLUMNS = [
  { key: "metric_name", label: "Metric", numeric: false },
  { key: null, label: "Last flushes", numeric: false },
  { key: "samples", label: "Samples", numeric: true },
  { key: "sum", label: "Sum", numeric: true },
  { key: "minimum", label: "Min", numeric: true },
  { key: "p50", label: "p50", numeric: true },
  { key: "p90", label: "p90", numeric: true },
  { key: "p99", label: "p99", numeric: true },
  { key: "maximum", label: "Max", numeric: true },
];
const NUMBERS = COLUMNS.filter((column) => column.numeric);

export class Table {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.rows = new Map();
    this.sort = { key: "metric_name", descending: false };
    this.words = [];
    this.rule = "";
    this.visible = new Set();
    this.observer = new IntersectionObserver((entries) => this.onVisibility(entries), { rootMargin: "300px" });
    this.body = document.getElementById("body");
    this.build();
  }

  build() {
    document.getElementById("columns").append(
      ...COLUMNS.map((column, index) => element("col", { className: `column-${index}` })));
    this.heads = COLUMNS.map((column) => this.head(column));
    document.getElementById("head").append(...this.heads);
    const sort = document.getElementById("sort");
    for (const { key, label } of COLUMNS.filter((column) => column.key)) sort.append(new Option(label, key));
    sort.addEventListener("change", () => this.sortBy(sort.value, sort.value !== "metric_name"));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && !String(getSelection())) this.onOpen(Number(row.dataset.id), row.querySelector("button"));
    });
    this.markSorted();
  }

  head({ key, label, numeric }) {
    const cell = element("th", { scope: "col", role: "columnheader", className: numeric ? "number" : "" });
    if (!key) return cell.append(label), cell;
    const button = element("button", { type: "button", className: "sort", textContent: label });
    button.addEventListener("click", () => {
      const again = this.sort.key === key;
      this.sortBy(key, again ? !this.sort.descending : numeric);
    });
    cell.append(button);
    return cell;
  }

  sortBy(key, descending) {
    this.sort = { key, descending };
    this.markSorted();
    this.order(true);
  }

  markSorted() {
    COLUMNS.forEach(({ key }, index) => {
      if (!key) return;
      const state = key !== this.sort.key ? "none" : this.sort.descending ? "descending" : "ascending";
      this.heads[index].setAttribute("aria-sort", state);
    });
    document.getElementById("sort").value = this.sort.key;
  }

  // Show the changed series of a model; another model replaces all rows.
  show(model, changed) {
    if (this.model !== model) this.clear();
    this.model = model;
    for (const id of this.rows.keys()) if (!model.series.has(id)) this.remove(id);
    let isNew = false;
    for (const id of changed) {
      const row = this.rows.get(id);
      if (!row) isNew = true, this.add(model.series.get(id));
      else if (this.visible.has(id)) this.fill(row, model.series.get(id));
      else row.isStale = true;
    }
    if (isNew) this.filter();
    this.order(isNew);
  }

  clear() {
    for (const id of [...this.rows.keys()]) this.remove(id);
  }

  remove(id) {
    const { line } = this.rows.get(id);
    this.observer.unobserve(line);
    line.remove();
    this.rows.delete(id);
    this.visible.delete(id);
  }

  add(series) {
    const open = element("button", { type: "button", className: "open", textContent: name(series.metric_name) });
    open.title = name(series.metric_name, 255);
    const first = element("th", { scope: "row", role: "rowheader", className: "metric" }, open, ...identity(series));
    const spark = element("td", { role: "cell", className: "spark", "data-label": "Last flushes" });
    const numbers = NUMBERS.map(({ label }) => element("td", { role: "cell", className: "number", "data-label": label }));
    const line = element("tr", { role: "row" }, first, spark, ...numbers);
    line.dataset.id = series.id;
    this.rows.set(series.id, { line, spark, numbers, isStale: true });
    this.observer.observe(line);
  }

  onVisibility(entries) {
    for (const { target, isIntersecting } of entries) {
      const id = Number(target.dataset.id);
      const row = this.rows.get(id);
      if (!row) continue;
      if (!isIntersecting) this.visible.delete(id);
      else {
        this.visible.add(id);
        if (row.isStale) this.fill(row, this.model.series.get(id));
      }
    }
  }

  fill(row, series) {
    NUMBERS.forEach(({ key }, index) => {
      const cell = row.numbers[index];
      const text = number(series[key]);
      if (cell.textContent !== text) cell.textContent = text;
      cell.title = exact(series[key], series.kind);
    });
    sparkline(row.spark, trendOf(series));
    row.isStale = false;
  }

  filterBy(text, rule) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.rule = rule;
    this.filter();
  }

  filter() {
    let shown = 0;
    for (const [id, { line }] of this.rows) {
      const series = this.model.series.get(id);
      const matches = (this.rule === "" || String(series.rule) === this.rule) && this.words.every((word) => series.text.includes(word));
      line.hidden = !matches;
      shown += matches;
    }
    this.onCount?.(shown, this.rows.size);
  }

  // Keep the order while the pointer or the focus is in the table, unless the user asked for another order.
  order(isRequested) {
    if (!isRequested && (this.body.matches(":hover") || this.body.contains(document.activeElement))) return;
    const { key, descending } = this.sort;
    const direction = descending ? -1 : 1;
    const value = (id) => this.model.series.get(id)[key];
    const compare = (a, b) => {
      if (key === "metric_name") return direction * this.byName(a, b);
      const [left, right] = [value(a), value(b)];
      if (left === right) return this.byName(a, b);
      if (left === null || right === null) return left === null ? 1 : -1;
      return left < right ? -direction : direction;
    };
    const ordered = [...this.rows.keys()].sort(compare);
    const current = [...this.body.children].map((line) => Number(line.dataset.id));
    if (ordered.length === current.length && ordered.every((id, index) => id === current[index])) return;
    const focused = document.activeElement;
    this.body.append(...ordered.map((id) => this.rows.get(id).line));
    if (this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  byName(a, b) {
    return collator.compare(this.model.series.get(a).text, this.model.series.get(b).text) || a - b;
  }
}

const collator = new Intl.Collator("en", { numeric: true });

// Sparklines show the sum of counts, and the mean of everything else.
export const isCounted = ({ unit: given }) => given === "Count" || given === "None" || given === "Bytes";

const trendOf = (series) =>
  series.flushes.map(([, sum, samples]) => (isCounted(series) ? sum : sum / samples));

// Dimensions that rarely differ between series come last, where they may be truncated.
const RARELY_DIFFERENT = new Set([
  "http.flavor", "http.scheme", "network.protocol.name", "network.protocol.version", "url.scheme",
]);

const distinctiveFirst = ([first], [second]) => RARELY_DIFFERENT.has(first) - RARELY_DIFFERENT.has(second);

export const identity = (series) => {
  const parts = Object.entries(series.dimensions).sort(distinctiveFirst).map(([key, value]) =>
    element("span", { className: "dimension", title: `${name(key, 255)} = ${name(value, 500)}` },
      element("span", { className: "key", textContent: `${name(key, 40)} ` }), name(value, 60)));
  const line = element("span", { className: "dimensions" });
  if (unit(series.unit)) line.append(element("span", { className: "unit", textContent: unit(series.unit) }));
  line.append(...parts);
  if (series.dimensions["otel.metric.overflow"] === "true") {
    line.append(element("span", { className: "badge", textContent: "overflow", title: "Combines all metrics beyond max_metrics" }));
  }
  return [line];
};
