/**
 * `npm run test:statements -- --mutations N --seed S`: exports of seeded statements, made by the product's own code, must be accepted by
 * tools/verify-statement.py; N changes of them, by mutate.py, must not. Ends with `N passed, N failed`.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { numberOptions } from "../load/month-options.ts";
import { makeExports } from "./worlds.ts";

/** Enough for every currency, price shape and aggregation to meet; each has some 40 usage events in its items. */
const WORLDS = 40;

const { mutations, seed } = numberOptions({ mutations: 1_000, seed: 1 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-statements-"));
try {
  for (const { name, text } of makeExports({ seed, worlds: WORLDS }))
    writeFileSync(join(folder, `${name}.jsonl`), text);
  const harness = join(import.meta.dirname, "mutate.py");
  const args = [harness, folder, "--mutations", String(mutations), "--seed", String(seed)];
  const { status, error } = spawnSync("python3", args, { stdio: "inherit" });
  if (error !== undefined) throw error;
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
