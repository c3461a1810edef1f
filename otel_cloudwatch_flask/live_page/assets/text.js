// Formats of numbers, money, times and names. Names are untrusted: they are truncated, and invisible characters are
// escaped. Everything is inserted as text, never as markup.

const MAX_NAME_LENGTH = 120;
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;
const STACKED_MARKS = /(\p{M}{2})\p{M}+/gu;

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const digits = (count) => new Intl.NumberFormat("en", { maximumSignificantDigits: count });
const [two, three, four] = [digits(2), digits(3), digits(4)];
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

export const escaped = (text) =>
  String(text).replace(INVISIBLE, (each) => `\\u{${each.codePointAt(0).toString(16)}}`).replace(STACKED_MARKS, "$1…");

export const name = (text, maxLength = MAX_NAME_LENGTH) => {
  const points = Array.from(String(text).slice(0, 4 * maxLength));
  return escaped(points.slice(0, maxLength).join("")) + (points.length > maxLength ? "…" : "");
};

export const number = (value) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-6 || size >= 1e15)) return value.toExponential(2);
  return size >= 1e5 ? compact.format(value) : four.format(value);
};

export const whole = (value) => grouped.format(value);
export const exact = (value, kind) => {
  if (value !== null) return String(value);
  if (kind === "counter") return "Not meaningful for a counter: it depends on the time between flushes";
  if (kind === "histogram" || !kind) return "CloudWatch has no percentiles of statistic sets";
  return `Not meaningful for ${kind === "gauge" ? "a gauge" : "an up-down counter"}: it adds up values of different times`;
};

export const dollars = (value) => {
  if (value > 0 && value < 0.01) return "<$0.01";
  return `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
};

export const bytes = (value) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (value >= 1000 && step < units.length - 1) (value /= 1000), step++;
  return `${three.format(value)} ${units[step]}`;
};

export const milliseconds = (seconds) =>
  seconds === null ? "–" : seconds < 1 ? `${two.format(seconds * 1000)} ms` : `${three.format(seconds)} s`;

export const duration = (seconds) => {
  const [size, unit] = seconds < 90 ? [1, "s"] : seconds < 5400 ? [60, "min"] : seconds < 172800 ? [3600, "h"] : [86400, "days"];
  return `${Math.round(seconds / size)} ${unit}`;
};

export const clock = (unixSeconds) =>
  new Date(unixSeconds * 1000).toLocaleTimeString("en", { hour12: false, hour: "2-digit", minute: "2-digit", second: "2-digit" });

const UNITS = { Milliseconds: "ms", Microseconds: "µs", Seconds: "s", Percent: "%", None: "" };
export const unit = (given) => UNITS[given] ?? name(given, 24);

export const element = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

export const put = (id, text) => {
  const found = document.getElementById(id);
  if (found.textContent !== text) found.textContent = text;
};
