import { TallyhouseError } from "@tallyhouse/domain";
import { MemoryLog, until } from "@tallyhouse/testkit";
import { describe, expect, test } from "vitest";
import { openAll } from "./testing/drive.ts";
import { storeWith } from "./testing/faults.ts";
import { ModelStore } from "./testing/model-store.ts";
import { expectStoreEqualsLog } from "./testing/oracle.ts";
import {
  activation,
  aggregatorOn,
  controlRecord,
  idsOf,
  ManualClock,
  NOON,
  STREAM,
  usageRecord,
} from "./testing/scenario.ts";
import { clockAfterTraffic } from "./testing/traffic.ts";

/** A log that delivers by itself, with a meter in each partition. */
function liveLog(clock: { now(): number } = clockAfterTraffic()): MemoryLog {
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock, batchRecordsMax: 7 });
  for (const partition of [0, 1]) log.appendAt(NOON, controlRecord(activation(), partition));
  return log;
}

const usage = (partition: number, count: number) => idsOf(partition, count).map((id) => usageRecord({ id }));

describe("run", () => {
  test("G7 folds, stores and reports ready; a graceful stop stores what is folded", async () => {
    const log = liveLog();
    const store = new ModelStore();
    const aggregator = aggregatorOn({ log, store, clock: clockAfterTraffic() }, { FLUSH_INTERVAL_MS: 5 });
    const stop = new AbortController();
    expect(aggregator.status().isReady).toBe(false);
    const ran = aggregator.run(stop.signal);
    await log.append([...usage(0, 30), ...usage(1, 30)]);
    await until(() => store.newestRollups().reduce((sum, row) => sum + row.counted, 0) === 60);
    await until(() => aggregator.status().isReady);
    stop.abort();
    await ran;
    await aggregator.close();
    expectStoreEqualsLog(store, log);
  });

  test("G1 a stop before the first timed flush stores what is folded", async () => {
    const log = liveLog();
    const store = new ModelStore();
    const aggregator = aggregatorOn({ log, store, clock: clockAfterTraffic() }, { FLUSH_INTERVAL_MS: 60_000 });
    const stop = new AbortController();
    const ran = aggregator.run(stop.signal);
    await log.append(usage(0, 20));
    await until(() => aggregator.status().partitions[0]?.nextOffset === 21);
    expect(store.progress).toEqual([]);
    stop.abort();
    await ran;
    expect(await store.readProgress(0)).toMatchObject({ nextOffset: 21, counted: 20 });
  });

  test("a full buffer starts the flush before its time", async () => {
    const log = liveLog();
    const store = new ModelStore();
    const aggregator = aggregatorOn(
      { log, store, clock: clockAfterTraffic() },
      { FLUSH_INTERVAL_MS: 60_000, FLUSH_BYTES_MAX: 20_000 },
    );
    const stop = new AbortController();
    const ran = aggregator.run(stop.signal);
    await log.append(usage(0, 60));
    await until(async () => ((await store.readProgress(0))?.nextOffset ?? 0) > 20);
    stop.abort();
    await ran;
  });

  test("G9 a halt ends the run with its error, and the aggregator is not ready", async () => {
    const log = liveLog();
    const aggregator = aggregatorOn({ log, store: new ModelStore(), clock: clockAfterTraffic() });
    const ran = aggregator.run(new AbortController().signal);
    await until(() => aggregator.status().isReady);
    log.appendAt(clockAfterTraffic().now() + 7_200_000, controlRecord({ kind: "tick" }, 0));
    await expect(ran).rejects.toMatchObject({ code: "LOG_MISCONFIGURED", action: "halt" });
    await expect(log.failed).rejects.toMatchObject({ code: "LOG_MISCONFIGURED" });
    expect(aggregator.status().isReady).toBe(false);
  });

  test("G1 a halt stores what was folded before it: a flush that it cut could not be finished from a lost log", async () => {
    const log = liveLog();
    const store = new ModelStore();
    const aggregator = aggregatorOn({ log, store, clock: clockAfterTraffic() }, { FLUSH_INTERVAL_MS: 60_000 });
    const ran = aggregator.run(new AbortController().signal);
    await log.append(usage(0, 20));
    await until(() => aggregator.status().partitions[0]?.nextOffset === 21);
    expect(store.progress).toEqual([]);
    log.appendAt(clockAfterTraffic().now() + 7_200_000, controlRecord({ kind: "tick" }, 0));
    await expect(ran).rejects.toMatchObject({ code: "LOG_MISCONFIGURED" });
    expect(await store.readProgress(0)).toMatchObject({ nextOffset: 21, counted: 20 });
  });

  test("a store that is away at the stop does not hold the process: what is folded is folded again", async () => {
    const log = liveLog();
    const store = new ModelStore();
    const away = storeWith(store, {
      insertRows: () => Promise.reject(new Error("refused")),
    });
    const aggregator = aggregatorOn({ log, store: away, clock: clockAfterTraffic() }, { FLUSH_INTERVAL_MS: 60_000 });
    const stop = new AbortController();
    const ran = aggregator.run(stop.signal);
    await until(() => aggregator.status().partitions[0]?.nextOffset === 1);
    stop.abort();
    await ran;
    expect(store.progress).toEqual([]);
  });
});

