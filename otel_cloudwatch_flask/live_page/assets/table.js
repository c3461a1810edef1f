// The table of series: every row is there, for the keyboard, for reading aloud and for finding in the page, but only
// those in sight are kept up to date, so that a thousand of them cost what twenty do.

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
    this.inSight = new Set();
    this.observer = new IntersectionObserver((entries) => this.seen(entries), { rootMargin: "300px" });
    this.body = document.getElementById("body");
    this.build();
  }

  build() {
    document.getElementById("columns").append(
      ...COLUMNS.map((column, place) => element("col", { className: `column-${place}` })));
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
    COLUMNS.forEach(({ key }, place) => {
      if (!key) return;
      const state = key !== this.sort.key ? "none" : this.sort.descending ? "descending" : "ascending";
      this.heads[place].setAttribute("aria-sort", state);
    });
    document.getElementById("sort").value = this.sort.key;
  }

  // Another process's series, or all of this one's anew.
  show(model, changed) {
    if (this.model !== model) this.clear();
    this.model = model;
    for (const id of this.rows.keys()) if (!model.series.has(id)) this.remove(id);
    let isNew = false;
    for (const id of changed) {
      const row = this.rows.get(id);
      if (!row) isNew = true, this.add(model.series.get(id));
      else if (this.inSight.has(id)) this.fill(row, model.series.get(id));
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
    this.inSight.delete(id);
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

  seen(entries) {
    for (const { target, isIntersecting } of entries) {
      const id = Number(target.dataset.id);
      const row = this.rows.get(id);
      if (!row) continue;
      if (!isIntersecting) this.inSight.delete(id);
      else {
        this.inSight.add(id);
        if (row.isStale) this.fill(row, this.model.series.get(id));
      }
    }
  }

  fill(row, series) {
    NUMBERS.forEach(({ key }, place) => {
      const cell = row.numbers[place];
      const text = number(series[key]);
      if (cell.textContent !== text) cell.textContent = text;
      cell.title = exact(series[key]);
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
      const fits = (this.rule === "" || String(series.rule) === this.rule) && this.words.every((word) => series.text.includes(word));
      line.hidden = !fits;
      shown += fits;
    }
    this.onCount?.(shown, this.rows.size);
  }

  // Rows stay where they are under a pointer or the keyboard's focus, unless somebody asked for another order.
  order(isAsked) {
    if (!isAsked && (this.body.matches(":hover") || this.body.contains(document.activeElement))) return;
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
    if (ordered.length === current.length && ordered.every((id, place) => id === current[place])) return;
    const focused = document.activeElement;
    this.body.append(...ordered.map((id) => this.rows.get(id).line));
    if (this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  byName(a, b) {
    return collator.compare(this.model.series.get(a).text, this.model.series.get(b).text) || a - b;
  }
}

const collator = new Intl.Collator("en", { numeric: true });

// Counts are seen by their sum, what is measured by its mean.
export const isCounted = ({ unit: given }) => given === "Count" || given === "None" || given === "Bytes";

const trendOf = (series) =>
  series.flushes.map(([, sum, samples]) => (isCounted(series) ? sum : sum / samples));

// What hardly ever tells two series apart comes last, where it may be cut off.
const MOSTLY_ALIKE = new Set([
  "http.flavor", "http.scheme", "network.protocol.name", "network.protocol.version", "url.scheme",
]);

const tellingFirst = ([first], [second]) => MOSTLY_ALIKE.has(first) - MOSTLY_ALIKE.has(second);

export const identity = (series) => {
  const parts = Object.entries(series.dimensions).sort(tellingFirst).map(([key, value]) =>
    element("span", { className: "dimension", title: `${name(key, 255)} = ${name(value, 500)}` },
      element("span", { className: "key", textContent: `${name(key, 40)} ` }), name(value, 60)));
  const line = element("span", { className: "dimensions" });
  if (unit(series.unit)) line.append(element("span", { className: "unit", textContent: unit(series.unit) }));
  line.append(...parts);
  if (series.dimensions["otel.metric.overflow"] === "true") {
    line.append(element("span", { className: "badge", textContent: "overflow", title: "Takes what found no place among max_metrics" }));
  }
  return [line];
};
