// The page. It polls the app every two seconds, or less often if the app is slow to respond.

import { sparkline } from "./charts.js";
import { actions, Detail } from "./detail.js";
import { Processes } from "./model.js";
import { DEFAULT_SORT, Table } from "./table.js";
import { bytes, clock, copyButton, counted, dollars, duration, element, escaped, name, number, put, quantity, render, whole } from "./text.js";

const SHORTEST_PAUSE_SECONDS = 2;
const LONGEST_PAUSE_SECONDS = 20;
const PAUSES_PER_WORK = 50;

const $ = (id) => document.getElementById(id);
const processes = new Processes(document.documentElement.dataset.root);
const detail = new Detail(processes);
const table = new Table({ onOpen: openDetail, onOpenGroup: openGroup, onMenu: openMenu, onCount: showCount });
let isPaused = false;
let failures = 0;
let timer = null;

function openDetail(id, opener) {
  const series = processes.model.series.get(id);
  const rule = ruleText(processes.model.document.rules, series.rule);
  detail.open(series, table.members(series.group), rule, region(), opener).catch(() => detail.gone());
}

function openGroup(group, opener) {
  detail.openGroup(() => table.members(group), region(), opener);
}

const region = () => processes.model.document.settings.region_name;

function openMenu(members, group, opener) {
  const menu = $("menu");
  menu.replaceChildren(...actions(members, group, region(), "item"));
  menu.showPopover();
  const { bottom, right } = opener.getBoundingClientRect();
  menu.style.top = `${Math.max(8, Math.min(bottom + 4, innerHeight - menu.offsetHeight - 8))}px`;
  menu.style.left = `${Math.max(8, right - menu.offsetWidth)}px`;
  menu.querySelector("a, button").focus();
}

async function update() {
  clearTimeout(timer);
  try {
    const changed = await processes.poll();
    failures = 0;
    if (!changed) showDisabled();
    else {
      show(changed);
      if (detail.isOpen) await detail.refresh();
    }
  } catch (problem) {
    failures++;
    showUnreachable(problem);
  }
  freshness();
  schedule();
}

function schedule() {
  clearTimeout(timer);
  if (isPaused || document.hidden) return;
  const work = PAUSES_PER_WORK * processes.workSeconds;
  const seconds = Math.min(Math.max(SHORTEST_PAUSE_SECONDS * 2 ** Math.min(failures, 3), work), LONGEST_PAUSE_SECONDS);
  timer = setTimeout(update, 1000 * seconds);
}

function show(changed) {
  const { model } = processes;
  const { document: data } = model;
  showHeader(data);
  showState(data);
  showSummary(data);
  showMessages(data.messages);
  showRules(data.rules, model);
  $("series").hidden = !model.series.size;
  $("empty").hidden = model.series.size > 0;
  table.show(model, changed);
}

function showHeader(data) {
  const { settings } = data;
  const title = name(data.namespaces.length ? data.namespaces.join(", ") : settings.namespace ?? "No namespace yet", 60);
  put("namespace", title);
  document.title = `${title} · CloudWatch live`;
  const flush = { background: "flushes after requests", sync: "flushes at the end of each request", interval: `flushes every ${duration(settings.export_interval_seconds)}` };
  const parts = [`Process ${settings.pid}`, `up ${duration(data.seconds)}`, flush[settings.flush], settings.region_name && name(settings.region_name, 40)];
  put("about", parts.filter(Boolean).join(" · "));
  const options = [...processes.models].map(([instance, model]) => [instance, String(model.document.settings.pid)]);
  $("process-choice").hidden = options.length < 2;
  fillSelect($("process"), options, processes.chosen);
}

function fillSelect(select, options, chosen) {
  render(select, options, () => options.map(([value, text]) => new Option(text, value)));
  select.value = chosen;
}

const SEND = { text: "To send metrics, add this line before the reporter is created:", copy: 'app.config["CLOUDWATCH_DRY_RUN"] = False' };
const DIAGNOSE = { text: "Read the warnings below, and run:", copy: "flask cloudwatch doctor" };
const ENABLE = { text: "To send metrics, make sure that OTEL_SDK_DISABLED is not true, and add this line before the reporter is created:", copy: 'app.config["CLOUDWATCH_ENABLED"] = True' };

