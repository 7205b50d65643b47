/** The backfill's SQL on the real engine. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { type AnalyticsStore, type AnalyticsValue, BACKFILL_SPAN_MS } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { backfill } from "./backfill.ts";
import { createBackfillStore, type PendingBackfill } from "./backfill-store.ts";
import { HOUR_MS, NOON, STREAM } from "./testing/scenario.ts";

const DAY_MS = 24 * HOUR_MS;
const INFRA = new URL("../../../infra/clickhouse", import.meta.url).pathname;
const W = 1_000_000;
let folder: string;
let analytics: AnalyticsStore;
let close: () => Promise<void>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-backfill-"));
  const opened = await openClickHouse({ path: folder });
  analytics = opened.store;
  close = () => opened.close();
  await migrateClickHouse(analytics, INFRA);
});
afterEach(async () => {
  for (const table of ["raw_events", "control_records", "rollup", "rollup_uniq", "backfills"])
    await analytics.execute(`TRUNCATE TABLE ${table}`);
});
afterAll(async () => {
  await close();
  await rm(folder, { recursive: true });
});

interface Usage {
  readonly offset: number;
  readonly customer?: string;
  readonly occurredAt?: number;
  readonly bookedAt?: number;
  readonly status?: string;
  readonly mode?: string;
  readonly type?: string;
  readonly partition?: number;
  readonly stream?: number;
  readonly data?: object;
}

async function insert(table: string, rows: readonly Readonly<Record<string, AnalyticsValue>>[]): Promise<void> {
  await analytics.insert({ table, columns: Object.keys(rows[0] ?? {}), rows: rows.map((row) => Object.values(row)) });
}

/** One INSERT, hence one part: what is stored twice stays twice until a merge. */
function storeUsage(usage: readonly Usage[]): Promise<void> {
  return insert(
    "raw_events",
    usage.map((each) => ({
      stream: each.stream ?? STREAM.streamId,
      logPartition: each.partition ?? 1,
      logOffset: each.offset,
      mode: each.mode ?? "live",
      customer: each.customer ?? "cus_1",
      source: "api",
      id: `evt-${each.offset}`,
      type: each.type ?? "llm.request",
      occurredAt: each.occurredAt ?? NOON - HOUR_MS,
      receivedAt: NOON,
      bookedAt: each.bookedAt ?? NOON,
      decidedAt: 0,
      status: each.status ?? "counted",
      reason: "",
      payloadHash: 0,
      payload: JSON.stringify(each.data ?? { inputTokens: each.offset }),
    })),
  );
}

function storeControl(
  rows: readonly {
    offset: number;
    kind: string;
    target?: string;
    body?: string;
    partition?: number;
    stream?: number;
  }[],
) {
  return insert(
    "control_records",
    rows.map(({ offset, kind, target = "", body = "", partition = 1, stream = STREAM.streamId }) => ({
      stream,
      logPartition: partition,
      logOffset: offset,
      bookedAt: NOON + 1_000,
      kind,
      target,
      body,
    })),
  );
}

function pendingOf(rule: Parameters<typeof meterVersion>[0] = {}): PendingBackfill {
  const { streamId: stream } = STREAM;
  const sources = [{ stream, belowOffset: W, ver: W }];
  return { stream, partition: 1, version: meterVersion(rule), activatedOffset: W, activatedAt: NOON + 1_000, sources };
}

const run = (pending: PendingBackfill, sliceRows?: number): Promise<number | null> => {
  const store = createBackfillStore({ analytics, stream: STREAM, ...(sliceRows === undefined ? {} : { sliceRows }) });
  return backfill(pending, { store, stream: STREAM, isWanted: () => true });
};

const lane = (): Promise<Record<string, unknown>[]> =>
  analytics.select(
    `SELECT customer, meter, toUnixTimestamp64Milli(toDateTime64(windowStart, 3)) AS window, dims, stream, logPartition, lane,
       toUnixTimestamp(bookedStart) AS booked, ver, counted, voided, sumQty, minQty, maxQty, lastQty, lastOffset
     FROM rollup FINAL ORDER BY customer, window, dims`,
  );

