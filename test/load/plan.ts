/** Which benchmarks `npm run bench` runs, and the figures that its table shows beside events per second. */
import type { ShownFigure } from "./report-table.ts";

/** One benchmark with its options. */
export interface PlannedBench {
  /** Behind `bench:` in package.json. */
  readonly name: string;
  readonly args: readonly string[];
  readonly runs: number;
}

const RUNS = 3;
const LOGS = ["embedded", "kafka"] as const;
/** Usage events in the log: a minute at 50,000 a second. */
const AGGREGATE_EVENTS = 3_000_000;
const AGGREGATE_EVENTS_QUICK = 50_000;

/** Everything: `bench:all` for 10 minutes, the others for one, medians of 3; when quick, once and 5 s each. */
export function planBenches(isQuick: boolean): readonly PlannedBench[] {
  const seconds = isQuick ? 5 : 60;
  const runs = isQuick ? 1 : RUNS;
  const forSeconds = (length: number): string[] => ["--seconds", String(length)];
  const onBoth = (name: string, given: { args: readonly string[]; runs?: number }): PlannedBench[] =>
    LOGS.map((log) => ({ name, args: [...given.args, "--log", log], runs: given.runs ?? runs }));
  const once = (name: string, args: readonly string[]): PlannedBench => ({ name, args, runs: 1 });
  return [
    ...onBoth("aggregate", { args: ["--events", String(isQuick ? AGGREGATE_EVENTS_QUICK : AGGREGATE_EVENTS)] }),
    ...onBoth("ingest", { args: forSeconds(seconds) }),
    ...onBoth("ingest", { args: [...forSeconds(seconds), "--batch", "1"] }),
    ...onBoth("visible", { args: forSeconds(seconds) }),
    ...onBoth("all", { args: forSeconds(isQuick ? seconds : 600), runs: 1 }),
    once("query", isQuick ? ["--events", "100000"] : []),
    once("report", isQuick ? ["--pairs", "1000"] : []),
    once("insert", isQuick ? ["--events", "20000"] : []),
    once("dedupe", ["--identities", isQuick ? "100000" : "3000000", "--seed", "1"]),
    once("audit", ["--events", isQuick ? "20000" : "1000000"]),
  ];
}

/** Those that are named, in the order of the plan. @throws {Error} for a name that is in no plan. */
export function chosenBenches(plan: readonly PlannedBench[], only: readonly string[]): readonly PlannedBench[] {
  const unknown = only.find((name) => !plan.some((bench) => bench.name === name));
  if (unknown !== undefined) {
    throw new Error(`no benchmark is called ${unknown}: ${[...new Set(plan.map(({ name }) => name))].join(", ")}`);
  }
  return only.length === 0 ? plan : plan.filter(({ name }) => only.includes(name));
}

export const SHOWN: readonly ShownFigure[] = [
  { key: "acceptedEventsPerSecond", label: "accepted", unit: "/s" },
  { key: "waitingAtEnd", label: "waiting at the end", unit: "" },
  { key: "requestP50Ms", label: "request p50", unit: " ms" },
  { key: "requestP99Ms", label: "request p99", unit: " ms" },
  { key: "p50Ms", label: "request p50", unit: " ms" },
  { key: "p99Ms", label: "request p99", unit: " ms" },
  { key: "serverCpuMicrosPerEvent", label: "gateway's CPU per event", unit: " µs" },
  { key: "serverRssMb", label: "gateway's peak RSS", unit: " MB" },
  { key: "visibleP50Ms", label: "visible p50", unit: " ms" },
  { key: "visibleP95Ms", label: "visible p95", unit: " ms" },
  { key: "visibleP99Ms", label: "visible p99", unit: " ms" },
  { key: "lookP50Ms", label: "one look p50", unit: " ms" },
  { key: "memoryMegabytes.standalone.firstMinute", label: "RSS first minute", unit: " MB" },
  { key: "memoryMegabytes.standalone.lastMinute", label: "last minute", unit: " MB" },
  { key: "memoryMegabytes.aggregator.firstMinute", label: "aggregator's RSS first minute", unit: " MB" },
  { key: "memoryMegabytes.aggregator.lastMinute", label: "last minute", unit: " MB" },
];
