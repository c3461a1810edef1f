// Formats of numbers, money, times and names. Names are untrusted: they are truncated, and invisible characters are
// escaped. Everything is inserted as text, never as markup.

const MAX_NAME_LENGTH = 120;
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;
const STACKED_MARKS = /(\p{M}{2})\p{M}+/gu;

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const digits = (count) => new Intl.NumberFormat("en", { maximumSignificantDigits: count });
const [three, four] = [digits(3), digits(4)];
export const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

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
export const exact = (value) => (value === null ? "CloudWatch does not compute percentiles of statistic sets or negative values" : String(value));

export const counted = (count, noun) => (count === 1 ? `1 ${noun}` : `${whole(count)} ${noun}s`);

export const dollars = (value) => {
  if (value > 0 && value < 0.01) return "<$0.01";
  return `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
};

export const bytes = (value) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (Math.abs(value) >= 1000 && step < units.length - 1) (value /= 1000), step++;
  return `${three.format(value)} ${units[step]}`;
};

// A duration in a readable unit: 0.86 ms, 160 ms, 2.5 s.
const time = (seconds) => {
  const size = Math.abs(seconds);
  if (size === 0) return "0 ms";
  if (size < 1e-5) return `${three.format(seconds * 1e6)} µs`;
  return size < 1 ? `${three.format(seconds * 1000)} ms` : `${three.format(seconds)} s`;
};

const SECONDS = { Seconds: 1, Milliseconds: 1e-3, Microseconds: 1e-6 };

// A value of a metric, with its unit.
export const quantity = (value, given) => {
  if (value === null || value === undefined) return "–";
  if (given in SECONDS) return time(value * SECONDS[given]);
  if (given === "Bytes") return bytes(value);
  return given === "Percent" ? `${number(value)}%` : number(value);
};

export const duration = (seconds) => {
  const [size, unit] = seconds < 90 ? [1, "s"] : seconds < 5400 ? [60, "min"] : seconds < 172800 ? [3600, "h"] : [86400, "days"];
  return `${Math.round(seconds / size)} ${unit}`;
};

const timeOfDay = new Intl.DateTimeFormat("en", { hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const clock = (unixSeconds) => timeOfDay.format(unixSeconds * 1000);

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

// Copy text, even if the browser does not offer the clipboard because the page is not served over HTTPS.
const copyText = async (text) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = element("textarea", { value: text, className: "hidden" });
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
};

export const copyButton = (label, text, className = "copy") => {
  const button = element("button", { type: "button", className, textContent: label });
  button.addEventListener("click", () => copyText(text).then(() => (button.textContent = "Copied"), () => (button.textContent = "Copying failed")));
  return button;
};

// Replace the content of an element, unless it already shows these values. ``make`` returns the new children.
export const render = (container, values, make) => {
  const known = JSON.stringify(values);
  if (container.dataset.known === known) return;
  container.dataset.known = known;
  container.replaceChildren(...make());
};

export const put = (id, text) => {
  const found = document.getElementById(id);
  if (found.textContent !== text) found.textContent = text;
};
