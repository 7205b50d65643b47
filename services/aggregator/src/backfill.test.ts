import { compileMeter, type LogRecord, type MeterVersion, windowStartOf } from "@tallyhouse/domain";
import { MemoryLog, meterVersion } from "@tallyhouse/testkit";
import fc from "fast-check";
import { expect, test } from "vitest";
import { scaledOf } from "./result-store.ts";
import { driveToEnd, openAll } from "./testing/drive.ts";
import { Fault, type FaultMode, mortal, mortalBackfills } from "./testing/faults.ts";
import { ModelBackfills } from "./testing/model-backfills.ts";
import { ModelStore } from "./testing/model-store.ts";
import {
  activation,
  aggregatorOn,
  controlRecord,
  HOUR_MS,
  idsOf,
  ManualClock,
  NOON,
  STREAM,
  usageRecord,
} from "./testing/scenario.ts";
import { clockAfterTraffic } from "./testing/traffic.ts";

const SUM = meterVersion({ meter: "sum", rule: { dimensions: { model: "/model" } } });
const LATEST = meterVersion({ meter: "latest", rule: { aggregation: "latest" } });
const FUTURE = meterVersion({ meter: "future", rule: { from: new Date(NOON + 40 * HOUR_MS).toISOString() } });
const METERS = [SUM, LATEST, FUTURE];

/** Usage of three customers and two windows in each partition; meters join in the middle, one of them twice. */
function lateMeterLog(): MemoryLog {
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock: clockAfterTraffic(), isManual: true });
  for (let partition = 0; partition < STREAM.partitionCount; partition += 1) {
    const usage = ["cus_a", "cus_b", "cus_c"].flatMap((customer) =>
      idsOf(partition, 6, { customer }).map((id, n) =>
        usageRecord({
          id,
          customer,
          occurredAt: NOON - (n % 2) * HOUR_MS + n * 1_000,
          // The last one is a text that no sum can read: counted before the meter existed, it is none of its business.
          data: { model: n % 3 === 0 ? "small" : "large", inputTokens: n === 2 ? "none" : `${n}.5` },
        }),
      ),
    );
    const records: LogRecord[] = [
      ...usage.slice(0, 9),
      controlRecord(activation(SUM), partition),
      ...usage.slice(9, 12),
      controlRecord(activation(LATEST), partition),
      controlRecord(activation(SUM), partition),
      controlRecord(activation(FUTURE), partition),
      ...usage.slice(12),
    ];
    for (const [place, record] of records.entries()) log.appendAt(NOON + place * 120_000, record);
  }
  return log;
}

/** What the newest rows of both lanes add up to, by meter, partition, customer, window and dims. */
function storedTotals(store: ModelStore): Record<string, unknown> {
  const totals: Record<string, { counted: number; sum: bigint; last: string; at: string }> = {};
  for (const row of store.newestRollups()) {
    const key = [row.meter, row.logPartition, row.customer, row.windowStart, ...row.dims].join("|");
    const before = totals[key];
    const at = `${row.lastAt}/${String(row.lastOffset).padStart(6, "0")}`;
    totals[key] = {
      counted: (before?.counted ?? 0) + row.counted,
      sum: (before?.sum ?? 0n) + scaledOf(row.sumQty),
      ...(before === undefined || at > before.at ? { last: row.lastQty, at } : before),
    };
    totals[key] = {
      ...totals[key],
      counted: (before?.counted ?? 0) + row.counted,
      sum: (before?.sum ?? 0n) + scaledOf(row.sumQty),
    };
  }
  return totals;
}

/** The same, counted from the raw rows as if every meter had been there from the start. */
function recounted(store: ModelStore, meters: readonly MeterVersion[]): Record<string, unknown> {
  const totals: Record<string, { counted: number; sum: bigint; last: string; at: string }> = {};
  for (const version of meters) {
    const meter = compileMeter(version);
    for (const row of store.rows("raw_events")) {
      if (row.status !== "counted" || row.occurredAt < meter.fromAt) continue;
      const data = JSON.parse(row.payload) as Record<string, unknown>;
      const value = Number(data["inputTokens"]);
      if (Number.isNaN(value)) continue;
      const dims = version.meter === "sum" ? [String(data["model"])] : [];
      const key = [version.meter, row.logPartition, row.customer, windowStartOf(row.occurredAt) / 1_000, ...dims].join(
        "|",
      );
      const at = `${row.occurredAt}/${String(row.logOffset).padStart(6, "0")}`;
      const before = totals[key];
      const newer =
        before === undefined || at > before.at ? { last: String(value), at } : { last: before.last, at: before.at };
      totals[key] = {
        counted: (before?.counted ?? 0) + 1,
        sum: (before?.sum ?? 0n) + BigInt(value * 10) * 100_000_000n,
        ...newer,
      };
    }
  }
  return totals;
}

function expectTotals(store: ModelStore): void {
  expect(storedTotals(store)).toEqual(recounted(store, METERS));
}

