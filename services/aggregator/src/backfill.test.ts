import {
  compileMeter,
  encodeUsageEvent,
  type LogRecord,
  type MeterVersion,
  type UsageEvent,
  windowStartOf,
} from "@tallyhouse/domain";
import { MemoryLog, meterVersion, usageEvent } from "@tallyhouse/testkit";
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
  NOON,
  STREAM,
  usageRecord,
} from "./testing/scenario.ts";
import { clockAfterTraffic } from "./testing/traffic.ts";

const SUM = meterVersion({ meter: "sum", rule: { dimensions: { model: "/model" } } });
const LATEST = meterVersion({ meter: "latest", rule: { aggregation: "latest" } });
const FUTURE = meterVersion({ meter: "future", rule: { from: new Date(NOON + 40 * HOUR_MS).toISOString() } });
const METERS = [SUM, LATEST, FUTURE];

/** Usage of three customers and two windows in a partition, in the order of the log. */
function usageOf(partition: number): UsageEvent[] {
  return ["cus_a", "cus_b", "cus_c"].flatMap((customer) =>
    idsOf(partition, 6, { customer }).map((id, n) =>
      usageEvent({
        id,
        customer,
        occurredAt: NOON - (n % 2) * HOUR_MS + n * 1_000,
        // A text that no sum can read: counted before the meter existed, it is none of its business.
        data: { model: n % 3 === 0 ? "small" : "large", inputTokens: n === 2 ? "none" : `${n}.5` },
      }),
    ),
  );
}

/** Places of the activations in each partition of {@link lateMeterLog}. */
const PLACES: Readonly<Record<string, number>> = { sum: 10, latest: 14, future: 16 };

/** Meters join in the middle, one of them twice; usage in front of them is voided in front of them, behind them, and twice. */
function lateMeterLog(): MemoryLog {
  const log = new MemoryLog({ partitionCount: STREAM.partitionCount, clock: clockAfterTraffic(), isManual: true });
  for (let partition = 0; partition < STREAM.partitionCount; partition += 1) {
    const usage = usageOf(partition);
    const records = usage.map((event) => usageRecord(event));
    const voidOf = (offset: number): LogRecord => {
      const event = encodeUsageEvent(usage[offset] as UsageEvent, {}).toString("utf8");
      return controlRecord({ kind: "void", offset, event }, partition);
    };
    const all: LogRecord[] = [
      ...records.slice(0, 9),
      voidOf(0),
      controlRecord(activation(SUM), partition),
      ...records.slice(9, 12),
      controlRecord(activation(LATEST), partition),
      controlRecord(activation(SUM), partition),
      controlRecord(activation(FUTURE), partition),
      ...records.slice(12, 16),
      voidOf(1),
      voidOf(2),
      voidOf(0),
      voidOf(1),
      ...records.slice(16),
    ];
    for (const [place, record] of all.entries()) log.appendAt(NOON + place * 120_000, record);
  }
  return log;
}

interface Total {
  counted: number;
  sum: bigint;
  /** Of the newest usage event; null where one was taken back, because a reader asks the raw events then. */
  last: string | null;
  at: string;
}
const placeOf = (at: number, offset: number): string => `${at}/${String(offset).padStart(6, "0")}`;

/** What the newest rows of both lanes add up to, by meter, partition, customer, window and dims. */
function storedTotals(store: ModelStore): Map<string, Total> {
  const totals = new Map<string, Total>();
  for (const row of store.newestRollups()) {
    const key = [row.meter, row.logPartition, row.customer, row.windowStart, ...row.dims].join("|");
    const before = totals.get(key) ?? { counted: 0, sum: 0n, last: "", at: "" };
    const at = placeOf(row.lastAt, row.lastOffset);
    const newest = row.counted > 0 && at > before.at ? { last: row.lastQty, at } : before;
    totals.set(key, {
      counted: before.counted + row.counted - row.voided,
      sum: before.sum + scaledOf(row.sumQty),
      last: row.voided > 0 || before.last === null ? null : newest.last,
      at: newest.at,
    });
  }
  return totals;
}

/** The same, counted from the raw rows as if every meter had been there from the start. */
function recounted(store: ModelStore, meters: readonly MeterVersion[]): Map<string, Total> {
  const totals = new Map<string, Total>();
  const voided = new Set(
    store
      .rows("control_records")
      .flatMap(({ kind, logPartition, target }) => (kind === "void" ? [`${logPartition}/${target}`] : [])),
  );
  for (const version of meters) {
    const meter = compileMeter(version);
    for (const row of store.rows("raw_events")) {
      if (row.status !== "counted" || row.occurredAt < meter.fromAt) continue;
      if (voided.has(`${row.logPartition}/${row.logOffset}`)) continue;
      const data = JSON.parse(row.payload) as Record<string, unknown>;
      const value = Number(data["inputTokens"]);
      if (Number.isNaN(value)) continue;
      const dims = version.meter === "sum" ? [String(data["model"])] : [];
      const windowStart = windowStartOf(row.occurredAt) / 1_000;
      const key = [version.meter, row.logPartition, row.customer, windowStart, ...dims].join("|");
      const before = totals.get(key) ?? { counted: 0, sum: 0n, last: "", at: "" };
      const at = placeOf(row.occurredAt, row.logOffset);
      const newest = at > before.at ? { last: String(value), at } : before;
      const sum = before.sum + BigInt(value * 10) * 100_000_000n;
      totals.set(key, { counted: before.counted + 1, sum, last: newest.last, at: newest.at });
    }
  }
  return totals;
}

function expectTotals(store: ModelStore): void {
  const stored = [...storedTotals(store)].filter(([, { counted }]) => counted > 0);
  const wanted = recounted(store, METERS);
  expect(stored.map(([key]) => key).sort()).toEqual([...wanted.keys()].sort());
  for (const [key, total] of stored) {
    const { counted, sum, last } = wanted.get(key) as Total;
    expect([key, total.counted, total.sum, total.last]).toEqual([key, counted, sum, total.last === null ? null : last]);
  }
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
    const place = PLACES[row.meter] ?? -1;
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
      "recordBackfills",
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
  const clock = clockAfterTraffic();
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
