/**
 * `npm run bench:dedupe -- --identities N --seed S --digest-every K`: the dedupe index on the real engine. A process stores N
 * identities within the horizon, and an eighth as many beyond it, and is killed; this one rebuilds the index, lets it grow for a
 * day and asks for every identity. The last line is one JSON object with every figure; exit code 1 when an answer was wrong.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock } from "@tallyhouse/runtime";
import { rebuildAndCheck, writeAndKill } from "./identity-check.ts";
import { planOf } from "./identity-shapes.ts";

const { values } = parseArgs({
  options: {
    identities: { type: "string", default: "5000000" },
    seed: { type: "string", default: "1" },
    // The product's digester takes some 5 µs for each identity and twin; the engine's fingerprints are asked for in any case.
    "digest-every": { type: "string", default: "4" },
  },
});
const whole = (name: keyof typeof values): number => {
  if (!/^[1-9]\d{0,8}$/.test(values[name])) throw new Error(`--${name} takes a whole number below 1,000,000,000`);
  return Number(values[name]);
};
const seed = whole("seed");
const plan = planOf({ identities: whole("identities"), seed, clockAt: Math.floor(systemClock.now() / 1_000) });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-dedupe-"));
try {
  const writeSeconds = await writeAndKill(folder, plan);
  const figures = { writeSeconds, ...(await rebuildAndCheck(folder, plan, whole("digest-every"))) };
  const rounded = Object.entries(figures).map(([name, figure]) => [name, Number(figure.toFixed(2))]);
  const all = { bench: "dedupe", seed, ...Object.fromEntries(rounded), cores: cpus().length };
  process.stdout.write(`${JSON.stringify(all)}\n`);
  if (figures.falsePositives + figures.falseNegatives > 0) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
