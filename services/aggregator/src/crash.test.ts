import { expect, test } from "vitest";
import { driveToEnd } from "./testing/drive.ts";
import { Fault, type FaultMode, mortal } from "./testing/faults.ts";
import { ModelStore } from "./testing/model-store.ts";
import { expectStoreEqualsLog } from "./testing/oracle.ts";
import { aggregatorOn } from "./testing/scenario.ts";
import { clockAfterTraffic, trafficLog } from "./testing/traffic.ts";

/** Every port call of an undisturbed run, in order. */
async function callsOfARun(): Promise<readonly string[]> {
  const log = trafficLog();
  const store = new ModelStore();
  const fault = new Fault(Number.POSITIVE_INFINITY, "before");
  await driveToEnd(aggregatorOn({ ...mortal({ store, log }, fault), clock: clockAfterTraffic() }), log);
  return fault.calls;
}

/** Kills the process at its n-th port call, starts a new one, and compares what is stored with the log. */
async function crashAt(n: number, mode: FaultMode): Promise<string | undefined> {
  const log = trafficLog();
  const store = new ModelStore();
  const clock = clockAfterTraffic();
  const fault = new Fault(n, mode);
  const died = await driveToEnd(aggregatorOn({ ...mortal({ store, log }, fault), clock }), log).then(
    // Killed at the very last advisory commit, which nobody waits for.
    () => "killed at call, and done",
    (error: Error) => error.message,
  );
  expect(fault.isHit, `call ${n} is reached`).toBe(true);
  expect(died).toContain("killed at call");
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  expectStoreEqualsLog(store, log);
  return fault.calls.at(-1);
}

test("without a crash the store equals the reference fold", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  await driveToEnd(aggregatorOn({ store, log, clock: clockAfterTraffic() }), log);
  expectStoreEqualsLog(store, log);
  const statuses = new Set(store.rows("raw_events").map((row) => row.status));
  expect([...statuses].sort()).toEqual([
    "conflict",
    "control",
    "counted",
    "duplicate",
    "invalid",
    "redirected",
    "too_early",
    "too_late",
  ]);
});

test.each<FaultMode>(["before", "half", "after"])(
  "G1 G2 G3 a kill at any port call (%s its effect) loses nothing and counts nothing twice",
  async (mode) => {
    const calls = await callsOfARun();
    const killed = new Map<string, number>();
    for (let n = 1; n <= calls.length; n += 1) {
      const call = await crashAt(n, mode);
      killed.set(String(call), (killed.get(String(call)) ?? 0) + 1);
    }
    // A kill point without a hit would be a hole in this test, so each kind of call must be among them.
    expect([...killed.keys()].sort()).toEqual([
      "append",
      "bounds",
      "commitAdvisory",
      "countIdentities",
      "insertRows control_records",
      "insertRows identities",
      "insertRows raw_events",
      "insertRows rollup",
      "insertRows rollup_uniq",
      "readControls",
      "readIdentities",
      "readLastIdentity",
      "readProgress",
      "readRollups",
      "recordProgress",
    ]);
  },
);

test("G1 G2 G3 two kills in a row, the second while the first is being recovered", async () => {
  for (let first = 12; first < 60; first += 6) {
    for (let second = 1; second < 30; second += 3) {
      const log = trafficLog();
      const store = new ModelStore();
      const clock = clockAfterTraffic();
      for (const fault of [new Fault(first, "half"), new Fault(second, "after")]) {
        const died = await driveToEnd(aggregatorOn({ ...mortal({ store, log }, fault), clock }), log).then(
          () => "killed at call, and done",
          (error: Error) => error.message,
        );
        expect(died).toContain("killed at call");
      }
      await driveToEnd(aggregatorOn({ store, log, clock }), log);
      expectStoreEqualsLog(store, log);
    }
  }
});
