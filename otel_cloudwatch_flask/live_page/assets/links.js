// Actions for a metric: a link to the CloudWatch console, and a dashboard widget, an alarm and rules to copy.

import { mootReason, valuesByDimension } from "./model.js";

// CloudWatch's encoding of values in the URL of its console: objects as ~(key~value), strings as ~'text.
const encoded = (value) => {
  if (typeof value === "string") {
    const hex = (character) => {
      const code = character.charCodeAt(0).toString(16);
      return code.length > 2 ? `**${code.padStart(4, "0")}` : `*${code.padStart(2, "0")}`;
    };
    return `~'${value.replace(/[^\w.-]/g, hex)}`;
  }
  if (Array.isArray(value)) return `~(${value.map(encoded).join("")})`;
  if (typeof value === "object") return `~(${Object.entries(value).map(([key, each]) => `${key}${encoded(each)}`).join("~")})`;
  return `~${value}`;
};

const domain = (region) => {
  if (region.startsWith("cn-")) return "console.amazonaws.cn";
  return region.startsWith("us-gov-") ? "console.amazonaws-us-gov.com" : "console.aws.amazon.com";
};

const metric = ({ namespace, metric_name: name, dimensions }) => [namespace, name, ...Object.entries(dimensions).flat()];

const isTotal = (series) => series.kind === "counter" || (series.unit === "Count" && !mootReason(series, "sum"));
const statistic = (series) => {
  if (isTotal(series)) return "Sum";
  return series.kind === "histogram" && series.p99 !== null ? "p99" : "Average";
};

export const consoleUrl = (members, region) => {
  const graph = { metrics: members.map(metric), view: "timeSeries", stacked: false, region, stat: statistic(members[0]), period: 60 };
  return `https://${encodeURIComponent(region)}.${domain(region)}/cloudwatch/home?region=${encodeURIComponent(region)}#metricsV2:graph=${encoded(graph)}`;
};

const json = (value) => JSON.stringify(value, null, 2);

export const widget = (members, region) =>
  json({
    type: "metric", width: 12, height: 6,
    properties: {
      title: members[0].metric_name, view: "timeSeries", region: region ?? "us-east-1", period: 60, stat: statistic(members[0]),
      metrics: members.map(metric),
    },
  });

const highestSumPerMinute = ({ flushes }) => {
  const sums = new Map();
  for (const [time, sum] of flushes) {
    const minute = Math.floor(time / 60);
    sums.set(minute, (sums.get(minute) ?? 0) + sum);
  }
  return Math.max(...sums.values());
};

// The threshold is a starting point: twice the highest value so far.
export const alarm = (series) => {
  const chosen = statistic(series);
  const highest = Math.max(chosen === "Sum" ? highestSumPerMinute(series) : series.maximum, 0);
  const dimensions = Object.entries(series.dimensions).map(([Name, Value]) => ({ Name, Value }));
  return json({
    Type: "AWS::CloudWatch::Alarm",
    Properties: {
      AlarmName: `${series.namespace}: ${[series.metric_name, ...Object.values(series.dimensions)].join(" ")}`.slice(0, 255),
      Namespace: series.namespace, MetricName: series.metric_name, Dimensions: dimensions,
      ...(chosen === "p99" ? { ExtendedStatistic: "p99" } : { Statistic: chosen }),
      Period: 60, EvaluationPeriods: 3, DatapointsToAlarm: 2,
      ComparisonOperator: "GreaterThanThreshold", Threshold: Number((2 * highest || 1).toPrecision(3)), TreatMissingData: "notBreaching",
    },
  });
};

// A name as a glob in a Python string. Wildcards in the name are escaped.
const glob = (name) => JSON.stringify(name.replace(/[[*?]/g, "[$&]"));

export const dropRule = ({ metric_name: name }) => `MetricRule(match=${glob(name)}, drop=True)`;

// A rule that leaves out the dimension with the most values, or null if there are no dimensions.
export const reduceRule = (members) => {
  const values = valuesByDimension(members);
  const [worst] = [...values].sort(([, a], [, b]) => b.size - a.size).map(([key]) => key);
  if (worst === undefined) return null;
  const kept = [...values.keys()].filter((key) => key !== worst);
  return { without: worst, text: `MetricRule(match=${glob(members[0].metric_name)}, dimensions=[${kept.map(glob).join(", ")}])` };
};
