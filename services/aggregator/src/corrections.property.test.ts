import fc from "fast-check";
import { expect, test } from "vitest";
import { driveToEnd } from "./testing/drive.ts";
import { Fault, type FaultMode, mortal } from "./testing/faults.ts";
import { ModelStore } from "./testing/model-store.ts";
import { expectStoreEqualsLog } from "./testing/oracle.ts";
import { partitionTraffic, randomLog } from "./testing/random-traffic.ts";
import { aggregatorOn } from "./testing/scenario.ts";
import { clockAfterTraffic } from "./testing/traffic.ts";

const kill = fc.record({
  call: fc.integer({ min: 1, max: 60 }),
  mode: fc.constantFrom<FaultMode>("before", "half", "after"),
});

test("G1 G2 G3 any order of usage, corrections, meters, ends and a close, with any two kills, ends as the log says", async () => {
  const seen = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(partitionTraffic, partitionTraffic),
      fc.array(kill, { maxLength: 2 }),
      async (traffic, kills) => {
        const log = randomLog(traffic);
        const store = new ModelStore();
        const clock = clockAfterTraffic();
        for (const { call, mode } of kills) {
          // A short log ends before the kill comes: then nothing dies, which is a case, too.
          const ports = mortal({ store, log }, new Fault(call, mode));
          await driveToEnd(aggregatorOn({ ...ports, clock }), log).catch(mustBeKilled);
        }
        await driveToEnd(aggregatorOn({ store, log, clock }), log);
        expectStoreEqualsLog(store, log);
        for (const { status, reason } of store.rows("raw_events")) {
          const what = `${status} ${reason}`;
          seen.set(what, (seen.get(what) ?? 0) + 1);
        }
        for (const { kind } of store.rows("control_records"))
          seen.set(`done ${kind}`, (seen.get(`done ${kind}`) ?? 0) + 1);
      },
    ),
    { numRuns: 150 },
  );
  // What the traffic never made was never tested.
  for (const what of [
    "done void",
    "done replace",
    "done meter.end",
    "done stream.close",
    "control void",
    "control replace",
  ])
    expect(seen.get(what), what).toBeGreaterThan(5);
  expect(seen.get("invalid CONTROL_RECORD_INVALID"), "invalid").toBeGreaterThan(5);
  expect(seen.get("invalid STREAM_CLOSED"), "closed").toBeGreaterThan(5);
});

function mustBeKilled(error: unknown): void {
  expect(String(error)).toContain("killed at call");
}
