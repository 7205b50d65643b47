/**
 * `npm run bench`: runs every benchmark and rewrites the table in docs/benchmarks.md. `npm run bench -- --compare REV` runs a revision
 * and this tree alternately and prints medians and ratios; `--only aggregate,ingest` some of them; `--quick` all for 5 s each.
 */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { constants, cpus, totalmem } from "node:os";
import process from "node:process";
import { runnerOptions } from "./bench-options.ts";
import { ChildBenches, hasBench } from "./child-bench.ts";
import type { Figures } from "./options.ts";
import { chosenBenches, planBenches, type PlannedBench, SHOWN } from "./plan.ts";
import { type BenchResult, compareRuns, replaceGenerated, tableOf } from "./report-table.ts";
import { checkOut } from "./revision.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const DOCUMENT = new URL("../../docs/benchmarks.md", import.meta.url);
const options = runnerOptions(process.argv.slice(2));
const plan = chosenBenches(planBenches(options.isQuick), options.only).map((bench) => ({
  ...bench,
  args: [...bench.args, ...options.extra],
  runs: options.runs ?? bench.runs,
}));
const children = new ChildBenches();
const say = (text: string): void => void process.stderr.write(`${text}\n`);
const releases: (() => void)[] = [];
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    void children.end(signal).finally(() => {
      for (const release of releases) release();
      process.exit(128 + constants.signals[signal]);
    });
  });
}

if (options.compare === null) await runAll();
else await compareWith(options.compare);

async function runAll(): Promise<void> {
  const results: BenchResult[] = [];
  for (const bench of plan) {
    if (!hasBench(ROOT, bench.name)) {
      say(`there is no bench:${bench.name}: left out`);
      continue;
    }
    const runs: Figures[] = [];
    for (let run = 1; run <= bench.runs; run += 1) {
      say(`${commandOf(bench)} (${run} of ${bench.runs})`);
      runs.push(await children.run(ROOT, bench));
      say(JSON.stringify(runs.at(-1)));
    }
    results.push({ command: commandOf(bench), runs });
  }
  const generated = `${conditions(results)}\n\n${tableOf(results, SHOWN)}`;
  process.stdout.write(`${generated}\n`);
  // A part of the table, or runs too short, would replace what is worth more.
  const isWhole = !options.isQuick && options.only.length === 0 && options.extra.length === 0;
  if (!isWhole) return;
  writeFileSync(DOCUMENT, replaceGenerated(readFileSync(DOCUMENT, "utf8"), generated));
  say("docs/benchmarks.md is rewritten");
}

/** A B A B …, so that a machine that grows slower is unfair to none. */
async function compareWith(revision: string): Promise<void> {
  const checkout = checkOut({ root: ROOT, revision, onStarted: (release) => void releases.push(release) });
  const { root } = checkout;
  try {
    for (const bench of plan) {
      if (!hasBench(root, bench.name))
        throw new Error(`${revision} has no bench:${bench.name}: name others with --only`);
      const [before, after]: [Figures[], Figures[]] = [[], []];
      for (let run = 1; run <= bench.runs; run += 1) {
        say(`${commandOf(bench)} (${run} of ${bench.runs}, ${revision} and then this tree)`);
        before.push(await children.run(root, bench));
        after.push(await children.run(ROOT, bench));
      }
      process.stdout.write(`${[commandOf(bench), ...compareRuns(before, after)].join("\n  ")}\n`);
    }
  } finally {
    checkout.remove();
  }
}

function commandOf({ name, args }: PlannedBench): string {
  return `bench:${name}${args.length === 0 ? "" : ` -- ${args.join(" ")}`}`;
}

/** Machine, versions, commit and what holds for every row. */
function conditions(results: readonly BenchResult[]): string {
  const git = (...args: string[]): string => execFileSync("git", args, { cwd: ROOT, encoding: "utf8" }).trim();
  const isDirty = git("status", "--porcelain", "--untracked-files=no") !== "";
  const engines = new Set(
    results.flatMap(({ runs }) => runs.map(({ engines: used }) => used).filter((used) => typeof used === "string")),
  );
  const [processor] = cpus();
  return [
    `${new Date().toISOString().slice(0, 10)}, commit ${git("rev-parse", "--short", "HEAD")}${isDirty ? " with changes" : ""}.`,
    `${process.platform} ${process.arch}, ${cpus().length} cores (${processor?.model ?? "unknown"}), ${Math.round(totalmem() / 2 ** 30)} GiB,`,
    `Node ${process.versions.node}; ${[...engines].join("; ")}. The load client runs on the same cores. Usage events of some 220 bytes,`,
    "1,000 customers, a tenth duplicates, dedupe and fsync on, warm-up included but in `bench:visible`; runs shorter than 10 minutes are no claim.",
  ].join("\n");
}
