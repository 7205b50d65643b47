import fc from "fast-check";
import { expect, test } from "vitest";
import { driveToEnd, openAll } from "./testing/drive.ts";
import { ModelStore } from "./testing/model-store.ts";
import { expectStoreEqualsLog } from "./testing/oracle.ts";
import { aggregatorOn, STREAM } from "./testing/scenario.ts";
import { clockAfterTraffic, trafficLog } from "./testing/traffic.ts";

test("G2 G3 two processes on the same partitions, folding and storing in any order, end with the log's totals", async () => {
  const command = fc.record({
    actor: fc.constantFrom<0 | 1>(0, 1),
    does: fc.constantFrom<"fold" | "flush" | "restart">("fold", "fold", "fold", "flush", "flush", "restart"),
    partition: fc.nat(STREAM.partitionCount - 1),
    records: fc.integer({ min: 1, max: 5 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 40 }), async (commands) => {
      const store = new ModelStore();
      const clock = clockAfterTraffic();
      const first = trafficLog();
      const logs = [first, first.reader()] as const;
      const start = async (actor: 0 | 1) => {
        const aggregator = aggregatorOn({ store, log: logs[actor], clock });
        await openAll(aggregator, logs[actor]);
        return aggregator;
      };
      const actors = [await start(0), await start(1)];
      for (const { actor, does, partition, records } of commands) {
        if (does === "fold") await logs[actor].deliver(partition, records);
        if (does === "flush") await actors[actor]?.flush();
        if (does === "restart") actors[actor] = await start(actor);
      }
      // One of them finishes; the other still holds rows of an older prefix and stores them last of all.
      await driveToEnd(aggregatorOn({ store, log: first, clock }), first);
      await actors[1]?.flush();
      await driveToEnd(aggregatorOn({ store, log: first, clock }), first);
      expectStoreEqualsLog(store, first);
    }),
    { numRuns: 100 },
  );
});

test("G2 a process that wakes up hours later and stores its old prefix changes no total", async () => {
  const store = new ModelStore();
  const clock = clockAfterTraffic();
  const log = trafficLog();
  const reader = log.reader();
  const sleeper = aggregatorOn({ store, log: reader, clock });
  await openAll(sleeper, reader);
  for (const partition of [0, 1]) await reader.deliver(partition, 7);
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  const before = JSON.stringify(store.newestRollups());
  await sleeper.flush();
  expect(JSON.stringify(store.newestRollups())).toBe(before);
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  expectStoreEqualsLog(store, log);
});