test("the log's delivery waits while too much is folded and not stored", async () => {
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock: clockAfterTraffic(), isManual: true });
  for (const record of usage(0, 60)) log.appendAt(NOON, record);
  const aggregator = aggregatorOn(
    { log, store: new ModelStore() },
    { BUFFER_BYTES_MAX: 20_000, FLUSH_BYTES_MAX: 20_000 },
  );
  await openAll(aggregator, log);
  let isDelivered = false;
  const delivery = log.deliver(0, 40).then(() => {
    isDelivered = true;
    return isDelivered;
  });
  await new Promise<void>((resolve) => setImmediate(resolve));
  expect(aggregator.status().bufferedBytes).toBeGreaterThan(20_000);
  expect(isDelivered).toBe(false);
  await aggregator.flush();
  expect(await delivery).toBe(true);
  expect(aggregator.status().bufferedBytes).toBe(0);
});

describe("ticks", () => {
  /** Opens both partitions of an empty, hand-driven log. */
  async function silentLog(clock: ManualClock) {
    const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock, isManual: true });
    const store = new ModelStore();
    const aggregator = aggregatorOn({ log, store, clock });
    await openAll(aggregator, log);
    const ticks = () => [0, 1].map((partition) => log.entries(partition).length);
    const settle = async () => {
      for (const partition of [0, 1]) await log.deliver(partition);
      await aggregator.flush();
    };
    return { log, store, aggregator, ticks, settle };
  }

  test("G7 an empty log gets one tick per partition and silence, and with only ticks progress and clock move", async () => {
    const clock = new ManualClock();
    const { store, aggregator, ticks, settle } = await silentLog(clock);
    await aggregator.tick();
    expect(ticks()).toEqual([1, 1]);
    await aggregator.tick(); // not delivered yet: no second one
    expect(ticks()).toEqual([1, 1]);
    await settle();
    clock.at += 14_999;
    await aggregator.tick();
    expect(ticks()).toEqual([1, 1]);
    clock.at += 1;
    await aggregator.tick();
    await settle();
    expect(ticks()).toEqual([2, 2]);
    expect(await store.readProgress(1)).toMatchObject({ nextOffset: 2, logClockAt: NOON + 15_000 });
    expect(store.rows("control_records")).toEqual([]);
  });

  test("partitions that fell silent at different times are ticked together from the first round on", async () => {
    const clock = new ManualClock();
    const { log, aggregator, ticks, settle } = await silentLog(clock);
    await aggregator.tick();
    await settle();
    clock.at += 5_000;
    log.appendAt(clock.at, controlRecord({ kind: "tick" }, 1));
    await settle();
    clock.at += 10_000;
    await aggregator.tick();
    expect(ticks()).toEqual([2, 3]);
  });

  test("G9 a partition that is behind gets no tick; after 25 s it is stuck and the aggregator not ready", async () => {
    const clock = new ManualClock();
    const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock });
    const store = new ModelStore();
    const aggregator = aggregatorOn({ log, store, clock }, { FLUSH_INTERVAL_MS: 1 });
    const stop = new AbortController();
    const ran = aggregator.run(stop.signal);
    await until(() => aggregator.status().isReady && aggregator.status().partitions[0]?.nextOffset === 1);
    log.fallSilent();
    await log.append([controlRecord({ kind: "tick" }, 0)]);
    clock.at += 24_000;
    await aggregator.tick();
    expect(aggregator.status()).toMatchObject({ stuckPartitions: [] });
    clock.at += 1_000;
    await aggregator.tick();
    expect(aggregator.status()).toMatchObject({
      stuckPartitions: [0],
      state: "stuck: partitions 0",
      isReady: false,
    });
    expect(log.entries(0)).toHaveLength(2);
    stop.abort();
    await ran;
  });

  test("a log that cannot be reached is left to the next round; another error ends the run", async () => {
    const clock = new ManualClock();
    const { log, aggregator, ticks } = await silentLog(clock);
    const append = log.append.bind(log);
    log.append = () =>
      Promise.reject(new TallyhouseError({ code: "LOG_UNAVAILABLE", action: "retry", message: "not there" }));
    await aggregator.tick();
    log.append = append;
    await aggregator.tick();
    expect(ticks()).toEqual([1, 1]);
  });
});
