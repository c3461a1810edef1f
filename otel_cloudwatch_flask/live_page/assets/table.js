// The table of series, grouped by metric. All rows are in the document, for keyboards, screen readers and the browser's
// search, but only visible rows are updated, so that a thousand rows cost as much as twenty.

import { counted, element, exact, name, number, quantity, unit } from "./text.js";
import { sparkline } from "./charts.js";
import { mootReason, valuesByDimension } from "./model.js";

export const DEFAULT_SORT = "metric_name";
const COLUMNS = [
  { key: DEFAULT_SORT, label: "Metric", numeric: false },
  { key: null, label: "Last flushes", numeric: false },
  { key: "samples", label: "Samples", numeric: true },
  { key: "sum", label: "Sum", numeric: true },
  { key: "minimum", label: "Min", numeric: true },
  { key: "p50", label: "p50", numeric: true },
  { key: "p90", label: "p90", numeric: true },
  { key: "p99", label: "p99", numeric: true },
  { key: "maximum", label: "Max", numeric: true },
  { key: null, label: "Actions", numeric: false, isHidden: true },
];
const NUMBERS = COLUMNS.filter((column) => column.numeric);
const KEYS = COLUMNS.map((column) => column.key).filter(Boolean);

// Show a statistic in a cell. If it has no meaning for the kind of metric, show it in gray, with the reason as tooltip.
export const showStatistic = (cell, series, key) => {
  const text = key === "samples" ? number(series.samples) : quantity(series[key], series.unit);
  const reason = mootReason(series, key);
  if (cell.textContent !== text) cell.textContent = text;
  cell.title = reason ?? exact(series[key]);
  cell.classList.toggle("moot", reason !== null);
};

export class Table {
  constructor({ onOpen, onOpenGroup, onMenu, onCount }) {
    Object.assign(this, { onOpen, onOpenGroup, onMenu, onCount });
    this.rows = new Map();
    this.groups = new Map();
    this.sort = { key: DEFAULT_SORT, descending: false };
    this.words = [];
    this.rule = "";
    this.visible = new Set();
    this.observer = new IntersectionObserver((entries) => this.onVisibility(entries), { rootMargin: "300px" });
    this.body = document.getElementById("body");
    this.build();
    new ResizeObserver(() => this.fitVisible()).observe(this.body);
  }

  build() {
    document.getElementById("columns").append(
      ...COLUMNS.map((column, index) => element("col", { className: `column-${index}` })));
    this.heads = COLUMNS.map((column) => this.head(column));
    document.getElementById("head").append(...this.heads);
    const sort = document.getElementById("sort");
    for (const { key, label } of COLUMNS.filter((column) => column.key)) sort.append(new Option(label, key));
    sort.addEventListener("change", () => this.sortBy(sort.value, sort.value !== DEFAULT_SORT));
    this.body.addEventListener("click", (event) => this.onClick(event));
    this.markSorted();
  }

  head({ key, label, numeric, isHidden }) {
    const cell = element("th", { scope: "col", role: "columnheader", className: numeric ? "number" : "" });
    if (!key) return cell.append(element("span", { textContent: label, className: isHidden ? "hidden" : "" })), cell;
    const button = element("button", { type: "button", className: "sort", textContent: label });
    button.addEventListener("click", () => {
      const again = this.sort.key === key;
      this.sortBy(key, again ? !this.sort.descending : numeric);
    });
    cell.append(button);
    return cell;
  }

  // A click that ends a selection of text opens nothing; the keyboard's clicks have the detail 0.
  onClick({ target, detail }) {
    const line = target.closest("tr");
    if (!line || (detail && String(getSelection()))) return;
    const { id, group } = line.dataset;
    const members = this.members(group);
    const chip = target.closest(".chip");
    if (chip) this.toggleConstant(chip, line);
    else if (target.closest(".actions")) this.onMenu(id ? [this.model.series.get(Number(id))] : members, members, target.closest(".actions"));
    else if (id) this.onOpen(Number(id), line.querySelector(".open"));
    else this.onOpenGroup(group, line.querySelector(".open"));
  }

  toggleConstant(chip, line) {
    const isShown = chip.getAttribute("aria-expanded") === "true";
    chip.setAttribute("aria-expanded", String(!isShown));
    line.querySelector(".constants").hidden = isShown;
  }

  members(key) {
    return [...this.model.series.values()].filter((series) => series.group === key);
  }

  sortBy(key, descending) {
    this.sort = { key: KEYS.includes(key) ? key : DEFAULT_SORT, descending };
    this.markSorted();
    if (this.model) this.order(true);
    this.onSort?.();
  }

