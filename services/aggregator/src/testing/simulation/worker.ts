/**
 * `node worker.ts --seed S --seeds N [--step K] [--stop] [--verbose]`: schedules S, S + K, …, one JSON line per violation and one at
 * the end. Started by test/simulation, which also starts it from copies of the sources with a fault built in.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { runSchedule } from "./schedule.ts";
import { Violation } from "./violation.ts";

const { values: given } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    seeds: { type: "string", default: "1" },
    step: { type: "string", default: "1" },
    stop: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
  },
});
const first = Number(given.seed);
const step = Number(given.step);
const summary = { schedules: 0, records: 0, steps: 0, processes: 0, violations: 0 };

for (let n = 0; n < Number(given.seeds); n += 1) {
  const seed = first + n * step;
  const lines: string[] = [];
  summary.schedules += 1;
  try {
    const { records, steps, processes } = await runSchedule(seed, given.verbose ? (line) => lines.push(line) : undefined);
    summary.records += records;
    summary.steps += steps;
    summary.processes += processes;
  } catch (error) {
    summary.violations += 1;
    const guarantee = error instanceof Violation ? error.guarantee : "none";
    const message = error instanceof Violation ? error.message : ((error as Error).stack ?? String(error));
    process.stdout.write(`${JSON.stringify({ seed, guarantee, message, ...(given.verbose ? { lines } : {}) })}\n`);
    if (given.stop) break;
  }
}
process.stdout.write(`${JSON.stringify({ summary })}\n`);
