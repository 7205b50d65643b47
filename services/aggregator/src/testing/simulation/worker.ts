/**
 * `node worker.ts --seed S --seeds N [--step K] [--seconds N] [--stop] [--verbose]`: schedules S, S + K, …, one JSON line per violation and one at
 * the end. With `--crashes STRIDE` the small log instead, whose process dies at its calls S, S + K, … and its successor at every
 * STRIDE-th. Started by test/simulation, which also starts it from copies of the sources with a fault built in.
 */
import { Violation } from "@tallyhouse/testkit";
import process from "node:process";
import { parseArgs } from "node:util";
import { dieTwice } from "./exhaustive.ts";
import { runSchedule } from "./schedule.ts";

const { values: given } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    seeds: { type: "string", default: "1" },
    step: { type: "string", default: "1" },
    seconds: { type: "string", default: "Infinity" },
    stop: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
    crashes: { type: "string" },
  },
});
const first = Number(given.seed);
const step = Number(given.step);
/** No schedule begins after it, so that a long run can be bounded by time. */
const endsAt = performance.now() + Number(given.seconds) * 1_000;
const summary = { schedules: 0, records: 0, steps: 0, processes: 0, violations: 0 };
const hits = new Map<string, number>();

function failed(seed: number, error: unknown, lines: readonly string[] = []): void {
  summary.violations += 1;
  const guarantee = error instanceof Violation ? error.guarantee : "none";
  const message = error instanceof Violation ? error.message : ((error as Error).stack ?? String(error));
  process.stdout.write(`${JSON.stringify({ seed, guarantee, message, ...(given.verbose ? { lines } : {}) })}\n`);
}

if (given.crashes !== undefined) {
  try {
    const { runs, records } = await dieTwice({ from: first, step, stride: Number(given.crashes) });
    Object.assign(summary, { schedules: runs, records });
  } catch (error) {
    summary.schedules += 1;
    failed(first, error);
  }
}
for (let n = 0; given.crashes === undefined && n < Number(given.seeds) && performance.now() < endsAt; n += 1) {
  const seed = first + n * step;
  const lines: string[] = [];
  summary.schedules += 1;
  try {
    const {
      records,
      steps,
      processes,
      hits: found,
    } = await runSchedule(seed, given.verbose ? (line) => lines.push(line) : undefined);
    for (const [what, times] of found) hits.set(what, (hits.get(what) ?? 0) + times);
    summary.records += records;
    summary.steps += steps;
    summary.processes += processes;
  } catch (error) {
    failed(seed, error, lines);
    if (given.stop) break;
  }
}
process.stdout.write(`${JSON.stringify({ summary: { ...summary, hits: Object.fromEntries(hits) } })}\n`);
