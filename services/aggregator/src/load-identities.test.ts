import { TallyhouseError } from "@tallyhouse/domain";
import fc from "fast-check";
import { expect, test } from "vitest";
import { RowCutter } from "./identity-rows.ts";
import { driveToEnd } from "./testing/drive.ts";
import { storeWith } from "./testing/faults.ts";
import { ModelStore } from "./testing/model-store.ts";
import { expectStoreEqualsLog } from "./testing/oracle.ts";
import { aggregatorOn, turnsUntil } from "./testing/scenario.ts";
import { clockAfterTraffic, trafficLog } from "./testing/traffic.ts";

const WORDS = 5;

test("G2 rows are the same wherever the pieces end and begin", () => {
  const cuts = fc.array(fc.nat({ max: 70 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(fc.uint32Array({ maxLength: 200 }), cuts, fc.nat({ max: 7 }), (words, lengths, shift) => {
      const whole = words.subarray(0, words.length - (words.length % WORDS));
      // A piece may lie anywhere in its buffer.
      const bytes = new Uint8Array(whole.byteLength + shift).subarray(shift);
      bytes.set(new Uint8Array(whole.buffer, whole.byteOffset, whole.byteLength));
      const cutter = new RowCutter(WORDS);
      const rows: number[] = [];
      for (let from = 0, n = 0; from < bytes.length; n += 1) {
        const length = Math.max(1, lengths[n % lengths.length] ?? 1);
        const cut = cutter.cut(bytes.subarray(from, from + length));
        expect(cut.length % WORDS).toBe(0);
        rows.push(...cut);
        from += length;
      }
      cutter.end();
      expect(rows).toEqual([...whole]);
    }),
  );
});

test("G2 an answer that ends within a row is an outage, not a smaller index", () => {
  const cutter = new RowCutter(WORDS);
  expect(cutter.cut(new Uint8Array(39)).length).toBe(WORDS);
  expect(() => cutter.end()).toThrow(expect.objectContaining({ code: "STORE_UNAVAILABLE", action: "retry" }));
});

/** A store that was filled from a log which then received every usage event once more. */
async function replayed() {
  const log = trafficLog();
  const store = new ModelStore();
  const clock = clockAfterTraffic();
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  for (let partition = 0; partition < log.partitionCount; partition += 1) {
    // A copy: the log grows meanwhile.
    for (const entry of log.entries(partition).slice()) {
      if (entry.marker) continue;
      const { key, value, headers } = entry;
      log.appendAt(clock.now(), { partition, key, value, headers });
    }
  }
  return { log, store, clock };
}

test("G1 G2 a load that fails among its rows begins again with an empty index, and no identity is missed", async () => {
  const { log, store, clock } = await replayed();
  let failures = 0;
  const failing = storeWith(store, {
    async readIdentities(query, visit) {
      let visited = 0;
      await store.readIdentities(query, (rows) => {
        visited += 1;
        if (failures < 5 && visited === 1 + failures) {
          failures += 1;
          throw new TallyhouseError({ code: "STORE_UNAVAILABLE", action: "retry", message: "cut" });
        }
        visit(rows);
      });
    },
  });
  await driveToEnd(aggregatorOn({ store: failing, log, clock }), log);
  expect(failures).toBe(5);
  expectStoreEqualsLog(store, log);
});

test("G9 while one partition loads, another is folded and stored", async () => {
  const { log, store, clock } = await replayed();
  const { promise: held, resolve: letGo } = Promise.withResolvers<void>();
  const slow = storeWith(store, {
    async readIdentities(query, visit) {
      if (query.partition === 1) await held;
      await store.readIdentities(query, visit);
    },
  });
  const aggregator = aggregatorOn({ store: slow, log, clock });
  await log.subscribe(aggregator.partitions);
  await turnsUntil(() => aggregator.partitions.openSlots().length === 1, "partition 0 is open");
  const end = log.entries(0).length;
  for (let from = 0; from < end; from += 4) await log.deliver(0, 4);
  await aggregator.flush();
  const { partitions } = aggregator.status();
  expect(partitions[0]).toMatchObject({ state: "running", storedOffset: end });
  expect(partitions[1]).toMatchObject({ state: "opening" });
  letGo();
  await driveToEnd(aggregator, log);
  expectStoreEqualsLog(store, log);
});