test("G1 G3 counts what stands in front of the activation, each once, and only what is the meter's", async () => {
  const good = [
    { offset: 1, data: { inputTokens: 10 }, bookedAt: NOON - DAY_MS },
    { offset: 2, data: { inputTokens: "0.000000001" } },
    { offset: 9, data: { inputTokens: 7 } },
    { offset: 20, customer: "cus_2", data: { inputTokens: 5 } },
  ];
  const others = [
    { offset: W + 1 },
    { offset: 3, status: "duplicate" },
    { offset: 4, mode: "test" },
    { offset: 5, type: "other" },
    { offset: 6, partition: 0 },
    { offset: 7, stream: 8 },
    { offset: 8, occurredAt: NOON - 3 * HOUR_MS },
    { offset: 10, data: {} },
    { offset: 11, data: { inputTokens: "unreadable" } },
  ];
  await storeUsage([...good, ...others]);
  await storeUsage(good);
  const pending = pendingOf({ rule: { from: new Date(NOON - 2 * HOUR_MS).toISOString() } });
  expect(await run(pending)).toBe(good.length + 2);
  const common = {
    meter: "input_tokens",
    stream: STREAM.streamId,
    logPartition: 1,
    lane: 1,
    dims: [],
    ver: String(W),
    voided: "0",
  };
  const place = { ...common, window: String(NOON - HOUR_MS), booked: NOON / 1_000 };
  expect(await lane()).toEqual([
    {
      ...place,
      customer: "cus_1",
      counted: "3",
      sumQty: "17.000000001",
      minQty: "0.000000001",
      maxQty: "10",
      lastQty: "7",
      lastOffset: "9",
    },
    {
      ...place,
      customer: "cus_2",
      counted: "1",
      sumQty: "5",
      minQty: "5",
      maxQty: "5",
      lastQty: "5",
      lastOffset: "20",
    },
  ]);
});

test("G2 G3 leaves out what was voided or replaced in front of the activation, and nothing that was voided behind it", async () => {
  await storeUsage([1, 2, 3, 4].map((offset) => ({ offset, data: { inputTokens: 10 ** offset } })));
  await storeControl([
    { offset: 5, kind: "void", target: "1" },
    { offset: 6, kind: "replace", target: "2" },
    { offset: 7, kind: "void", target: "3", partition: 0 },
    { offset: W + 1, kind: "void", target: "4" },
  ]);
  expect(await run(pendingOf())).toBe(2);
  expect(await lane()).toMatchObject([{ counted: "2", sumQty: "11000" }]);
});

test("G3 pages and slices change nothing: many customers, days and usage events of one window", async () => {
  const usage = Array.from({ length: 13_000 }, (_, n) => ({
    offset: n,
    // Half of it one customer's in one window: more than a page.
    customer: n % 2 === 0 ? "cus_big" : `cus_${n % 97}`,
    occurredAt: n % 2 === 0 ? NOON - HOUR_MS : NOON - (n % 50) * HOUR_MS,
    bookedAt: NOON - 3 * DAY_MS + Math.floor(n / 2_600) * 12 * HOUR_MS,
    data: { inputTokens: n % 1_000 },
  }));
  await storeUsage(usage);
  const sums = new Map<string, number>();
  for (const { customer, data } of usage) sums.set(customer, (sums.get(customer) ?? 0) + data.inputTokens);
  const wanted = Object.fromEntries([...sums].map(([customer, sum]) => [customer, String(sum)]));
  for (const sliceRows of [100_000_000, 3_000]) {
    await analytics.execute("TRUNCATE TABLE rollup");
    expect(await run(pendingOf(), sliceRows)).toBe(usage.length);
    const rows = await analytics.select<{ customer: string; sum: string }>(
      "SELECT customer, toString(sum(sumQty)) AS sum FROM rollup FINAL WHERE lane = 1 GROUP BY customer",
    );
    expect(Object.fromEntries(rows.map(({ customer, sum }) => [customer, sum]))).toEqual(wanted);
  }
});

test("G3 unique_count: one row for each text, as the live fold would write it", async () => {
  await storeUsage(["a", "b", "a", 1, "1"].map((user, offset) => ({ offset, data: { user } })));
  await run(pendingOf({ rule: { aggregation: "unique_count", value: "/user" } }));
  const [row] = await analytics.select<Record<string, string>>(
    `SELECT toString(uniqExact(valueHash)) AS texts, toString(countIf(valueHash IN (
       reinterpretAsUInt128(substring(SHA256('a'), 1, 16)), reinterpretAsUInt128(substring(SHA256('1'), 1, 16))))) AS known,
       toString(min(toUnixTimestamp(bookedStart))) AS booked FROM rollup_uniq FINAL`,
  );
  expect(row).toEqual({ texts: "3", known: "2", booked: String(NOON / 1_000) });
  expect(await lane()).toMatchObject([{ counted: "5", sumQty: "0" }]);
});

