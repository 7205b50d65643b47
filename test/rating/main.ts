/**
 * `npm run test:rating -- [--pairs N] [--seed S] [--first I]`: rates random plans with random totals and streams them with their bills to
 * `oracle.py`, which recomputes every line from docs/rating.md. Every twentieth pair is a settlement of prepaid credits instead. Ends with
 * `N passed, N failed`; exit code 1 on any mismatch.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { formatQuantity } from "@tallyhouse/domain";
import { rateBill, settleCredits } from "@tallyhouse/pricing";
import { creditNeedOf, pairOf } from "./random-pairs.ts";

const CREDITS_EVERY = 20;
/** Pairs written at once: the pipe is asked for room once for each batch. */
const BATCH_PAIRS = 200;
const PERIOD = { startAt: 0, endAt: 2_592_000_000 };

interface Report {
  readonly bills: number;
  readonly lines: Readonly<Record<string, number>>;
  /** Lines of at most 50 units, which were counted one after the other. */
  readonly unitByUnit: number;
  readonly mismatches: number;
  readonly shown: readonly { readonly pair: number; readonly problem: unknown }[];
}

/** Quantities as decimal text. */
function asText(name: string, value: unknown): unknown {
  return typeof value === "bigint" && (name === "quantity" || name === "credits") ? formatQuantity(value) : value;
}

/** Units of credits as whole numbers of 10^-9. */
function asScaled(_name: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

/** What the oracle reads of one pair. */
function recordOf(seed: number, pair: number): string {
  if (pair % CREDITS_EVERY === CREDITS_EVERY - 1) {
    const need = creditNeedOf(seed, pair);
    return JSON.stringify({ pair, need, result: settleCredits(need) }, asScaled);
  }
  const { plan, totals } = pairOf(seed, pair);
  return JSON.stringify({ pair, plan, totals, bill: rateBill(plan, totals, PERIOD) }, asText);
}

async function compare(seed: number, first: number, pairs: number): Promise<Report> {
  const oracle = spawn("python3", [join(import.meta.dirname, "oracle.py")], { stdio: ["pipe", "pipe", "inherit"] });
  const answer = text(oracle.stdout);
  const exited = once(oracle, "exit");
  // A dead oracle is told by its exit code; the broken pipe before it says nothing more.
  oracle.stdin.on("error", () => oracle.stdin.destroy());
  for (let from = first; from < first + pairs && !oracle.stdin.destroyed; from += BATCH_PAIRS) {
    const count = Math.min(BATCH_PAIRS, first + pairs - from);
    const batch = Array.from({ length: count }, (_, index) => `${recordOf(seed, from + index)}\n`).join("");
    if (!oracle.stdin.write(batch)) await Promise.race([once(oracle.stdin, "drain"), exited]);
  }
  oracle.stdin.end();
  const [exitCode] = (await exited) as [number | null];
  if (exitCode !== 0) throw new Error(`oracle.py ended with ${exitCode}`);
  return JSON.parse(await answer) as Report;
}

const { values: given } = parseArgs({
  options: {
    pairs: { type: "string", default: "20000" },
    seed: { type: "string", default: "1" },
    first: { type: "string", default: "0" },
  },
});
const [pairs, seed, first] = [Number(given.pairs), Number(given.seed), Number(given.first)];
const { bills, lines, unitByUnit, mismatches, shown } = await compare(seed, first, pairs);
const compared = bills + (lines["credits"] ?? 0);
const count = (value: number): string => value.toLocaleString("en").padStart(12);
for (const { pair, problem } of shown) {
  process.stdout.write(`pair ${pair}: ${JSON.stringify(problem)}\n`);
  process.stdout.write(`  repeat: npm run test:rating -- --seed ${seed} --first ${pair} --pairs 1\n`);
}
process.stdout.write(`seed ${seed}, pairs ${first} to ${first + pairs - 1}; lines compared by shape:\n`);
for (const [shape, lineCount] of Object.entries(lines).toSorted(([a], [b]) => (a < b ? -1 : 1)))
  process.stdout.write(`${count(lineCount)}  ${shape}\n`);
process.stdout.write(`${count(unitByUnit)}  lines of them unit by unit\n`);
process.stdout.write(`${count(bills)}  bills, ${mismatches} mismatches\n`);
// Pairs that the oracle never saw are failures too.
const failed = mismatches + (pairs - compared);
process.stdout.write(`${compared - mismatches} passed, ${failed} failed\n`);
process.exitCode = failed === 0 && pairs > 0 ? 0 : 1;