test("G1 G3 usage in front of an activation is counted, as if the meter had been there from the start", async () => {
  const log = lateMeterLog();
  const store = new ModelStore();
  const backfills = new ModelBackfills(store);
  await driveToEnd(aggregatorOn({ store, log, backfills, clock: clockAfterTraffic() }), log);
  expectTotals(store);
  const lane1 = store.rows("rollup").filter(({ lane }) => lane === 1);
  expect(lane1.length).toBeGreaterThan(8);
  for (const row of lane1) {
    const place = row.meter === "sum" ? 9 : 13;
    const bookedAt = NOON + place * 120_000;
    expect([row.ver, row.bookedStart]).toEqual([place, Math.floor(bookedAt / 900_000) * 900]);
  }
  // Each activation once, the repeated one too; and one whose `from` precedes nothing.
  expect(backfills.done.map(({ partition, version }) => `${partition}/${version.meter}`).sort()).toEqual([
    "0/future",
    "0/latest",
    "0/sum",
    "1/future",
    "1/latest",
    "1/sum",
  ]);
});

test("G1 G3 a backfill is done once: the next start finds nothing to do", async () => {
  const log = lateMeterLog();
  const store = new ModelStore();
  const backfills = new ModelBackfills(store);
  await driveToEnd(aggregatorOn({ store, log, backfills, clock: clockAfterTraffic() }), log);
  const done = backfills.done.length;
  const fault = new Fault(Number.POSITIVE_INFINITY, "before");
  await driveToEnd(
    aggregatorOn({ store, log, backfills: mortalBackfills(backfills, fault), clock: clockAfterTraffic() }),
    log,
  );
  expect(backfills.done.length).toBe(done);
  expect([...new Set(fault.calls)]).toEqual(["readPending"]);
});

test.each<FaultMode>(["before", "half", "after"])(
  "G1 G2 G3 a kill at any step of a backfill (%s its effect) counts nothing twice and forgets nothing",
  async (mode) => {
    const killed = new Set<string>();
    for (let n = 1; ; n += 1) {
      const log = lateMeterLog();
      const store = new ModelStore();
      const backfills = new ModelBackfills(store);
      const clock = clockAfterTraffic();
      const fault = new Fault(n, mode);
      const healthy = new Fault(Number.POSITIVE_INFINITY, "before");
      const ports = { ...mortal({ store, log }, healthy), backfills: mortalBackfills(backfills, fault), clock };
      const died = await driveToEnd(aggregatorOn(ports), log).then(
        () => "ended",
        (error: Error) => error.message,
      );
      if (!fault.isHit) break;
      expect(died).toContain("killed at call");
      killed.add(String(fault.calls.at(-1)));
      await driveToEnd(aggregatorOn({ store, log, backfills, clock }), log);
      expectTotals(store);
    }
    expect([...killed].sort()).toEqual([
      "insertLane rollup",
      "readPage",
      "readPending",
      "readSlices",
      "recordBackfill",
    ]);
  },
);

test("G2 G3 two processes backfill the same, at any pace, and one of them finishes long after the other", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          actor: fc.nat(1),
          does: fc.constantFrom("fold", "flush", "backfill"),
          partition: fc.nat(1),
          records: fc.integer({ min: 1, max: 9 }),
        }),
        { maxLength: 30 },
      ),
      async (commands) => {
        const store = new ModelStore();
        const backfills = new ModelBackfills(store);
        const clock = clockAfterTraffic();
        const first = lateMeterLog();
        const logs = [first, first.reader()] as const;
        const actors = logs.map((log) => aggregatorOn({ store, log, backfills, clock }));
        for (const [at, actor] of actors.entries()) await openAll(actor, logs[at] as MemoryLog);
        const running: Promise<void>[] = [];
        for (const { actor, does, partition, records } of commands) {
          if (does === "fold") await logs[actor]?.deliver(partition, records);
          if (does === "flush") await actors[actor]?.flush();
          // Not awaited: the other one goes on meanwhile.
          if (does === "backfill") running.push(actors[actor]?.backfill() ?? Promise.resolve());
        }
        await Promise.all(running);
        await driveToEnd(aggregatorOn({ store, log: first, backfills, clock }), first);
        await actors[1]?.flush();
        await actors[1]?.backfill();
        expectTotals(store);
      },
    ),
    { numRuns: 60 },
  );
});

test("a partition that is taken away ends its backfill, and whoever gets it does it", async () => {
  const log = lateMeterLog();
  const store = new ModelStore();
  const backfills = new ModelBackfills(store);
  const clock: ManualClock = clockAfterTraffic();
  const losing = aggregatorOn({
    store,
    log,
    clock,
    backfills: {
      ...mortalBackfills(backfills, new Fault(Number.POSITIVE_INFINITY, "before")),
      readPage: (query) => {
        log.assign([]);
        return backfills.readPage(query);
      },
    },
  });
  await openAll(losing, log);
  for (const partition of [0, 1]) await log.deliver(partition);
  await losing.flush();
  await losing.backfill();
  expect(backfills.done).toEqual([]);
  await driveToEnd(aggregatorOn({ store, log, backfills, clock }), log);
  expectTotals(store);
});
