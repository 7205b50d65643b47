/**
 * `npm run test:sim -- [--seed S] [--seeds N] [--seconds N] [--suite aggregator|reporter] [--verbose]`: seeded schedules of the aggregator, against a
 * fold of the log that shares nothing with it, and of the reporter, against the usage it was given. Without `--suite` both, a twentieth
 * of the seeds for the reporter, whose ledger is a real one. `--crashes STRIDE`: a small log whose process dies at every port call, and
 * its successor at every STRIDE-th. Prints the command that repeats each failure; ends with `N passed, N failed`.
 */
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { missingHits, SCHEDULES_MIN } from "./expected-hits.ts";
import { type Failure, simulateAtOnce, type SimulationResult, type Suite, SUITES } from "./workers.ts";

/** Failures printed in full; a broken build would otherwise print thousands. */
const SHOWN_MAX = 10;
/** Schedules of the aggregator in the time of one of the reporter. */
const REPORTER_SHARE = 20;

const { values: given } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    seeds: { type: "string" },
    suite: { type: "string" },
    crashes: { type: "string" },
    seconds: { type: "string" },
    workers: { type: "string", default: "2" },
    verbose: { type: "boolean", default: false },
  },
});
const seed = Number(given.seed);
const workers = Number(given.workers);
let shown = 0;
/** Faults that no schedule met. */
let missed = 0;

function show(suite: Suite, { seed, message, lines }: Failure): void {
  shown += 1;
  if (shown > SHOWN_MAX) return;
  const repeat = `npm run test:sim -- --suite ${suite} --seed ${seed} --seeds 1 --verbose`;
  process.stdout.write(
    `${lines === undefined ? "" : `${lines.join("\n")}\n`}seed ${seed}: ${message}\n  repeat: ${repeat}\n`,
  );
}

async function run(suite: Suite, seeds: number): Promise<SimulationResult> {
  const startedAt = performance.now();
  const result = await simulateAtOnce(
    {
      root: join(import.meta.dirname, "../.."),
      suite,
      seed,
      seeds,
      isVerbose: given.verbose,
      ...(given.seconds === undefined ? {} : { seconds: Number(given.seconds) }),
      ...(given.crashes === undefined ? {} : { crashStride: Number(given.crashes) }),
      onFailure: (failure) => show(suite, failure),
    },
    workers,
  );
  const { failures, totals } = result;
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
  const count = (value: number): string => value.toLocaleString("en");
  const what =
    given.crashes === undefined
      ? `seeds ${seed} to ${seed + seeds - 1}`
      : `crashes, every ${given.crashes} of the second ones`;
  process.stdout.write(
    `${suite}, ${what}: ${count(totals.schedules)} schedules, ${count(totals.records)} records, ${count(totals.processes)} processes, ` +
      `${count(totals.steps)} steps, ${failures.length} violations, ${seconds} s\n`,
  );
  const hits = Object.entries(totals.hits).toSorted(([a], [b]) => a.localeCompare(b));
  process.stdout.write(hits.map(([what, times]) => `  ${count(times).padStart(10)}  ${what}\n`).join(""));
  const missing = suite === "aggregator" && totals.schedules >= SCHEDULES_MIN ? missingHits(totals.hits) : [];
  for (const what of missing) process.stdout.write(`never happened: ${what}\n`);
  missed += given.crashes === undefined ? missing.length : 0;
  return result;
}

const asked = Object.keys(SUITES).filter((suite) => suite === given.suite) as Suite[];
if (given.suite !== undefined && asked.length === 0) throw new Error(`no suite ${given.suite}`);
const seeds = Number(given.seeds ?? (given.verbose ? 1 : 2_000));
const results: SimulationResult[] = [];
if (given.crashes !== undefined) results.push(await run("aggregator", workers));
else {
  if (given.suite !== "reporter") results.push(await run("aggregator", seeds));
  if (given.suite !== "aggregator")
    results.push(await run("reporter", given.suite === undefined ? Math.ceil(seeds / REPORTER_SHARE) : seeds));
}
const violated = results.reduce((sum, { failures }) => sum + failures.length, 0);
const schedules = results.reduce((sum, { totals }) => sum + totals.schedules, 0);
const failed = violated + missed;
process.stdout.write(`${schedules - violated} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
