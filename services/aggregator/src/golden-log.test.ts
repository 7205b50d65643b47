/** The golden log folded by different processes in different steps, and by every build before this one. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const STATUSES = [
  "conflict 23",
  "control 58",
  "counted 2008",
  "duplicate 233",
  "invalid 49",
  "too_early 39",
  "too_late 8",
];
const DIGESTS = {
  raw_events: "2418 rows, ff2bc023dd1c252c",
  identities: "2008 rows, 0852c64c111783e4",
  control_records: "58 rows, f952394d5d94ddb8",
  backfills: "14 rows, dcb1b8fea92c1982",
  rollup: "6132 rows, 83a5ae5b28d3537d",
  rollup_uniq: "1888 rows, 470188d3aa8bb1c3",
};

const FIXTURE = new URL("./testing/golden-log.fixture.ts", import.meta.url).pathname;
const run = promisify(execFile);

async function fold(folder: string, steps: { batchRecords: number; batchesPerFlush: number; killedAfter?: number }) {
  const { batchRecords, batchesPerFlush, killedAfter = 0 } = steps;
  const numbers = [batchRecords, batchesPerFlush, killedAfter].map(String);
  const { stdout } = await run(process.execPath, [FIXTURE, folder, ...numbers]);
  return JSON.parse(stdout) as { digests: Record<string, string>; statuses: string[] };
}

test(
  "G3 one log gives equal tables in any process and any steps, killed or not, and in every build",
  { timeout: 180_000 },
  async () => {
    const folder = await mkdtemp(join(tmpdir(), "tallyhouse-golden-"));
    try {
      const whole = await fold(join(folder, "whole"), { batchRecords: 10_000, batchesPerFlush: 1 });
      expect(whole.statuses).toEqual(STATUSES);
      // A digest that changes is a fold that changes: replays of old logs would give other totals. Make a new meter version instead.
      expect(whole.digests).toEqual(DIGESTS);
      expect(await fold(join(folder, "fine"), { batchRecords: 37, batchesPerFlush: 1 })).toEqual(whole);
      const coarse = { batchRecords: 111, batchesPerFlush: 3 };
      await expect(fold(join(folder, "killed"), { ...coarse, killedAfter: 2 })).rejects.toMatchObject({
        signal: "SIGKILL",
      });
      expect(await fold(join(folder, "killed"), coarse)).toEqual(whole);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
);
