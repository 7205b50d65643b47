import { TallyhouseError } from "@tallyhouse/domain";
import type { MemoryLog } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import type { Aggregator } from "./aggregator.ts";
import { openAll } from "./testing/drive.ts";
import { storeWith } from "./testing/faults.ts";
import { ModelStore } from "./testing/model-store.ts";
import { aggregatorOn, turnsUntil } from "./testing/scenario.ts";
import { clockAfterTraffic, trafficLog } from "./testing/traffic.ts";

/** A store and a log whose writes wait until the test lets them through. */
function gated(log: MemoryLog) {
  const store = new ModelStore();
  const waiting = new Map<string, () => void>();
  const written: string[] = [];
  const gate = async (name: string, effect: () => Promise<void>): Promise<void> => {
    await new Promise<void>((resolve) => waiting.set(name, resolve));
    await effect();
    written.push(name);
  };
  const gatedStore = storeWith(store, {
    insertRows: (table, rows) => gate(table, () => store.insertRows(table, rows)),
    recordProgress: (rows) => gate("progress", () => store.recordProgress(rows)),
  });
  const append = log.append.bind(log);
  log.append = (records) => gate("redirects", () => append(records));
  return { store: gatedStore, waiting, written };
}

async function foldedTraffic(): Promise<ReturnType<typeof gated> & { aggregator: Aggregator; log: MemoryLog }> {
  const log = trafficLog();
  const gates = gated(log);
  const aggregator = aggregatorOn({ store: gates.store, log, clock: clockAfterTraffic() });
  await openAll(aggregator, log);
  for (const partition of [0, 1]) await log.deliver(partition);
  return { ...gates, aggregator, log };
}

const RESULTS = ["control_records", "identities", "raw_events", "redirects", "rollup", "rollup_uniq"];

test("G1 all inserts and the redirect start together, one per table; progress waits for the last of them", async () => {
  for (const last of RESULTS) {
    const { aggregator, waiting, written } = await foldedTraffic();
    const flushed = aggregator.flush();
    await turnsUntil(() => waiting.size === RESULTS.length, "every write is under way");
    expect([...waiting.keys()].sort()).toEqual(RESULTS);
    for (const name of RESULTS) if (name !== last) waiting.get(name)?.();
    await turnsUntil(() => written.length === RESULTS.length - 1, "all writes but one are acknowledged");
    expect(waiting.has("progress"), `no progress before ${last}`).toBe(false);
    waiting.get(last)?.();
    await turnsUntil(() => waiting.has("progress"), "progress is under way");
    waiting.get("progress")?.();
    await flushed;
    expect(written.at(-1)).toBe("progress");
  }
});

test("G3 what is folded while a flush is under way belongs to the next one", async () => {
  const { aggregator, waiting, log, store } = await foldedTraffic();
  const ends = [0, 1].map((partition) => log.entries(partition).length);
  const flushed = aggregator.flush();
  await turnsUntil(() => waiting.size === RESULTS.length, "every write is under way");
  log.appendAt(Date.UTC(2026, 10, 20, 13), { partition: 0, key: null, value: null, headers: {} });
  await log.deliver(0);
  for (const name of RESULTS) waiting.get(name)?.();
  await turnsUntil(() => waiting.has("progress"), "progress is under way");
  waiting.get("progress")?.();
  await flushed;
  expect((await store.readProgress(0))?.nextOffset).toBe(ends[0]);
  expect(aggregator.status().partitions[0]).toMatchObject({ nextOffset: (ends[0] ?? 0) + 1, storedOffset: ends[0] });
});

test("G1 an outage of the store is waited out with the same rows; progress follows once", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  const attempts: string[] = [];
  const flaky = storeWith(store, {
    async insertRows(table, rows) {
      attempts.push(table);
      // Stored, but the answer is lost: the resent rows must be the same.
      await store.insertRows(table, rows);
      if (attempts.filter((name) => name === table).length <= 2) throw unavailable();
    },
  });
  const aggregator = aggregatorOn({ store: flaky, log, clock: clockAfterTraffic() });
  await openAll(aggregator, log);
  await log.deliver(0);
  await aggregator.flush();
  expect(attempts.filter((name) => name === "raw_events")).toHaveLength(3);
  expect(store.progress).toHaveLength(1);
});

test("an outage is given up after ten minutes, and a restart continues", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  const clock = clockAfterTraffic();
  const broken = storeWith(store, {
    async insertRows() {
      clock.at += 300_000;
      throw unavailable();
    },
  });
  const aggregator = aggregatorOn({ store: broken, log, clock });
  await openAll(aggregator, log);
  await log.deliver(0);
  await expect(aggregator.flush()).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
  expect(store.progress).toEqual([]);
});

test("offsets are committed after progress, as advice only: an error there is no error", async () => {
  const log = trafficLog();
  const aggregator = aggregatorOn({ store: new ModelStore(), log, clock: clockAfterTraffic() });
  await openAll(aggregator, log);
  await log.deliver(0);
  await aggregator.flush();
  expect(log.commits).toEqual([new Map([[0, log.entries(0).length]])]);
  log.commitAdvisory = () => Promise.reject(new Error("no coordinator"));
  await log.deliver(1);
  await aggregator.flush();
  expect(aggregator.status().partitions[1]?.storedOffset).toBe(log.entries(1).length);
});

function unavailable(): TallyhouseError {
  return new TallyhouseError({ code: "STORE_UNAVAILABLE", action: "retry", message: "not there" });
}
