/** Options, figures and quantiles that every benchmark shares. */
import { parseArgs } from "node:util";

/** Options every benchmark takes. */
export interface BenchOptions {
  readonly seed: number;
  readonly events: number;
  readonly seconds: number;
  readonly log: "embedded" | "kafka";
}

/** One JSON object: what a benchmark says on its last line. */
export type Figures = Readonly<Record<string, unknown>>;

const LOGS = ["embedded", "kafka"] as const;
type Defaults = Readonly<Record<string, number | readonly [string, ...string[]]>>;
/** Numbers stay numbers; a list of words becomes one of them. */
type Parsed<Given extends Defaults> = {
  readonly [Name in keyof Given]: Given[Name] extends readonly (infer Word)[] ? Word : number;
};

/**
 * Reads `--seed`, `--events`, `--seconds`, `--log` and whatever else has a default: a number, or a list of words of which the
 * first is the default.
 * @throws {Error} naming the option that is wrong.
 */
export function benchOptions<const Given extends Defaults & Pick<BenchOptions, "events" | "seconds">>(
  defaults: Given,
  args: readonly string[] = process.argv.slice(2),
): BenchOptions & Parsed<Given> {
  const known: Defaults = { seed: 1, log: LOGS, ...defaults };
  const { values } = parseArgs({
    args: [...args],
    options: Object.fromEntries(Object.keys(known).map((name) => [name, { type: "string" as const }])),
  });
  const entries = Object.entries(known).map(([name, fallback]) => {
    const given = values[name];
    if (typeof fallback === "number") {
      if (given !== undefined && !/^\d{1,10}$/.test(given)) throw new Error(`--${name} takes a whole number`);
      return [name, given === undefined ? fallback : Number(given)];
    }
    if (given !== undefined && !fallback.includes(given)) throw new Error(`--${name} is ${fallback.join(" or ")}`);
    return [name, given ?? fallback[0]];
  });
  return Object.fromEntries(entries) as BenchOptions & Parsed<Given>;
}

/** Prints every figure as one JSON object on the last line. */
export function printFigures(figures: Figures): void {
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

/** The figures on the last line of what a benchmark printed. @throws {Error} when there are none. */
export function parseFigures(output: string): Figures {
  const last = output.trimEnd().split("\n").at(-1) ?? "";
  try {
    const figures: unknown = JSON.parse(last);
    if (typeof figures === "object" && figures !== null && !Array.isArray(figures)) return figures as Figures;
  } catch {
    // Said below: the line is no JSON at all.
  }
  throw new Error(`the last line is no JSON object: ${last.slice(0, 200)}`);
}

/** The value below which the given share of the sorted numbers lies. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

/** Rounded to so many digits behind the point. */
export function rounded(value: number, digits = 0): number {
  return Number(value.toFixed(digits));
}
