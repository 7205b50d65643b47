/** The worker of test/simulation for the reporter: the same arguments and answers as the aggregator's, on one ledger in the process. */
import process from "node:process";
import { parseArgs } from "node:util";
import { Violation } from "@tallyhouse/testkit";
import { openLedger } from "../../test-support/ports.ts";
import { runSchedule } from "./schedule.ts";

const { values: given } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    seeds: { type: "string", default: "1" },
    step: { type: "string", default: "1" },
    seconds: { type: "string", default: "Infinity" },
    stop: { type: "boolean", default: false },
    verbose: { type: "boolean", default: false },
  },
});
const ledger = await openLedger();
/** No schedule begins after it, so that a long run can be bounded by time. */
const endsAt = performance.now() + Number(given.seconds) * 1_000;
const summary = { schedules: 0, records: 0, steps: 0, processes: 0, violations: 0 };
const hits = new Map<string, number>();

for (let n = 0; n < Number(given.seeds) && performance.now() < endsAt; n += 1) {
  const seed = Number(given.seed) + n * Number(given.step);
  const lines: string[] = [];
  summary.schedules += 1;
  try {
    await ledger.reset();
    const trace = given.verbose ? (line: string) => lines.push(line) : undefined;
    const { records, steps, processes, hits: found } = await runSchedule(seed, ledger.control, trace);
    for (const [what, times] of found) hits.set(what, (hits.get(what) ?? 0) + times);
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
await ledger.close();
process.stdout.write(`${JSON.stringify({ summary: { ...summary, hits: Object.fromEntries(hits) } })}\n`);
// A timer that was set in real time and cleared in virtual time would keep the process for nothing.
process.exit(0);
