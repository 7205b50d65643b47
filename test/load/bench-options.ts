import { parseArgs } from "node:util";

/** What `npm run bench` was asked for. */
export interface RunnerOptions {
  /** 5 s each, once: to see that everything runs. Writes no table. */
  readonly isQuick: boolean;
  /** Names of benchmarks; empty: all. */
  readonly only: readonly string[];
  /** A revision to compare with; null: none. */
  readonly compare: string | null;
  /** How often each is run, instead of the plan's number. */
  readonly runs: number | null;
  /** Passed on to every benchmark. */
  readonly extra: readonly string[];
}

/**
 * Reads `--quick`, `--only A,B`, `--compare REV`, `--runs N`; what follows `--` goes to every benchmark.
 * @throws {Error} naming the option that is wrong.
 */
export function runnerOptions(args: readonly string[]): RunnerOptions {
  const at = args.indexOf("--");
  const { values } = parseArgs({
    args: args.slice(0, at === -1 ? args.length : at),
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string", default: "" },
      compare: { type: "string" },
      runs: { type: "string" },
    },
  });
  if (values.compare === "" || values.compare?.startsWith("-") === true) throw new Error("--compare takes a revision");
  if (values.runs !== undefined && !/^[1-9]\d?$/.test(values.runs))
    throw new Error("--runs takes a number from 1 to 99");
  return {
    isQuick: values.quick,
    only: values.only.split(",").filter((name) => name !== ""),
    compare: values.compare ?? null,
    runs: values.runs === undefined ? null : Number(values.runs),
    extra: at === -1 ? [] : args.slice(at + 1),
  };
}