const totalLost = ({ lost }) => Object.values(lost).reduce((sum, each) => sum + each, 0);

function showState({ delivery, settings, datums, remedy }) {
  const error = delivery.last_error ? escaped(delivery.last_error).slice(0, 600) : "";
  if (delivery.is_failing) {
    const kept = `${dataPoints(delivery.datums_pending)} ${delivery.datums_pending === 1 ? "is" : "are"} buffered and will be retried.`;
    return state("bad", `Not delivered: ${remedy?.problem ?? "the last call failed."} ${kept}`, `Last error: ${error}`, remedy?.steps);
  }
  if (settings.dry_run) return state("idle", `Dry run: ${dataPoints(delivery.datums_sent)} processed, none sent.`, "", [SEND]);
  if (totalLost(delivery)) return state("warn", `Data was lost (${reasons(delivery.lost)}). Delivered: ${dataPoints(delivery.datums_sent)}.`, error && `Last error: ${error}`, remedy?.steps ?? [DIAGNOSE]);
  if (!delivery.datums_sent) {
    if (delivery.datums_pending) return state("idle", `Sending ${dataPoints(delivery.datums_pending)} …`);
    return state("idle", "Nothing published yet.", "Send a request to the app. Metrics appear here after the next flush.");
  }
  const pending = delivery.datums_pending ? `, ${whole(delivery.datums_pending)} pending` : "";
  const unseen = datums < delivery.datums_sent ? "The table does not include data points sent before the page was enabled." : "";
  return state("good", `${pending ? "Delivered" : "All metrics delivered:"} ${dataPoints(delivery.datums_sent)}${pending}.`, unseen);
}

const dataPoints = (count) => counted(count, "data point");

const reasons = (lost) => Object.entries(lost).map(([reason, count]) => `${name(reason, 40).replaceAll("_", " ")}: ${whole(count)}`).join(", ");

function state(kind, sentence, remedy = "", steps = []) {
  $("state").dataset.state = kind;
  put("sentence", sentence);
  put("remedy", remedy);
  render($("steps"), steps, () => steps.map(({ text, copy }) =>
    element("li", {}, element("span", { textContent: text }), element("span", { className: "line" }, element("code", { textContent: copy }), copyButton("Copy", copy, "step-copy")))));
}

function showDisabled() {
  for (const id of ["summary", "series", "rules", "empty", "notices"]) $(id).hidden = true;
  put("namespace", "Disabled");
  state("idle", "Metrics are disabled for this app. Nothing is sent.", "", [ENABLE]);
}

function showUnreachable(problem) {
  const since = processes.model ? ` Showing data from ${clock(processes.model.document.now)}.` : "";
  const isGone = /^404/.test(problem.message);
  state("bad", `This page cannot be updated.${since}`, isGone
    ? "The app returned 404. The page may have been disabled, or you may no longer be signed in."
    : `Retrying. (${escaped(problem.message).slice(0, 200)})`);
}

function showSummary({ delivery, cost, settings, series_active: active, series_seen: seen, series_forgotten: evicted }) {
  $("summary").hidden = false;
  const lost = totalLost(delivery);
  put("sent", whole(delivery.datums_sent));
  put("pending", whole(delivery.datums_pending));
  put("lost", whole(lost));
  $("lost").dataset.alarm = lost > 0;
  put("bytes", bytes(delivery.bytes_sent));
  put("calls", number(delivery.calls_per_minute < 10 ? Math.round(delivery.calls_per_minute * 10) / 10 : Math.round(delivery.calls_per_minute)));
  sparkline($("calls-trend"), delivery.trend);
  put("latency", quantity(delivery.mean_seconds, "Seconds"));
  put("requests", whole(delivery.requests_sent + delivery.requests_failed));
  put("failed", whole(delivery.requests_failed));
  $("failed").dataset.alarm = delivery.requests_failed > 0;
  put("active", whole(active));
  put("max-metrics", whole(settings.max_metrics));
  put("limit", `Over the limit of ${whole(settings.max_metrics)}`);
  $("room").firstElementChild.style.width = `${Math.min(100, (100 * delivery.metrics_active) / settings.max_metrics)}%`;
  put("overflowed", whole(delivery.metrics_overflowed));
  $("overflowed").dataset.alarm = delivery.metrics_overflowed > 0;
  put("idle", whole(seen - evicted - active));
  put("evicted", whole(evicted));
  put("dollars", dollars(cost.dollars));
  sparkline($("cost-trend"), cost.trend);
  put("metrics-dollars", dollars(cost.metrics_dollars));
  put("requests-dollars", dollars(cost.requests_dollars + cost.logs_dollars));
  put("so-far", dollars(cost.so_far_dollars));
}

