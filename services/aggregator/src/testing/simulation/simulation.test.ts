import { expect, test } from "vitest";
import { dieEverywhere } from "./exhaustive.ts";
import type { DeathMoment } from "./port-calls.ts";
import { runSchedule } from "./schedule.ts";

test("G1 G2 G3 G4 schedules of failing, late and repeated calls, zombies and clocks that step back violate nothing", async () => {
  // A sample for `npm test`; `npm run test:sim` has thousands.
  const summaries = [];
  for (let seed = 900_001; seed <= 900_020; seed += 1) summaries.push(await runSchedule(seed));
  expect(summaries.every(({ records, processes }) => records >= 40 && processes >= 3)).toBe(true);
});

test("a seed is a schedule: the same steps in the same order", async () => {
  const traces: string[][] = [];
  for (let n = 0; n < 2; n += 1) {
    const lines: string[] = [];
    await runSchedule(4_711, (line) => lines.push(line));
    traces.push(lines);
  }
  expect(traces[0]?.length).toBeGreaterThan(200);
  expect(traces[1]).toEqual(traces[0]);
});

test.each<DeathMoment>(["before", "half", "after"])(
  "G1 G2 G3 a death at every port call (%s its effect) changes no row",
  async (moment) => {
    const { hits } = await dieEverywhere(moment);
    // A kind of call that nobody died at would be a hole in this test. An open reads no raw rows before there is progress.
    expect([...hits.keys()].sort()).toEqual([
      "append",
      "backfilled",
      "bounds",
      "commitAdvisory",
      "countIdentities",
      "insert control_records",
      "insert identities",
      "insert raw_events",
      "insert rollup",
      "insert rollup_uniq",
      "progress",
      "readControls",
      "readIdentities",
      "readLastIdentity",
      "readPage",
      "readPending",
      "readProgress",
      "readRollups",
      "readSlices",
    ]);
  },
);
