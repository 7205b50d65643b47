import type { TallyhouseError } from "@tallyhouse/domain";
import { MemoryLog } from "@tallyhouse/testkit";
import { describe, expect, test } from "vitest";
import { DedupeIndex } from "./dedupe-index.ts";
import { DedupeMemory } from "./dedupe-memory.ts";
import { driveToEnd, openAll } from "./testing/drive.ts";
import { storeWith } from "./testing/faults.ts";
import { ModelStore } from "./testing/model-store.ts";
import { expectStoreEqualsLog } from "./testing/oracle.ts";
import { aggregatorOn, controlRecord, idsOf, STREAM, turnsUntil, usageRecord } from "./testing/scenario.ts";
import { clockAfterTraffic, trafficLog } from "./testing/traffic.ts";

const GIB = 2 ** 30;
const newIndex = () => new DedupeIndex(1_000_000);
/** A hundred thousand identities an hour, for so many hours: 3 MB each. */
const hoursOf = (count: number) => Array.from({ length: count }, (_, hour) => ({ hour, identities: 100_000 }));

/** The refusal of the last of these partitions, each with so many hours of a million identities. */
function refusalOf(limit: { bytesMax: number; partitionCount: number; partitions: number; hours: number }): string {
  const memory = new DedupeMemory(limit);
  for (let partition = 1; partition < limit.partitions; partition += 1)
    memory.claim(newIndex(), partition, hoursOf(limit.hours));
  const before = memory.sizeBytes;
  let refused: unknown = null;
  try {
    memory.claim(newIndex(), limit.partitions, hoursOf(limit.hours));
  } catch (error) {
    refused = error;
  }
  expect(refused).toMatchObject({ code: "DEDUPE_MEMORY_EXCEEDED", action: "halt" });
  expect(memory.sizeBytes).toBe(before);
  return (refused as TallyhouseError).message;
}

describe("a claim", () => {
  test("takes the memory at once, at most 30 bytes for each identity, and gives it back", () => {
    const memory = new DedupeMemory({ bytesMax: GIB, partitionCount: 16 });
    const [first, second] = [newIndex(), newIndex()];
    memory.claim(first, 0, hoursOf(1));
    memory.claim(second, 1, hoursOf(2));
    expect(memory.sizeBytes).toBeGreaterThan(300_000 * 26);
    expect(memory.sizeBytes).toBeLessThanOrEqual(300_000 * 30);
    memory.release(first);
    memory.release(first);
    expect(memory.sizeBytes).toBe(second.sizeBytes);
  });

  test("beyond the limit is refused before it takes memory, with the processes and the horizon that fit", () => {
    // 4 hours are 12 MB a partition: of 16 partitions 2 fit into 30 MB, so 8 processes; 3 partitions may have 83 % of it, 3 hours.
    const message = refusalOf({ bytesMax: 30_000_000, partitionCount: 16, partitions: 3, hours: 4 });
    expect(message).toContain(
      "partition 3 needs 0.011 GiB for 400000 identities, and 2 other partitions hold 0.022 GiB",
    );
    expect(message).toContain("more than DEDUPE_MEMORY_BYTES_MAX (0.028 GiB)");
    expect(message).toContain("8 processes with 2 of the 16 partitions each fit");
    expect(message).toContain("a DEDUPE_HORIZON_HOURS of 2 fits");
  });

  test("of a partition that exceeds the limit alone says that processes do not help", () => {
    const message = refusalOf({ bytesMax: 2_000_000, partitionCount: 16, partitions: 1, hours: 4 });
    expect(message).toContain("no number of processes is enough");
    expect(message).toContain("no horizon of an hour or more fits");
  });

  test("the horizon in the message does fit, whatever the hours hold", () => {
    for (let hours = 2; hours < 20; hours += 1) {
      const bytesMax = 3_000_000 * (hours - 1);
      const message = refusalOf({ bytesMax, partitionCount: 1, partitions: 1, hours });
      const horizon = Number(/DEDUPE_HORIZON_HOURS of (\d+) fits/.exec(message)?.[1] ?? 0);
      // A clock anywhere in the newest hour reaches back into one hour more than the horizon has.
      const kept = hoursOf(hours).filter(({ hour }) => hour >= hours - 1 - horizon);
      new DedupeMemory({ bytesMax, partitionCount: 1 }).claim(newIndex(), 0, kept);
      expect(horizon).toBe(hours - 2);
    }
  });
});

test("G9 an aggregator refuses to open partitions whose identities do not fit, and counts on when they do", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  const clock = clockAfterTraffic();
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  const crowded = storeWith(store, { countIdentities: () => Promise.resolve([{ hour: 0, identities: 100_000 }]) });
  const refused = aggregatorOn({ store: crowded, log, clock }, { DEDUPE_MEMORY_BYTES_MAX: 5_000_000 });
  await expect(openAll(refused, log)).rejects.toMatchObject({ code: "DEDUPE_MEMORY_EXCEEDED", action: "halt" });
  expect(refused.status().isReady).toBe(false);
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  expectStoreEqualsLog(store, log);
});

test("G1 G2 an index that grows beyond the limit halts the process; a restart with more memory counts what is left", async () => {
  const clock = clockAfterTraffic();
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock, isManual: true });
  // 256 sub-tables hold 12 each before one grows: the first batches fit, 3,000 identities do not.
  for (const id of idsOf(0, 3_000)) log.appendAt(clock.now(), usageRecord({ id }));
  log.appendAt(clock.now(), controlRecord({ kind: "tick" }, 1));
  const store = new ModelStore();
  // Two empty indexes fit, the first sub-table that grows does not.
  const bytesMax = 2 * newIndex().sizeBytes;
  const small = aggregatorOn({ store, log, clock }, { DEDUPE_MEMORY_BYTES_MAX: bytesMax });
  await expect(driveToEnd(small, log)).rejects.toMatchObject({ code: "DEDUPE_MEMORY_EXCEEDED", action: "halt" });
  expect(small.status().isReady).toBe(false);
  expect((await store.readProgress(0))?.nextOffset).toBeGreaterThan(0);
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  expectStoreEqualsLog(store, log);
});

test("a partition that is taken away gives its memory back, loaded or not, and what its open meets then is nobody's failure", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  const clock = clockAfterTraffic();
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  const { promise: held, resolve: letGo } = Promise.withResolvers<void>();
  let loads = 0;
  const slow = storeWith(store, {
    async readIdentities(query, visit) {
      loads += 1;
      if (query.partition === 1) await held;
      await store.readIdentities(query, visit);
    },
  });
  const aggregator = aggregatorOn({ store: slow, log, clock });
  aggregator.partitions.onAssigned([0, 1]);
  await turnsUntil(() => loads === 2, "both loads");
  const both = aggregator.status().dedupeBytes;
  aggregator.partitions.onAssigned([0]);
  expect(aggregator.status().dedupeBytes).toBeLessThan(both);
  aggregator.partitions.onAssigned([]);
  letGo();
  await turnsUntil(() => aggregator.status().dedupeBytes === 0, "nothing is held");
  aggregator.partitions.onAssigned([0, 1]);
  await turnsUntil(() => aggregator.partitions.openSlots().length === 2, "both are open again");
  expect(aggregator.status().dedupeBytes).toBe(both);
});
