import { TallyhouseError } from "@tallyhouse/domain";
import { MemoryLog } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { driveToEnd, openAll } from "./testing/drive.ts";
import { ModelStore } from "./testing/model-store.ts";
import { expectStoreEqualsLog } from "./testing/oracle.ts";
import { aggregatorOn, controlRecord, HOUR_MS, STREAM } from "./testing/scenario.ts";
import { clockAfterTraffic, trafficLog } from "./testing/traffic.ts";

const clock = clockAfterTraffic();

/** A log that was folded and stored to its end, and both ports for a restart. */
async function storedTraffic(): Promise<{ log: MemoryLog; store: ModelStore }> {
  const log = trafficLog();
  const store = new ModelStore();
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  return { log, store };
}

/** The halt with which a restart on these ports ends. */
async function haltOf(ports: { log: MemoryLog; store: ModelStore }): Promise<TallyhouseError> {
  const aggregator = aggregatorOn({ ...ports, clock });
  const error = await driveToEnd(aggregator, ports.log).then(
    () => null,
    (error: unknown) => error,
  );
  if (!(error instanceof TallyhouseError)) throw new Error(`no halt but ${String(error)}`);
  expect(error.action).toBe("halt");
  expect(aggregator.status().isReady).toBe(false);
  return error;
}

test("G1 records deleted by retention before they were folded halt", async () => {
  const ports = await storedTraffic();
  for (let n = 0; n < 5; n += 1) ports.log.appendAt(clock.now(), controlRecord({ kind: "tick" }, 0));
  ports.log.deleteBefore(0, ports.log.entries(0).length - 1);
  const error = await haltOf(ports);
  expect(error.code).toBe("LOG_GAP");
  expect(error.message).toContain("retention deleted records before they were folded");
});

test("G1 a log whose beginning is gone before anything was stored halts", async () => {
  const log = trafficLog();
  log.deleteBefore(1, 3);
  expect((await haltOf({ log, store: new ModelStore() })).code).toBe("LOG_GAP");
});

test("an operator may say where a stream begins: progress without a last record, and restarts go on from there", async () => {
  const log = trafficLog();
  log.deleteBefore(1, 3);
  const store = new ModelStore();
  await store.recordProgress([{ partition: 1, nextOffset: 3, logClockAt: 0, lastRecord: 0n, counted: 0 }]);
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  log.appendAt(clock.now(), controlRecord({ kind: "tick" }, 1));
  await driveToEnd(aggregatorOn({ store, log, clock }), log);
  const offsets = store.rows("raw_events").filter((row) => row.logPartition === 1);
  expect(offsets.map((row) => row.logOffset)).toEqual(
    log
      .entries(1)
      .slice(3)
      .map((entry) => entry.offset),
  );
});

test("G3 a truncated log halts", async () => {
  const ports = await storedTraffic();
  ports.log.truncate(0, 10);
  expect(await haltOf(ports)).toMatchObject({ code: "LOG_GAP", message: expect.stringContaining("truncated") });
});

test("G3 a log that was truncated and has grown again is recognised by the record below progress", async () => {
  const ports = await storedTraffic();
  const end = ports.log.entries(0).length;
  ports.log.truncate(0, end - 1);
  for (let n = 0; n < 5; n += 1) ports.log.appendAt(clock.now() + n, controlRecord({ kind: "tick" }, 0));
  const error = await haltOf(ports);
  expect(error.code).toBe("STREAM_MISMATCH");
  expect(error.message).toContain(`the record at offset ${end - 1} is not the one that was folded there`);
});

test("the record below progress may have left by retention: there is nothing to compare, and no gap", async () => {
  const ports = await storedTraffic();
  ports.log.appendAt(clock.now(), controlRecord({ kind: "tick" }, 0));
  ports.log.deleteBefore(0, ports.log.entries(0).length - 1);
  await driveToEnd(aggregatorOn({ ...ports, clock }), ports.log);
  expectStoreEqualsLog(ports.store, ports.log);
});

