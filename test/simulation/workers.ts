/** Simulation workers: programs inside a service that run seeded schedules of its sources, or of a copy of them. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";

/** Where each suite's program lies below the root of a source tree. */
export const SUITES = {
  aggregator: "services/aggregator/src/testing/simulation/worker.ts",
  reporter: "services/reporter/src/testing/simulation/worker.ts",
} as const;
export type Suite = keyof typeof SUITES;

/** A schedule that broke a guarantee. */
export interface Failure {
  readonly seed: number;
  /** `G1` …, or `none` for an error that is no violation, such as a bug of the simulation. */
  readonly guarantee: string;
  readonly message: string;
  /** What happened, step by step; only when asked for. */
  readonly lines?: readonly string[];
}

interface Totals {
  readonly schedules: number;
  readonly records: number;
  readonly steps: number;
  readonly processes: number;
  /** How often each fault happened. */
  readonly hits: Readonly<Record<string, number>>;
}

/** What some seeds came to. */
export interface SimulationResult {
  readonly failures: readonly Failure[];
  readonly totals: Totals;
}

/** Which schedules to run. */
export interface SimulationRequest {
  readonly root: string;
  readonly suite: Suite;
  readonly seed: number;
  readonly seeds: number;
  /** Seeds that are `step` apart: how several workers share a range. */
  readonly step?: number;
  /** No schedule begins later than that after the start. */
  readonly seconds?: number;
  readonly stopsAtFirst?: boolean;
  readonly isVerbose?: boolean;
  /** Crashes of the small log instead of seeds; see the worker. */
  readonly crashStride?: number;
  readonly onFailure?: (failure: Failure) => void;
}

/** Runs schedules in one process of its own. @throws when that ends without a summary. */
export async function simulate(request: SimulationRequest): Promise<SimulationResult> {
  const { root, suite, seed, seeds, step = 1, stopsAtFirst = false, isVerbose = false } = request;
  const flags = [
    ...(request.seconds === undefined ? [] : ["--seconds", `${request.seconds}`]),
    ...(stopsAtFirst ? ["--stop"] : []),
    ...(isVerbose ? ["--verbose"] : []),
    ...(request.crashStride === undefined ? [] : ["--crashes", `${request.crashStride}`]),
  ];
  const args = [join(root, SUITES[suite]), "--seed", `${seed}`, "--seeds", `${seeds}`, "--step", `${step}`, ...flags];
  const worker = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const failures: Failure[] = [];
  let totals: Totals | null = null;
  let complaint = "";
  worker.stderr.setEncoding("utf8").on("data", (text: string) => {
    complaint = `${complaint}${text}`.slice(-4_000);
  });
  const exited = new Promise<number | null>((resolve) => worker.once("exit", resolve));
  for await (const line of createInterface({ input: worker.stdout })) {
    const message = JSON.parse(line) as Failure | { summary: Totals };
    if ("summary" in message) totals = message.summary;
    else {
      failures.push(message);
      request.onFailure?.(message);
    }
  }
  const exitCode = await exited;
  if (totals === null) throw new Error(`the simulation ended with ${exitCode} and no summary: ${complaint}`);
  return { failures, totals };
}

/** Runs a range of seeds in several processes. */
export async function simulateAtOnce(request: SimulationRequest, workers: number): Promise<SimulationResult> {
  const shares = Array.from({ length: Math.min(workers, request.seeds) }, (_, n) => ({
    ...request,
    seed: request.seed + n,
    seeds: Math.ceil((request.seeds - n) / workers),
    step: workers,
  }));
  const results = await Promise.all(shares.map((share) => simulate(share)));
  const sum = (name: Exclude<keyof Totals, "hits">): number =>
    results.reduce((total, { totals }) => total + totals[name], 0);
  return {
    failures: results.flatMap(({ failures }) => failures).toSorted((a, b) => a.seed - b.seed),
    totals: {
      schedules: sum("schedules"),
      records: sum("records"),
      steps: sum("steps"),
      processes: sum("processes"),
      hits: addedUp(results.map(({ totals }) => totals.hits)),
    },
  };
}

function addedUp(all: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const hits of all) for (const [what, times] of Object.entries(hits)) sums[what] = (sums[what] ?? 0) + times;
  return sums;
}
