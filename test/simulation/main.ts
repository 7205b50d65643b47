/**
 * `npm run test:sim -- --seed S --seeds N [--verbose]`: seeded schedules of the whole aggregator, against a fold of the log that
 * shares nothing with it. Prints the command that repeats each failure; ends with `N passed, N failed`.
 */
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { type Failure, simulateAtOnce } from "./workers.ts";

/** Failures printed in full; a broken build would otherwise print thousands. */
const SHOWN_MAX = 10;

const { values: given } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    seeds: { type: "string" },
    workers: { type: "string", default: "2" },
    verbose: { type: "boolean", default: false },
  },
});
const startedAt = performance.now();
const isVerbose = given.verbose;
// A seed alone is one to look at.
const seeds = Number(given.seeds ?? (isVerbose ? 1 : 2_000));
let shown = 0;

function show({ seed, message, lines }: Failure): void {
  shown += 1;
  if (shown > SHOWN_MAX) return;
  const repeat = `npm run test:sim -- --seed ${seed} --seeds 1 --verbose`;
  process.stdout.write(`${lines === undefined ? "" : `${lines.join("\n")}\n`}seed ${seed}: ${message}\n  repeat: ${repeat}\n`);
}

const { failures, totals } = await simulateAtOnce(
  {
    root: join(import.meta.dirname, "../.."),
    suite: "aggregator",
    seed: Number(given.seed),
    seeds,
    isVerbose,
    onFailure: show,
  },
  Number(given.workers),
);
const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
const count = (value: number): string => value.toLocaleString("en");
process.stdout.write(
  `seeds ${given.seed} to ${Number(given.seed) + seeds - 1}: ${count(totals.schedules)} schedules, ${count(totals.records)} log records, ` +
    `${count(totals.processes)} processes, ${count(totals.steps)} steps, ${failures.length} violations, ${seconds} s\n` +
    `${totals.schedules - failures.length} passed, ${failures.length} failed\n`,
);
process.exitCode = failures.length === 0 ? 0 : 1;
