import { parseArgs } from "node:util";

/** Options every benchmark takes. */
export interface BenchOptions {
  readonly seed: number;
  readonly events: number;
  readonly seconds: number;
  readonly log: "embedded" | "kafka";
}

/** Reads `--seed`, `--events`, `--seconds`, `--log`. @throws {Error} naming the option that is wrong. */
export function benchOptions(defaults: Pick<BenchOptions, "events" | "seconds">): BenchOptions {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: "1" },
      events: { type: "string", default: String(defaults.events) },
      seconds: { type: "string", default: String(defaults.seconds) },
      log: { type: "string", default: "embedded" },
    },
  });
  const { log } = values;
  if (log !== "embedded" && log !== "kafka") throw new Error("--log is embedded or kafka");
  if (log === "kafka" && process.env["KAFKA_BROKERS"] === undefined) throw new Error("--log kafka needs KAFKA_BROKERS");
  const whole = (name: "seed" | "events" | "seconds"): number => {
    if (!/^\d{1,10}$/.test(values[name])) throw new Error(`--${name} takes a whole number`);
    return Number(values[name]);
  };
  return { seed: whole("seed"), events: whole("events"), seconds: whole("seconds"), log };
}

/** Prints every figure as one JSON object on the last line. */
export function printFigures(figures: Readonly<Record<string, string | number>>): void {
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

/** The value below which the given share of the sorted numbers lies. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}