  // Series are grouped by metric unless they are ranked by a statistic.
  get isGrouped() {
    return this.sort.key === DEFAULT_SORT;
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
    const isOther = this.model !== model;
    let isNew = isOther;
    this.model = model;
    for (const id of this.rows.keys()) if (isOther || !model.series.has(id)) this.remove(id), isNew = true;
    for (const id of isOther ? model.series.keys() : changed) {
      const row = this.rows.get(id);
      if (!row) isNew = true, this.add(model.series.get(id));
      else if (this.visible.has(id)) this.fill(row, model.series.get(id));
      else row.isStale = true;
    }
    if (isNew) this.regroup();
    const { delivery } = model.document;
    this.body.classList.toggle("has-trouble", delivery.is_failing || Object.keys(delivery.lost).length > 0);
    this.order(isNew);
    if (isNew) this.filter();
  }

  remove(id) {
    const { line } = this.rows.get(id);
    this.observer.unobserve(line);
    line.remove();
    this.rows.delete(id);
    this.visible.delete(id);
  }

  add(series) {
    const label = name(series.metric_name);
    const { dimensions, list, more, error, badge } = identity(series);
    const open = element("button", { type: "button", className: "open" }, element("span", { className: "name", textContent: label }), dimensions);
    open.title = name(series.metric_name, 255);
    const first = element("th", { scope: "row", role: "rowheader", className: "metric" }, open);
    const spark = element("td", { role: "cell", className: "spark", "data-label": "Last flushes" });
    const numbers = NUMBERS.map(({ label: heading }) => element("td", { role: "cell", className: "number", "data-label": heading }));
    const line = element("tr", { role: "row", className: "series" }, first, spark, ...numbers, actionsCell(label));
    line.dataset.id = series.id;
    line.dataset.group = series.group;
    this.rows.set(series.id, { line, spark, numbers, list, more, error, badge, isStale: true });
    this.observer.observe(line);
  }

  // Find the series of each metric. Dimensions that are the same in all of them are hidden; those that differ most come
  // first.
  regroup() {
    for (const { line } of this.groups.values()) line?.remove();
    this.groups = new Map();
    for (const series of this.model.series.values()) {
      if (!this.groups.has(series.group)) this.groups.set(series.group, { ids: [], line: null });
      this.groups.get(series.group).ids.push(series.id);
    }
    for (const [key, group] of this.groups) {
      const members = group.ids.map((id) => this.model.series.get(id));
      const isSeveral = members.length > 1;
      const values = valuesByDimension(members);
      const constants = isSeveral ? Object.entries(members[0].dimensions).filter(([dimension]) => values.get(dimension).size === 1) : [];
      if (isSeveral) group.line = groupLine(key, members, constants);
      for (const id of group.ids) {
        const row = this.rows.get(id);
        row.line.classList.toggle("grouped", isSeveral);
        for (const each of row.list.children) {
          const { size } = values.get(each.dataset.key);
          each.classList.toggle("constant", isSeveral && size === 1);
          each.style.order = isSeveral ? -size : 0;
        }
      }
    }
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
    this.fitVisible();
  }

  fill(row, series) {
    NUMBERS.forEach(({ key }, index) => showStatistic(row.numbers[index], series, key));
    sparkline(row.spark, trendOf(series));
    row.error.hidden = !series.isError;
    row.line.classList.toggle("is-undelivered", series.undelivered > 0);
    row.badge.textContent = series.undelivered >= series.samples ? "not delivered" : `${number(series.undelivered)} not delivered`;
    row.isStale = false;
  }

  // Show how many dimensions are cut off. All rows are measured together, so that the browser computes the layout once.
  fitVisible() {
    const cut = [...this.visible].map((id) => [this.rows.get(id), cutOff(this.rows.get(id).list)]);
    for (const [{ more }, hidden] of cut) {
      more.textContent = hidden.length ? `+${hidden.length}` : "";
      more.title = hidden.map((each) => each.title).join("\n");
    }
  }

