/** Turns the figures of many runs into the table of docs/benchmarks.md. */
import type { Figures } from "./options.ts";

const BEGIN = "<!-- bench:begin -->";
const END = "<!-- bench:end -->";

/** In columns of their own, or the same everywhere. */
const IN_OTHER_PLACES = new Set(["eventsPerSecond", "cpuMicrosecondsPerEvent", "seed", "cores"]);

/** One benchmark with its options, run once or several times. */
export interface BenchResult {
  /** Command and options as they were typed after `npm run`. */
  readonly command: string;
  readonly runs: readonly Figures[];
}

/** A figure of the column "other figures": a path into the figures, what to call it, and its unit. */
export interface ShownFigure {
  readonly key: string;
  readonly label: string;
  readonly unit: string;
}

/** The middle value; the mean of the two middle ones of an even number. @throws {RangeError} for none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  if (upper === undefined || lower === undefined) throw new RangeError("the median of nothing");
  return (lower + upper) / 2;
}

/** The number below a path such as `memoryMegabytes.standalone.peak`; undefined where there is none. */
export function figureAt(figures: Figures, path: string): number | undefined {
  const found = path.split(".").reduce<unknown>((value, name) => {
    return typeof value === "object" && value !== null ? (value as Figures)[name] : undefined;
  }, figures);
  return typeof found === "number" ? found : undefined;
}

/** The numbers of a figure in every run that has it. */
function valuesOf(runs: readonly Figures[], path: string): number[] {
  return runs.map((figures) => figureAt(figures, path)).filter((value) => value !== undefined);
}

function numberText(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: Math.abs(value) < 100 ? 2 : 0 });
}

/** `44,721 (43,978–47,228)`, one number alone where there was one run, a dash where no run has the figure. */
export function spreadText(values: readonly number[]): string {
  if (values.length === 0) return "–";
  const middle = numberText(median(values));
  return values.length === 1
    ? middle
    : `${middle} (${numberText(Math.min(...values))}–${numberText(Math.max(...values))})`;
}

/** Largest resident memory of each process, the largest of all runs. */
function memoryText(runs: readonly Figures[]): string {
  const peaks = new Map<string, number>();
  for (const { memoryMegabytes } of runs) {
    for (const name of Object.keys(memoryMegabytes ?? {})) {
      const peak = figureAt((memoryMegabytes ?? {}) as Figures, `${name}.peak`) ?? 0;
      peaks.set(name, Math.max(peaks.get(name) ?? 0, peak));
    }
  }
  return [...peaks].map(([name, peak]) => `${name} ${numberText(peak)}`).join(", ") || "–";
}

/** The figures that are named in `shown`; of a benchmark that has none of them, every number it states. */
function otherText(runs: readonly Figures[], shown: readonly ShownFigure[]): string {
  const named = shown.filter(({ key }) => valuesOf(runs, key).length > 0);
  const stated = Object.keys(runs[0] ?? {}).filter(
    (key) => !IN_OTHER_PLACES.has(key) && valuesOf(runs, key).length > 0,
  );
  const all = named.length > 0 ? named : stated.map((key) => ({ key, label: key, unit: "" }));
  return all.map(({ key, label, unit }) => `${label} ${numberText(median(valuesOf(runs, key)))}${unit}`).join("; ");
}

/** The table, one row for each result. */
export function tableOf(results: readonly BenchResult[], shown: readonly ShownFigure[]): string {
  const header = [
    "`npm run`",
    "usage events/s, median (lowest–highest)",
    "CPU µs per event, all processes but the client",
    "peak RSS, MB",
    "other figures, medians",
    "proof",
    "runs",
  ];
  const rows = results.map(({ command, runs }) => [
    `\`${command}\``,
    spreadText(valuesOf(runs, "eventsPerSecond")),
    spreadText(valuesOf(runs, "cpuMicrosecondsPerEvent")),
    memoryText(runs),
    otherText(runs, shown),
    [...new Set(runs.map(({ proof }) => (typeof proof === "string" ? proof : "its own")))].join("; "),
    String(runs.length),
  ]);
  return [header, header.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** Replaces what stands between the markers. @throws {Error} when the document has not both, in order. */
export function replaceGenerated(document: string, generated: string): string {
  const from = document.indexOf(BEGIN);
  const to = document.indexOf(END);
  if (from === -1 || to < from) throw new Error(`the document has no ${BEGIN} before ${END}`);
  return `${document.slice(0, from + BEGIN.length)}\n\n${generated.trim()}\n\n${document.slice(to)}`;
}

/** One line of a comparison for each number that both revisions have: medians and their ratio. */
export function compareRuns(before: readonly Figures[], after: readonly Figures[]): string[] {
  const paths = new Set([...before, ...after].flatMap((figures) => numbersIn(figures)));
  return [...paths].flatMap((path) => {
    const [old, now] = [valuesOf(before, path), valuesOf(after, path)];
    if (old.length === 0 || now.length === 0) return [];
    const ratio = median(old) === 0 ? "–" : `× ${(median(now) / median(old)).toFixed(3)}`;
    return [`${path.padEnd(40)} ${spreadText(old).padStart(30)} → ${spreadText(now).padStart(30)}   ${ratio}`];
  });
}

/** Paths of all numbers in the figures. */
function numbersIn(figures: Figures, below = ""): string[] {
  return Object.entries(figures).flatMap(([name, value]) => {
    if (typeof value === "number") return [`${below}${name}`];
    const isNested = typeof value === "object" && value !== null && !Array.isArray(value);
    return isNested ? numbersIn(value as Figures, `${below}${name}.`) : [];
  });
}