test("G1 progress newer than its rows, as after a torn restore, halts", async () => {
  for (const lost of ["last", "middle"]) {
    const ports = await storedTraffic();
    ports.store.loseRawRow(0, lost === "last" ? ports.log.entries(0).length - 1 : 9);
    const error = await haltOf(ports);
    expect(error.code).toBe("STREAM_MISMATCH");
    expect(error.message).toContain("lower the partition's progress");
  }
});

test("a stream of another partition count is refused", async () => {
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount + 1, clock });
  const aggregator = aggregatorOn({ log, store: new ModelStore() });
  await expect(aggregator.run(new AbortController().signal)).rejects.toMatchObject({ code: "STREAM_MISMATCH" });
});

test("a record received more than an hour ahead of our clock halts", async () => {
  const log = trafficLog();
  log.appendAt(clock.now() + HOUR_MS + 1, controlRecord({ kind: "tick" }, 0));
  const error = await haltOf({ log, store: new ModelStore() });
  expect(error.code).toBe("LOG_MISCONFIGURED");
  expect(error.message).toContain("Compare the clocks");
});

test("a batch of another position is dropped and answered by a seek; the fold goes on where it stood", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  const aggregator = aggregatorOn({ store, log, clock });
  await openAll(aggregator, log);
  await log.deliver(0, 5);
  const seeks: [number, number][] = [];
  const seek = log.seek.bind(log);
  log.seek = (partition, offset) => {
    seeks.push([partition, offset]);
    seek(partition, offset);
  };
  await aggregator.partitions.onEntries(0, log.entries(0).slice(0, 3));
  await aggregator.partitions.onEntries(0, log.entries(0).slice(7, 9));
  expect(aggregator.status().partitions[0]?.nextOffset).toBe(5);
  // A gap inside a batch is seen too: what stands before it is folded.
  await aggregator.partitions.onEntries(0, log.entries(0).slice(5, 9).toSpliced(1, 1));
  expect(seeks).toEqual([
    [0, 5],
    [0, 5],
    [0, 6],
  ]);
  await driveToEnd(aggregator, log);
  expectStoreEqualsLog(store, log);
});

test("G1 a log that never delivers the wanted offset halts instead of asking for ever", async () => {
  const log = trafficLog();
  const aggregator = aggregatorOn({ store: new ModelStore(), log, clock });
  await openAll(aggregator, log);
  const compacted = log.entries(0).slice(4);
  const ask = async (): Promise<void> => {
    for (let n = 0; n < 1_000; n += 1) await aggregator.partitions.onEntries(0, compacted);
  };
  await expect(ask()).rejects.toMatchObject({ code: "LOG_GAP", action: "halt" });
});

test("a partition that is taken away is dropped with what it folded, and opened again from progress", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  const aggregator = aggregatorOn({ store, log, clock });
  await openAll(aggregator, log);
  for (const partition of [0, 1]) await log.deliver(partition, 6);
  log.assign([1]);
  expect(aggregator.status().partitions).toMatchObject([{ partition: 1, nextOffset: 6 }]);
  await aggregator.partitions.onEntries(0, log.entries(0).slice(6)); // a late batch of the lost partition
  await aggregator.flush();
  expect(store.progress.map(({ partition, nextOffset }) => [partition, nextOffset])).toEqual([[1, 6]]);
  await driveToEnd(aggregator, log);
  expectStoreEqualsLog(store, log);
});

test("a partition given back while its first open is under way is opened anew", async () => {
  const log = trafficLog();
  const store = new ModelStore();
  const aggregator = aggregatorOn({ store, log, clock });
  await log.subscribe(aggregator.partitions);
  log.assign([1]);
  log.assign([0, 1]);
  await driveToEnd(aggregator, log);
  expectStoreEqualsLog(store, log);
});