  filterBy(text, rule) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.rule = rule;
    if (this.model) this.filter();
  }

  filter() {
    let shown = 0;
    for (const group of this.groups.values()) {
      let shownInGroup = 0;
      for (const id of group.ids) {
        const series = this.model.series.get(id);
        const matches = (this.rule === "" || String(series.rule) === this.rule) && this.words.every((word) => series.text.includes(word));
        this.rows.get(id).line.hidden = !matches;
        shownInGroup += matches;
      }
      if (group.line) group.line.hidden = !shownInGroup;
      shown += shownInGroup;
    }
    this.onCount(shown, this.rows.size);
  }

  // Keep the order while the pointer or the focus is in the table, unless the user asked for another order.
  order(isRequested) {
    if (!isRequested && (this.body.matches(":hover") || this.body.contains(document.activeElement))) return;
    const lines = this.isGrouped ? this.groupedLines() : this.ranked([...this.rows.keys()]).map((id) => this.rows.get(id).line);
    this.body.classList.toggle("is-flat", !this.isGrouped);
    const current = [...this.body.children];
    if (lines.length === current.length && lines.every((line, index) => line === current[index])) return;
    const focused = document.activeElement;
    this.body.replaceChildren(...lines);
    if (this.body.contains(focused)) focused.focus({ preventScroll: true });
    requestAnimationFrame(() => this.fitVisible());
  }

  // Metrics with errors come first, then metrics are ordered by name. The series of a metric are ordered likewise.
  groupedLines() {
    const direction = this.sort.descending ? -1 : 1;
    const series = (id) => this.model.series.get(id);
    const before = (a, b) => series(b).isError - series(a).isError || direction * this.byName(a, b);
    const groups = [...this.groups.values()].map((group) => ({ ...group, ids: [...group.ids].sort(before) }));
    groups.sort((a, b) => before(a.ids[0], b.ids[0]));
    return groups.flatMap(({ line, ids }) => [...(line ? [line] : []), ...ids.map((id) => this.rows.get(id).line)]);
  }

  ranked(ids) {
    const { key, descending } = this.sort;
    const direction = descending ? -1 : 1;
    const value = (id) => (mootReason(this.model.series.get(id), key) ? null : this.model.series.get(id)[key]);
    return ids.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === right) return this.byName(a, b);
      if (left === null || right === null) return left === null ? 1 : -1;
      return left < right ? -direction : direction;
    });
  }

  byName(a, b) {
    return collator.compare(this.model.series.get(a).text, this.model.series.get(b).text) || a - b;
  }
}

const collator = new Intl.Collator("en", { numeric: true });

const actionsCell = (label) =>
  element("td", { role: "cell", className: "more-actions" },
    element("button", { type: "button", className: "actions", textContent: "⋯", title: "Actions", "aria-label": `Actions for ${label}`, "aria-haspopup": "true" }));

// The heading of a metric with several series: what they have in common.
const groupLine = (key, members, constants) => {
  const [series] = members;
  const label = name(series.metric_name);
  const open = element("button", { type: "button", className: "open", title: "Compare these metrics" }, element("span", { className: "name", textContent: label }));
  const about = element("span", { className: "about" }, ...[unit(series.unit), counted(members.length, "metric")].filter(Boolean).map((text) => element("span", { className: "unit", textContent: text })));
  const head = element("th", { scope: "rowgroup", role: "rowheader", colSpan: COLUMNS.length - 1 }, open, about);
  if (constants.length) {
    about.append(element("button", { type: "button", className: "chip", textContent: counted(constants.length, "shared dimension"), "aria-expanded": "false" }));
    head.append(element("span", { className: "constants", hidden: true }, ...constants.map(([key, value]) => dimension(key, value))));
  }
  const line = element("tr", { role: "row", className: "group" }, head, actionsCell(label));
  line.dataset.group = key;
  return line;
};

// Sparklines show the sum of counts, and the mean of everything else.
export const isCounted = ({ unit: given }) => given === "Count" || given === "None" || given === "Bytes";

export const trendOf = (series) =>
  series.flushes.map(([, sum, samples]) => (isCounted(series) ? sum : sum / samples));

export const dimension = (key, value) => {
  const made = element("span", { className: "dimension", title: `${name(key, 255)} = ${name(value, 500)}` },
    element("span", { className: "key", textContent: `${name(key, 40)} ` }), name(value, 60));
  made.dataset.key = key;
  return made;
};

const identity = (series) => {
  const list = element("span", { className: "list" }, ...Object.entries(series.dimensions).map(([key, value]) => dimension(key, value)));
  const more = element("span", { className: "more" });
  const error = element("span", { className: "badge error", textContent: "error", hidden: !series.isError });
  const badge = element("span", { className: "badge undelivered" });
  const dimensions = element("span", { className: "dimensions" }, error, badge);
  if (series.dimensions["otel.metric.overflow"] === "true") {
    dimensions.append(element("span", { className: "badge", textContent: "over the limit", title: "Combines the data from metrics above the limit" }));
  }
  if (unit(series.unit)) dimensions.append(element("span", { className: "unit own-unit", textContent: unit(series.unit) }));
  dimensions.append(list, more);
  return { dimensions, list, more, error, badge };
};

const cutOff = (list) => {
  const bottom = list.offsetTop + list.clientHeight;
  return [...list.children].filter((each) => each.offsetParent && each.offsetTop >= bottom);
};
