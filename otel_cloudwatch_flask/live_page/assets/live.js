// The page: asks the app what it has published, every two seconds, or less often where answering is much work.

import { sparkline } from "./charts.js";
import { Detail } from "./detail.js";
import { Processes } from "./model.js";
import { Table } from "./table.js";
import { bytes, clock, dollars, duration, element, escaped, milliseconds, name, number, put, whole } from "./text.js";

const SHORTEST_PAUSE_SECONDS = 2;
const LONGEST_PAUSE_SECONDS = 20;
const PAUSES_PER_WORK = 50;

const $ = (id) => document.getElementById(id);
const processes = new Processes(document.documentElement.dataset.root);
const detail = new Detail(processes);
const table = new Table(openDetail);
let isPaused = false;
let lastHeard = null;
let failures = 0;
let timer = null;

function openDetail(id, opener) {
  const series = processes.model.series.get(id);
  detail.open(series, ruleText(processes.model.document.rules, series.rule), opener).catch(() => detail.gone());
}

async function update() {
  clearTimeout(timer);
  try {
    const { enabled, changed } = await processes.ask();
    failures = 0;
    lastHeard = Date.now();
    if (enabled && processes.model) show(changed);
    else showDisabled();
    if (detail.isOpen) await detail.refresh();
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
  const work = PAUSES_PER_WORK * (processes.workSeconds ?? 0);
  const seconds = Math.min(Math.max(SHORTEST_PAUSE_SECONDS * 2 ** Math.min(failures, 3), work), LONGEST_PAUSE_SECONDS);
  timer = setTimeout(update, 1000 * seconds);
}

function show(changed) {
  const { model } = processes;
  const { document: said } = model;
  const isAnother = table.model !== model;
  showHeader(said);
  showState(said);
  showSummary(said);
  showMessages(said.messages);
  showRules(said.rules, model);
  $("series").hidden = !model.series.size;
  $("empty").hidden = model.series.size > 0;
  table.show(model, isAnother ? [...model.series.keys()] : changed);
}

function showHeader(said) {
  const { settings } = said;
  const title = name(said.namespaces.length ? said.namespaces.join(", ") : settings.namespace ?? "No namespace yet", 60);
  put("namespace", title);
  document.title = `${title} · CloudWatch live`;
  const flush = { background: "sends within a second of a request", sync: "sends before a request ends", interval: `sends every ${duration(settings.export_interval_seconds)}` };
  const parts = [`Process ${settings.pid}`, `up ${duration(said.seconds)}`, flush[settings.flush], settings.region_name && name(settings.region_name, 40)];
  put("about", parts.filter(Boolean).join(" · "));
  const options = [...processes.models].map(([instance, model]) => [instance, String(model.document.settings.pid)]);
  $("process-choice").hidden = options.length < 2;
  fillSelect($("process"), options, processes.chosen);
}

function fillSelect(select, options, chosen) {
  const known = [...select.options].map((option) => `${option.value} ${option.text}`).join();
  if (known !== options.map((option) => option.join(" ")).join()) select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (chosen !== undefined) select.value = chosen;
}

function showState({ delivery, settings, datums }) {
  const lost = Object.values(delivery.datums_lost).reduce((sum, each) => sum + each, 0);
  const error = delivery.last_error ? escaped(delivery.last_error).slice(0, 600) : "";
  const sent = whole(delivery.datums_sent);
  if (delivery.is_failing) {
    return state("bad", `Nothing arrives: ${datumsAre(delivery.datums_pending)} kept, and tried again.`, error);
  }
  if (settings.dry_run) return state("idle", `Dry run: ${sent} datums were made, and none was sent.`, "Unset CLOUDWATCH_DRY_RUN to send them.");
  if (lost) return state("warn", `${datumsAre(lost)} lost (${reasons(delivery.datums_lost)}); ${sent} are in CloudWatch.`, error && `Last error: ${error}`);
  if (!delivery.datums_sent && !delivery.datums_pending) {
    return state("idle", "Nothing was published yet.", "Send the app a request: what it measures appears here as soon as it is sent.");
  }
  const waiting = delivery.datums_pending ? `, ${whole(delivery.datums_pending)} on the way` : "";
  const seen = datums < delivery.datums_sent ? `The page has seen ${whole(datums)} of them: it was switched on later.` : "";
  return state("good", `Everything arrives: ${datumsAre(delivery.datums_sent)} in CloudWatch${waiting}.`, seen);
}

const datumsAre = (count) => (count === 1 ? "1 datum is" : `${whole(count)} datums are`);

const reasons = (lost) => Object.entries(lost).map(([reason, count]) => `${whole(count)} ${name(reason, 40).replaceAll("_", " ")}`).join(", ");

function state(kind, sentence, remedy = "") {
  $("state").dataset.state = kind;
  put("sentence", sentence);
  put("remedy", remedy);
}

function showDisabled() {
  for (const id of ["summary", "series", "rules", "empty", "notices"]) $(id).hidden = true;
  put("namespace", "Switched off");
  state("idle", "Nothing is sent: this app’s metrics are switched off.", "Set CLOUDWATCH_ENABLED to true, and see that OTEL_SDK_DISABLED is not.");
}

function showUnreachable(problem) {
  const since = lastHeard ? ` Figures are those of ${clock(lastHeard / 1000)}.` : "";
  const isGone = /^404/.test(problem.message);
  state("bad", `The app does not answer.${since}`, isGone
    ? "It says that there is no such page: it may have been restarted without it."
    : `Trying again. (${escaped(problem.message).slice(0, 200)})`);
}

function showSummary({ delivery, cost, settings, series_active: active, series_seen: seen, series_forgotten: forgotten }) {
  $("summary").hidden = false;
  const lost = Object.values(delivery.datums_lost).reduce((sum, each) => sum + each, 0);
  put("sent", whole(delivery.datums_sent));
  put("pending", whole(delivery.datums_pending));
  put("lost", whole(lost));
  $("lost").dataset.alarm = lost > 0;
  put("bytes", bytes(delivery.bytes_sent));
  put("calls", number(delivery.calls_per_minute < 10 ? Math.round(delivery.calls_per_minute * 10) / 10 : Math.round(delivery.calls_per_minute)));
  sparkline($("calls-trend"), delivery.trend);
  put("latency", milliseconds(delivery.mean_seconds));
  put("requests", whole(delivery.requests_sent + delivery.requests_failed));
  put("failed", whole(delivery.requests_failed));
  $("failed").dataset.alarm = delivery.requests_failed > 0;
  put("active", whole(active));
  put("max-metrics", whole(settings.max_metrics));
  $("room").firstElementChild.style.width = `${Math.min(100, (100 * delivery.metrics_active) / settings.max_metrics)}%`;
  put("overflowed", whole(delivery.metrics_overflowed));
  $("overflowed").dataset.alarm = delivery.metrics_overflowed > 0;
  put("idle", whole(seen - forgotten - active));
  put("forgotten", whole(forgotten));
  put("dollars", dollars(cost.dollars));
  sparkline($("cost-trend"), cost.trend);
  put("metrics-dollars", dollars(cost.metrics_dollars));
  put("requests-dollars", dollars(cost.requests_dollars));
  put("so-far", dollars(cost.so_far_dollars));
}

function showMessages(messages) {
  $("notices").hidden = !messages.length;
  const known = JSON.stringify(messages);
  if ($("messages").dataset.known === known) return;
  $("messages").dataset.known = known;
  put("notices-title", messages.length === 1 ? "1 warning" : `${messages.length} warnings`);
  $("messages").replaceChildren(...messages.map(({ time, text }) =>
    element("li", {}, element("time", { className: "quiet", textContent: clock(time) }), element("span", { textContent: name(text, 1000) }))));
}

const ruleText = (rules, place) =>
  place === rules.length - 1 ? "none: published as it is" : `${place + 1}: ${name(rules[place].match, 80)}`;

function showRules(rules, model) {
  const hasRules = rules.length > 1;
  $("rules").hidden = $("rule-choice").hidden = !hasRules;
  if (!hasRules) return;
  const counts = new Array(rules.length).fill(0);
  for (const each of model.series.values()) counts[each.rule]++;
  const known = JSON.stringify([rules, counts]);
  if ($("rule-list").dataset.known === known) return;
  $("rule-list").dataset.known = known;
  fillSelect($("rule"), [["", "all"], ...rules.map((rule, place) => [String(place), place === rules.length - 1 ? "none" : ruleText(rules, place)])]);
  $("rule-list").replaceChildren(...rules.map((rule, place) => ruleLine(rule, place === rules.length - 1, counts[place])));
}

function ruleLine(rule, isDefault, count) {
  const fields = Object.entries(rule.fields).map(([key, value]) => `${key}=${name(JSON.stringify(value), 200)}`).join("  ");
  const match = element("code", { textContent: isDefault ? "everything else" : name(rule.match, 120) });
  const matched = rule.fields.drop ? "drops what it matches" : `${whole(count)} ${count === 1 ? "metric" : "metrics"}`;
  return element("li", {}, match, element("span", { className: "quiet", textContent: fields || "published as it is" }), element("span", { className: "matched", textContent: matched }));
}

function freshness() {
  if (isPaused) return put("freshness", lastHeard ? `Paused at ${clock(lastHeard / 1000)}` : "Paused");
  put("freshness", lastHeard ? `Updated ${clock(lastHeard / 1000)}` : "");
}

table.onCount = (shown, all) => {
  put("count", shown === all ? `${whole(all)} ${all === 1 ? "metric" : "metrics"}` : `${whole(shown)} of ${whole(all)} metrics`);
  $("nothing").hidden = shown > 0;
  if (!shown) put("nothing", "No metric fits the filter.");
};

const refilter = () => table.model && table.filterBy($("filter").value, $("rule").value);
$("filter").addEventListener("input", refilter);
$("rule").addEventListener("change", refilter);
$("process").addEventListener("change", (event) => {
  processes.chosen = event.target.value;
  show([]);
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

update();
