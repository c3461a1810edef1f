// What the processes behind this address have said. Each answer may come from another one of a server's workers, so
// each has a model of its own, and a request says how far it knows each of them.

const MOST_FLUSHES = 30;

export class Model {
  constructor() {
    this.series = new Map();
    this.document = null;
  }

  take(document) {
    if (!document.since) this.series.clear();
    for (const each of document.series ?? []) {
      const known = this.series.get(each.id);
      each.flushes = [...(known?.flushes ?? []), ...each.flushes].slice(-MOST_FLUSHES);
      each.text = known?.text ?? searchable(each);
      this.series.set(each.id, each);
    }
    this.document = document;
    this.heard = Date.now();
    return (document.series ?? []).map((each) => each.id);
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
  }

  get model() {
    return this.models.get(this.chosen);
  }

  // One question; resolves to the ids of the chosen process's series that changed.
  async ask() {
    const known = [...this.models].map(([instance, model]) => `${instance}:${model.document.sequence}`).join(",");
    const answer = await this.fetch(`data.json?known=${encodeURIComponent(known)}`);
    this.workSeconds = answer.work_seconds ?? 0;
    if (!answer.enabled) return { enabled: false, changed: [] };
    const model = this.models.get(answer.instance) ?? new Model();
    this.models.set(answer.instance, model);
    this.chosen ??= answer.instance;
    const changed = model.take(answer);
    this.forgetSilent();
    return { enabled: true, changed: answer.instance === this.chosen ? changed : [] };
  }

  async askSeries(id) {
    for (let attempt = 0; attempt < 8; attempt++) {
      const answer = await this.fetch(`series.json?id=${id}`, this.chosen);
      if (answer.instance === this.chosen) return answer.metric_name === undefined ? null : answer;
    }
    return null;
  }

  // A worker that has ended answers no more, and a restarted app is a new one.
  forgetSilent() {
    for (const [instance, model] of this.models) {
      if (Date.now() - model.heard < 30_000) continue;
      this.models.delete(instance);
      if (this.chosen === instance) this.chosen = [...this.models.keys()][0] ?? null;
    }
  }

  async fetch(resource) {
    const response = await fetch(`${this.root}/${resource}`, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    return response.json();
  }
}