test("usage booked more than 390 days before the activation is left out, however much of it still stands", async () => {
  const edgeAt = NOON + 1_000 - BACKFILL_SPAN_MS;
  await storeUsage([
    { offset: 1, occurredAt: edgeAt, bookedAt: edgeAt, data: { inputTokens: 1 } },
    { offset: 0, occurredAt: edgeAt - 1, bookedAt: edgeAt - 1, data: { inputTokens: 2 } },
  ]);
  expect(await run(pendingOf())).toBe(1);
  expect(await lane()).toMatchObject([{ sumQty: "1" }]);
});

test("finds each activation once, below the stored prefix, until its backfill is recorded", async () => {
  const store = createBackfillStore({ analytics, stream: STREAM });
  const body = ({ mode, meter, version, rule }: PendingBackfill["version"]): string =>
    JSON.stringify({ mode, meter, version, rule });
  const { version } = pendingOf();
  await storeControl([
    { offset: 10, kind: "meter.activate", body: body(version) },
    { offset: 12, kind: "meter.activate", body: body(version) },
    { offset: 13, kind: "meter.activate", body: body({ ...version, version: 2 }) },
    { offset: 14, kind: "meter.activate", body: body({ ...version, mode: "test" }) },
    { offset: 15, kind: "meter.activate", body: body({ ...version, version: 3 }), partition: 0 },
    { offset: 20, kind: "meter.activate", body: body({ ...version, version: 4 }) },
  ]);
  const offsets = async (): Promise<number[]> =>
    (await store.readPending({ partition: 1, belowOffset: 20 })).map(({ activatedOffset }) => activatedOffset);
  expect(await offsets()).toEqual([10, 13, 14]);
  const [first] = await store.readPending({ partition: 1, belowOffset: 20 });
  expect(first).toEqual({
    ...pendingOf(),
    activatedOffset: 10,
    sources: [{ stream: STREAM.streamId, belowOffset: 10, ver: 10 }],
  });
  if (first !== undefined) await store.recordBackfills([first]);
  expect(await offsets()).toEqual([13, 14]);
});

test("G1 G3 usage of the streams before belongs to the partition of the same number, and so do their unfinished backfills", async () => {
  const stream = {
    ...STREAM,
    streamId: 30,
    partitionCount: 4,
    predecessors: [
      { streamId: 10, partitionCount: 1, isLost: true },
      { streamId: 20, partitionCount: 2, isLost: false },
    ],
  };
  await storeUsage([
    { stream: 10, partition: 0, offset: 5, data: { inputTokens: 1 } },
    { stream: 20, partition: 0, offset: 50, data: { inputTokens: 10 } },
    { stream: 20, partition: 1, offset: 50, data: { inputTokens: 100 } },
    { stream: 20, partition: 1, offset: 60, data: { inputTokens: 1_000 } },
    { stream: 20, partition: 1, offset: 61, data: { inputTokens: 10_000 } },
    { stream: 30, partition: 1, offset: 2, data: { inputTokens: 100_000 } },
    { stream: 30, partition: 3, offset: 2, data: { inputTokens: 1_000_000 } },
  ]);
  const bodyOf = (meter: string): string => JSON.stringify({ ...meterVersion({ meter }) });
  await storeControl([
    { stream: 20, partition: 1, offset: 55, kind: "meter.activate", body: bodyOf("unfinished") },
    { stream: 20, partition: 1, offset: 62, kind: "void", target: "61" },
    ...[0, 1, 3].map((partition) => ({
      stream: 30,
      partition,
      offset: 9,
      kind: "meter.activate",
      body: bodyOf("fresh"),
    })),
  ]);
  const store = createBackfillStore({ analytics, stream });
  for (let round = 0; round < 2; round += 1) {
    for (const partition of [0, 1, 2, 3]) {
      const all = await store.readPending({ partition, belowOffset: 1_000 });
      expect(round === 0 || all.length === 0).toBe(true);
      for (const pending of all) await backfill(pending, { store, stream, isWanted: () => true });
      if (all.length > 0) await store.recordBackfills(all);
    }
  }
  const rows = await analytics.select(
    `SELECT meter, stream, logPartition AS partition, toUInt32(sumQty) AS sum, toUInt32(ver) AS ver FROM rollup FINAL
     ORDER BY meter, stream, partition`,
  );
  expect(rows).toEqual([
    { meter: "fresh", stream: 10, partition: 0, sum: 1, ver: 0 },
    { meter: "fresh", stream: 20, partition: 0, sum: 10, ver: 0 },
    { meter: "fresh", stream: 20, partition: 1, sum: 1_100, ver: 0 },
    { meter: "fresh", stream: 30, partition: 1, sum: 100_000, ver: 9 },
    { meter: "fresh", stream: 30, partition: 3, sum: 1_000_000, ver: 9 },
    { meter: "unfinished", stream: 20, partition: 1, sum: 100, ver: 55 },
  ]);
});