function showMessages(messages) {
  $("notices").hidden = !messages.length;
  put("notices-title", counted(messages.length, "warning"));
  render($("messages"), messages, () => messages.map(({ time, text }) =>
    element("li", {}, element("time", { className: "muted", textContent: clock(time) }), element("span", { textContent: name(text, 1000) }))));
}

const ruleText = (rules, index) =>
  index === rules.length - 1 ? "none: the defaults apply" : `${index + 1}: ${name(rules[index].match, 80)}`;

function showRules(rules, model) {
  const hasRules = rules.length > 1;
  $("rules").hidden = $("rule-choice").hidden = !hasRules;
  if (!hasRules) return;
  const counts = new Array(rules.length).fill(0);
  for (const each of model.series.values()) counts[each.rule]++;
  fillSelect($("rule"), [["", "all"], ...rules.map((rule, index) => [String(index), index === rules.length - 1 ? "none" : ruleText(rules, index)])], $("rule").value);
  render($("rule-list"), [rules, counts], () => rules.map((rule, index) => ruleLine(rule, index === rules.length - 1, counts[index])));
}

function ruleLine(rule, isDefault, count) {
  const fields = Object.entries(rule.fields).map(([key, value]) => `${key}=${name(JSON.stringify(value), 200)}`).join("  ");
  const match = element("code", { textContent: isDefault ? "everything else" : name(rule.match, 120) });
  const matched = rule.fields.drop ? "dropped" : counted(count, "metric");
  return element("li", {}, match, element("span", { className: "muted", textContent: fields || "the defaults apply" }), element("span", { className: "matched", textContent: matched }));
}

// Show when the process that is shown responded last. Other processes may have responded since.
function freshness() {
  const time = processes.model && clock(processes.model.document.now);
  if (isPaused) return put("freshness", time ? `Paused at ${time}` : "Paused");
  put("freshness", time ? `Updated ${time}` : "");
}

function showCount(shown, all) {
  put("count", shown === all ? counted(all, "metric") : `${whole(shown)} of ${whole(all)} metrics`);
  $("nothing").hidden = shown > 0;
  if (!shown) put("nothing", "No metrics match the filter.");
}

const refilter = () => {
  table.filterBy($("filter").value, $("rule").value);
  keepInUrl();
};

// The filter and the order are in the URL, so that a view can be reloaded and shared.
function keepInUrl() {
  const { key, descending } = table.sort;
  const isDefault = key === DEFAULT_SORT && !descending;
  const wanted = { filter: $("filter").value, rule: $("rule").value, sort: isDefault ? "" : `${descending ? "-" : ""}${key}` };
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
  history.replaceState(null, "", `${location.pathname}${query.size ? `?${query}` : ""}${location.hash}`);
}

function readUrl() {
  const query = new URLSearchParams(location.search);
  $("filter").value = query.get("filter") ?? "";
  const rule = /^\d+$/.test(query.get("rule") ?? "") ? query.get("rule") : "";
  if (rule) fillSelect($("rule"), [["", "all"], [rule, rule]], rule);
  table.filterBy($("filter").value, rule);
  const sort = query.get("sort");
  if (sort) table.sortBy(sort.replace(/^-/, ""), sort.startsWith("-"));
  table.onSort = keepInUrl;
}
$("filter").addEventListener("input", refilter);
$("rule").addEventListener("change", refilter);
$("process").addEventListener("change", (event) => {
  processes.chosen = event.target.value;
  show([]);
  freshness();
});
$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", String(isPaused));
  put("pause", isPaused ? "Resume" : "Pause");
  if (isPaused) clearTimeout(timer);
  else update();
  freshness();
});
document.addEventListener("visibilitychange", () => (document.hidden || isPaused ? clearTimeout(timer) : update()));
document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
  if (event.key === "/" && !isTyping && !detail.isOpen) {
    event.preventDefault();
    $("filter").focus();
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => detail.isOpen && detail.refresh(true));

readUrl();
update();
