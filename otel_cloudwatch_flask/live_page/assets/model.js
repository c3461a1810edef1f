// The data of each process. Any worker of the server may respond to a request, so there is one model per process, and
// each request says which data of each process is already known.

const MAX_FLUSHES = 30;
const MISSES_PER_PROCESS = 5;
const ATTEMPTS = 8;

// Statistics that have no meaning for a kind of metric: each data point of a counter is the increase between two flushes,
// and each data point of a gauge or an up-down counter is the value at that time.
const MEANINGLESS = {
  counter: ["minimum", "p50", "p90", "p99", "maximum"],
  gauge: ["sum"],
  "up-down counter": ["sum"],
};

// Why a statistic of a series has no meaning, or null if it has one.
export const mootReason = ({ kind }, key) => {
  if (!MEANINGLESS[kind]?.includes(key)) return null;
  if (kind === "counter") return "Not meaningful for a counter, because it depends on the time between flushes";
  return `Not meaningful for ${kind === "gauge" ? "a gauge" : "an up-down counter"}, because it adds up values from different times`;
};

const STATUS = /^(http\.(response\.)?status_code|status_?code|status)$/i;
const FAILURES = new Set(["Fault", "Failure"]);

// Whether a series counts errors: responses with status 5xx, exceptions, or faults counted by the decorators.
const isError = (series) =>
  Object.entries(series.dimensions).some(([name, value]) => (STATUS.test(name) ? /^5\d\d$/.test(value) : name === "error.type")) ||
  (FAILURES.has(series.metric_name) && series.sum > 0);

// Series with the same namespace, metric name and unit belong to the same group.
const groupOf = (series) => [series.namespace, series.metric_name, series.unit].join("\n");

// The values of each dimension. A series without the dimension counts as another value.
export const valuesByDimension = (members) => {
  const keys = new Set(members.flatMap((series) => Object.keys(series.dimensions)));
  return new Map([...keys].map((key) => [key, new Set(members.map((series) => series.dimensions[key]))]));
};

class Model {
  constructor() {
    this.series = new Map();
    this.document = null;
  }

  // Merge a response; return the IDs of the series that changed.
  merge(document) {
    if (!document.since) this.series.clear();
    for (const each of document.series) {
      const known = this.series.get(each.id);
      each.flushes = [...(known?.flushes ?? []), ...each.flushes].slice(-MAX_FLUSHES);
      each.text = known?.text ?? searchable(each);
      each.group = known?.group ?? groupOf(each);
      each.isError = isError(each);
      this.series.set(each.id, each);
    }
    this.forget(this.series.size - (document.series_seen - document.series_forgotten));
    this.document = document;
    this.misses = 0;
    return document.series.map((each) => each.id);
  }

  // Remove the series that the process has forgotten, which are those that it published least recently.
  forget(count) {
    if (count <= 0) return;
    const oldest = [...this.series.values()].sort((a, b) => a.changed - b.changed);
    for (const { id } of oldest.slice(0, count)) this.series.delete(id);
  }
}

const searchable = (series) =>
  [series.metric_name, series.namespace, series.unit, ...Object.entries(series.dimensions).map(([name, value]) => `${name}=${value}`)]
    .join("\n").toLowerCase();

export class Processes {
  constructor(root) {
    this.root = root;
    this.models = new Map();
    this.chosen = null;
    this.workSeconds = 0;
  }

  get model() {
    return this.models.get(this.chosen);
  }

  // Poll once; resolves to the IDs of the chosen process's series that changed, or to null if metrics are disabled.
  async poll() {
    const known = [...this.models].map(([instance, model]) => [instance, model.document.sequence]);
    const data = await this.fetch(`data.json?${new URLSearchParams(known)}`);
    this.workSeconds = data.work_seconds ?? 0;
    if (!data.enabled) return null;
    const model = this.models.get(data.instance) ?? new Model();
    // The response to another request came first, and contained the same data points.
    if (data.since && data.since !== model.document?.sequence) return [];
    this.models.set(data.instance, model);
    this.chosen ??= data.instance;
    const changed = model.merge(data);
    this.removeStale(data.started);
    return data.instance === this.chosen ? changed : [];
  }

  // Fetch one series of a process: null if the process has ended or does not know the series, and undefined if other
  // processes responded.
  async series(id, instance) {
    for (let attempt = 0; attempt < ATTEMPTS && this.models.has(instance); attempt++) {
      const data = await this.fetch(`series.json?id=${id}`);
      if (data.instance === instance) return data.metric_name === undefined ? null : data;
    }
    return this.models.has(instance) ? undefined : null;
  }

  // Remove processes that have ended; a restarted app has a new instance. The more processes there are, the longer it may
  // take until a certain one responds, unless it was replaced by the one that just responded.
  removeStale(started) {
    for (const [instance, model] of this.models) {
      model.misses += started > model.document.now ? this.models.size : 1;
      if (model.misses <= MISSES_PER_PROCESS * this.models.size) continue;
      this.models.delete(instance);
      if (this.chosen === instance) this.chosen = [...this.models.keys()][0];
    }
  }

  async fetch(resource) {
    const response = await fetch(`${this.root}/${resource}`, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    return response.json();
  }
}
