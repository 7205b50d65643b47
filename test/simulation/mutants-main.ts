/**
 * `npm run test:mutants [-- --only TEXT] [--sample N] [--seeds N]`: builds each fault of mutants.ts into a copy of the sources and
 * shows which guarantee notices: N schedules (40) tell the share that fails, then the first that fails is sought in up to N (2,000).
 * Ends with `N passed, N failed`; fails when one survives, or when the sources themselves fail.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { type Mutant, MUTANTS } from "./mutants.ts";
import { copySources, type Edit, removeCopy } from "./source-copy.ts";
import { simulate, type Suite } from "./workers.ts";

const ROOT = join(import.meta.dirname, "../..");
/** Schedules of the aggregator in the time of one of the reporter, whose sample is so much smaller. */
const REPORTER_SHARE = 4;
/** A test that is slow, because the machine is busy, has found nothing. */
const HANG_MS = 240_000;
const COLUMNS = [46, 10, 16, 10] as const;

const { values: given } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    sample: { type: "string", default: "40" },
    seeds: { type: "string", default: "2000" },
    workers: { type: "string", default: "2" },
  },
});
const aggregatorSample = Number(given.sample);
const seedsMax = Number(given.seeds);

/** What a judge said of one tree. */
interface Verdict {
  /** Guarantees that broke; none when the tree passed. */
  readonly guarantees: readonly string[];
  /** Seeds until the first failure, or the test that failed. */
  readonly found: string;
  /** Share of failing schedules in the sample; empty for tests. */
  readonly share: string;
  /** What was seen first. */
  readonly message: string;
}

async function judge(root: string, how: Mutant["judge"], seedsLimit: number): Promise<Verdict> {
  return how.kind === "simulation" ? judgeBySchedules(root, { suite: how.suite, seedsLimit }) : judgeByTests(root, how);
}

async function judgeBySchedules(root: string, how: { suite: Suite; seedsLimit: number }): Promise<Verdict> {
  const { suite, seedsLimit } = how;
  const sample = suite === "reporter" ? Math.ceil(aggregatorSample / REPORTER_SHARE) : aggregatorSample;
  const sampled = await simulate({ root, suite, seed: 1, seeds: sample });
  const left = { root, suite, seed: sample + 1, seeds: seedsLimit - sample, stopsAtFirst: true } as const;
  const later = sampled.failures.length > 0 || left.seeds <= 0 ? [] : (await simulate(left)).failures;
  const [first] = [...sampled.failures, ...later].toSorted((a, b) => a.seed - b.seed);
  const named = [...sampled.failures, ...later].map(({ guarantee }) => guarantee).filter((name) => name !== "none");
  return {
    guarantees: [...new Set(named)].toSorted(),
    found: first === undefined ? `none of ${seedsLimit}` : `${first.seed} seeds`,
    share: `${Math.round((100 * sampled.failures.length) / sample)} %`,
    message: first?.message ?? "",
  };
}

interface TestReport {
  readonly testResults: readonly {
    readonly message?: string;
    readonly assertionResults: readonly {
      readonly title: string;
      readonly status: string;
      readonly failureMessages: string[];
    }[];
  }[];
}

/** Runs vitest to its end, whatever that is; what it printed. */
async function runVitest(args: readonly string[]): Promise<string> {
  const program = join(ROOT, "node_modules/vitest/vitest.mjs");
  const child = spawn(process.execPath, [program, ...args], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  await once(child, "close");
  return output;
}

async function judgeByTests(root: string, how: Extract<Mutant["judge"], { kind: "tests" }>): Promise<Verdict> {
  const report = join(root, "mutant-report.json");
  const folder = join(root, how.workspace);
  const args = [
    "run",
    "--root",
    folder,
    "--config",
    join(root, "vitest.config.ts"),
    `--outputFile.json=${report}`,
    `--testTimeout=${HANG_MS}`,
    `--hookTimeout=${HANG_MS}`,
    how.file,
  ];
  const output = await runVitest(args);
  const text = await readFile(report, "utf8").catch(() => {
    throw new Error(`no report of ${how.file}: ${output.slice(-2_000)}`);
  });
  const tests = (JSON.parse(text) as TestReport).testResults.flatMap(({ assertionResults }) => assertionResults);
  if (tests.length === 0) throw new Error(`${how.file} ran no test: ${output.slice(-2_000)}`);
  const failed = tests.filter(({ status }) => status === "failed");
  return {
    guarantees: [...new Set(failed.flatMap(({ title }) => title.match(/\bG\d\b/g) ?? []))].toSorted(),
    found: "test",
    share: "",
    message: failed.map(({ title, failureMessages }) => `${title}: ${failureMessages[0]?.split("\n")[0]}`).join("; "),
  };
}

function line(cells: readonly string[]): string {
  return cells
    .map((cell, at) => cell.padEnd(COLUMNS[at] ?? 0))
    .join(" ")
    .trimEnd();
}

let passed = 0;
let failed = 0;

function report(name: string, isRight: boolean, verdict: Verdict): void {
  if (isRight) passed += 1;
  else failed += 1;
  const caught = verdict.guarantees.join(" ") || "nothing";
  process.stdout.write(`${line([name, caught, verdict.found, verdict.share])}${isRight ? "" : "  FAILED"}\n`);
  if (verdict.message !== "") process.stdout.write(`    ${verdict.message.split("\n")[0]?.slice(0, 220)}\n`);
}

async function tryMutant(mutant: Mutant): Promise<void> {
  const verdict = await onCopy(mutant.edits, (copy) => judge(copy, mutant.judge, seedsMax));
  report(mutant.name, verdict.guarantees.length > 0, verdict);
}

/** A fault that no longer fits the sources, or a judge that cannot judge, is a failure like a mutant that survives. */
async function onCopy(edits: readonly Edit[], judged: (copy: string) => Promise<Verdict>): Promise<Verdict> {
  let copy: string | null = null;
  try {
    copy = await copySources(ROOT, edits);
    return await judged(copy);
  } catch (error) {
    return { guarantees: [], found: "", share: "", message: (error as Error).message };
  } finally {
    if (copy !== null) await removeCopy(copy);
  }
}

/** The sources without a fault pass the same judges. */
async function tryUnpatched(how: Mutant["judge"]): Promise<void> {
  const verdict = await onCopy([], (copy) => judge(copy, how, aggregatorSample));
  const name =
    how.kind === "simulation" ? `no fault: schedules of the ${how.suite}` : `no fault: ${how.workspace}/${how.file}`;
  report(name, verdict.message === "", verdict);
}

const chosen = MUTANTS.filter(({ name }) => name.includes(given.only));
const judges = new Map(chosen.map(({ judge }) => [JSON.stringify(judge), judge]));
const works = [
  ...[...judges.values()].map((how) => () => tryUnpatched(how)),
  ...chosen.map((mutant) => () => tryMutant(mutant)),
];
process.stdout.write(`${line(["mutant", "caught by", "after", "share"])}\n`);
const startedAt = performance.now();
const worker = async (): Promise<void> => {
  for (let work = works.shift(); work !== undefined; work = works.shift()) await work();
};
await Promise.all(Array.from({ length: Number(given.workers) }, worker));
process.stdout.write(`${((performance.now() - startedAt) / 1_000).toFixed(0)} s\n${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
