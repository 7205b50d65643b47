/** The aggregator on the real engine and the real embedded log: its SQL, its restarts, and the auditor's road to the same totals. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AggregatorConfig, AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import {
  type AnalyticsStore,
  type ControlFact,
  type ControlKey,
  encodeControl,
  encodeUsageEvent,
  type LogRecord,
  type MeterVersion,
  type OpenedEventLog,
  partitionOfEvent,
  recordKeyOf,
  type UsageEvent,
} from "@tallyhouse/domain";
import { openEmbeddedLog } from "@tallyhouse/eventlog";
import { createLogger, createMetrics, systemClock } from "@tallyhouse/runtime";
import { meterVersion, until, usageEvent } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";

const PARTITIONS = 3;
const CUSTOMERS = 7;
const EVENTS = 600;
const MIGRATIONS = new URL("../../infra/clickhouse", import.meta.url).pathname;
const controlKey: ControlKey = { name: "test", secret: Buffer.from("signing key of this test") };
const METER = meterVersion({ meter: "tokens", rule: { dimensions: { model: "/model" } } });

let folder: string;
let analytics: AnalyticsStore;
let closeAnalytics: () => Promise<void>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-aggregator-"));
  const opened = await openClickHouse({ path: join(folder, "clickhouse") });
  analytics = opened.store;
  closeAnalytics = () => opened.close();
  await migrateClickHouse(analytics, MIGRATIONS);
});

afterAll(async () => {
  await closeAnalytics();
  await rm(folder, { recursive: true });
});

function config(streamId: number, predecessorIds: readonly number[]): AggregatorConfig {
  return {
    ...AggregatorConfigSchema.parse({ FLUSH_INTERVAL_MS: 20 }),
    stream: {
      streamId,
      partitionCount: PARTITIONS,
      bookingWindowSeconds: 900,
      hashSeed: Buffer.from("0123456789abcdef"),
      predecessors: predecessorIds.map((id) => ({ streamId: id, partitionCount: PARTITIONS, isLost: false })),
    },
    controlKeys: [controlKey],
  };
}

function openLog(streamId: number): Promise<OpenedEventLog> {
  const name = `stream-${streamId}`;
  return openEmbeddedLog({ folder: join(folder, name), name, partitionCount: PARTITIONS, clock: systemClock });
}

function recordOf(event: UsageEvent): LogRecord {
  const partition = partitionOfEvent(event, PARTITIONS);
  return { partition, key: recordKeyOf(event), value: encodeUsageEvent(event, {}), headers: {} };
}

/** The n-th usage event; 0.1 more for each, so that a float sum would show. */
function nthEvent(n: number, at: number): UsageEvent {
  const customer = `cus_${n % CUSTOMERS}`;
  const data = { inputTokens: `${n}.1`, model: n % 2 === 0 ? "small" : "large" };
  return usageEvent({ id: `evt-${n}`, customer, occurredAt: at, data });
}

/** One process: opens the log, runs an aggregator, and closes both at its stop. */
async function start(streamId: number, store: AnalyticsStore = analytics, predecessorIds: readonly number[] = []) {
  const opened = await openLog(streamId);
  const { log } = opened;
  const aggregator = buildAggregator(config(streamId, predecessorIds), {
    log,
    analytics: store,
    clock: systemClock,
    random: () => 0.5,
    logger: createLogger({ level: "silent", name: "test" }),
    metrics: createMetrics(),
  });
  const stop = new AbortController();
  const ended = aggregator.run(stop.signal).then(
    () => null,
    (error: unknown) => error,
  );
  const isStored = async (): Promise<boolean> => {
    // Status before bounds: a stored original has its redirected copy in the log already.
    const { partitions, isReady } = aggregator.status();
    const ends = await Promise.all(Array.from({ length: PARTITIONS }, (_, partition) => log.bounds(partition)));
    return isReady && partitions.every(({ partition, storedOffset }) => storedOffset === ends[partition]?.endOffset);
  };
  return {
    append: (records: readonly LogRecord[]) => log.append(records),
    untilStored: () => until(isStored, { timeoutMs: 30_000, what: "everything is stored" }),
    /** Waits for the process to die by itself; what killed it. */
    async untilDead(): Promise<unknown> {
      const error = await ended;
      await opened.close();
      return error;
    },
    async stop(): Promise<void> {
      stop.abort();
      const error = await ended;
      await opened.close();
      expect(error).toBe(null);
    },
  };
}

interface Total {
  readonly customer: string;
  readonly model: string;
  readonly events: string;
  readonly quantity: string;
}

/** Totals of the rollups, and of the raw events by SQL that shares nothing with the fold. */
async function totals(streamId: number): Promise<{ rollup: Total[]; raw: Total[] }> {
  const rollup = await analytics.select<Total>(
    `SELECT customer, dims[1] AS model, toString(sum(counted)) AS events, toString(sum(sumQty)) AS quantity
     FROM rollup FINAL WHERE stream = {stream:UInt16} AND mode = 'live' GROUP BY customer, model ORDER BY customer, model`,
    { stream: streamId },
  );
  const raw = await analytics.select<Total>(
    `SELECT customer, JSONExtractString(payload, 'model') AS model, toString(count()) AS events,
       toString(sum(JSONExtract(payload, 'inputTokens', 'Decimal(38,9)'))) AS quantity
     FROM raw_events FINAL WHERE stream = {stream:UInt16} AND mode = 'live' AND status = 'counted'
     GROUP BY customer, model ORDER BY customer, model`,
    { stream: streamId },
  );
  return { rollup, raw };
}

/** Checks A1 and A2 of the auditor: holes, and copies that differ. */
async function expectAuditPasses(streamId: number): Promise<void> {
  const holes = await analytics.select(
    `SELECT logPartition FROM raw_events WHERE stream = {stream:UInt16} GROUP BY logPartition
     HAVING max(logOffset) + 1 != uniqExact(logOffset)`,
    { stream: streamId },
  );
  expect(holes).toEqual([]);
  const differing = await analytics.select(
    `SELECT logPartition, logOffset FROM raw_events WHERE stream = {stream:UInt16}
     GROUP BY logPartition, logOffset HAVING uniqExact(sipHash128(*)) > 1`,
    { stream: streamId },
  );
  expect(differing).toEqual([]);
}

function expectedTotals(): Total[] {
  const sums = new Map<string, { events: number; tenths: number }>();
  for (let n = 0; n < EVENTS; n += 1) {
    const key = `cus_${n % CUSTOMERS}|${n % 2 === 0 ? "small" : "large"}`;
    const before = sums.get(key) ?? { events: 0, tenths: 0 };
    sums.set(key, { events: before.events + 1, tenths: before.tenths + n * 10 + 1 });
  }
  return [...sums]
    .map(([key, { events, tenths }]) => {
      const [customer = "", model = ""] = key.split("|");
      const rest = tenths % 10;
      const quantity = `${Math.floor(tenths / 10)}${rest === 0 ? "" : `.${rest}`}`;
      return { customer, model, events: String(events), quantity };
    })
    .sort((a, b) => (`${a.customer}|${a.model}` < `${b.customer}|${b.model}` ? -1 : 1));
}

function activations(version: MeterVersion): LogRecord[] {
  return Array.from({ length: PARTITIONS }, (_, partition) =>
    encodeControl({ fact: { kind: "meter.activate", ...version }, partition, key: controlKey }),
  );
}

test("G1 G2 G3 restarts, duplicates and misplaced records leave the exact totals, in rollups and in raw events", async () => {
  const at = systemClock.now();
  const records = Array.from({ length: EVENTS }, (_, n) => recordOf(nthEvent(n, at - n)));
  const thirds = [records.slice(0, 200), records.slice(200, 400), records.slice(400)];
  for (const [round, third] of thirds.entries()) {
    const running = await start(1);
    await running.append(activations(METER));
    await running.append(third);
    // Everything of the rounds before comes again, half of it into a wrong partition.
    const again = thirds.slice(0, round).flat();
    await running.append(
      again.map((record, n) => (n % 2 === 0 ? record : { ...record, partition: (record.partition + 1) % PARTITIONS })),
    );
    await running.untilStored();
    await running.stop();
  }
  const { rollup, raw } = await totals(1);
  expect(rollup).toEqual(expectedTotals());
  expect(raw).toEqual(expectedTotals());
  await expectAuditPasses(1);
  const statuses = await analytics.select<{ status: string; records: string }>(
    `SELECT status, toString(count()) AS records FROM raw_events FINAL
     WHERE stream = 1 AND status != 'control' GROUP BY status ORDER BY status`,
  );
  // 200 and then 400 came again; the misplaced half reached its partition by way of a redirected copy.
  expect(Object.fromEntries(statuses.map(({ status, records }) => [status, Number(records)]))).toEqual({
    counted: EVENTS,
    duplicate: 600,
    redirected: 300,
  });
});

test("G1 G2 G3 a store that dies after any insert: the next start ends with the same totals", async () => {
  const at = systemClock.now();
  const first = await start(2);
  await first.append(activations(METER));
  await first.append(Array.from({ length: EVENTS / 2 }, (_, n) => recordOf(nthEvent(n, at - n))));
  await first.untilStored();
  await first.stop();
  for (const [round, table] of ["raw_events", "identities", "rollup", "control_records", "progress"].entries()) {
    const dying: AnalyticsStore = {
      select: (sql, params) => analytics.select(sql, params),
      scan: (sql, params, visit) => analytics.scan(sql, params, visit),
      execute: (sql) => analytics.execute(sql),
      async insert(input) {
        await analytics.insert(input);
        if (input.table === table) throw new Error(`killed after the insert into ${table}`);
      },
    };
    const running = await start(2, dying);
    // Usage of mode test and its meter: something for every table in every round, and nothing in the live totals.
    await running.append(activations({ ...METER, mode: "test", version: round + 1 }));
    await running.append([recordOf({ ...nthEvent(round, at), mode: "test" })]);
    await running.append(
      Array.from({ length: EVENTS / 10 }, (_, n) => recordOf(nthEvent(EVENTS / 2 + round * (EVENTS / 10) + n, at))),
    );
    expect(String(await running.untilDead())).toContain(`killed after the insert into ${table}`);
  }
  const last = await start(2);
  await last.untilStored();
  await last.stop();
  const { rollup, raw } = await totals(2);
  expect(rollup).toEqual(expectedTotals());
  expect(raw).toEqual(expectedTotals());
  await expectAuditPasses(2);
});

/** The usage event as the only one of its record, and where it was counted. */
async function countedOffset(streamId: number, id: string): Promise<number> {
  const [row] = await analytics.select<{ at: string }>(
    "SELECT toString(logOffset) AS at FROM raw_events WHERE stream = {stream:UInt16} AND id = {id:String} AND status = 'counted'",
    { stream: streamId, id },
  );
  return Number(row?.at);
}

/** What the tables say about corrected usage: rollups, the usage events without what was taken back, texts told apart. */
async function correctedTotals(): Promise<Record<"rollup" | "events" | "users", string>> {
  const [row] = await analytics.select<Record<"rollup" | "events" | "users", string>>(
    `SELECT
       (SELECT concat(toString(sum(counted) - sum(voided)), ' ', toString(sum(sumQty))) FROM rollup FINAL
        WHERE stream IN (3, 4) AND meter = 'tokens') AS rollup,
       (SELECT concat(toString(count()), ' ', toString(sum(JSONExtract(payload, 'inputTokens', 'Decimal(38,9)')))) FROM counted_events
        WHERE stream IN (3, 4)) AS events,
       (SELECT toString(uniqExact(valueHash)) FROM rollup_uniq WHERE meter = 'users'
        AND valueHash IN (SELECT reinterpretAsUInt128(substring(SHA256(JSONExtractString(payload, 'user')), 1, 16)) FROM raw_events
                          WHERE stream IN (3, 4))) AS users`,
  );
  if (row === undefined) throw new Error("no totals");
  return row;
}

test("G1 G2 corrections survive restarts and a change of the stream, in rollups and in the usage events", async () => {
  const at = systemClock.now();
  const users = meterVersion({ meter: "users", rule: { aggregation: "unique_count", value: "/user" } });
  const nth = (n: number): UsageEvent =>
    usageEvent({
      id: `own-${n}`,
      occurredAt: at,
      data: { inputTokens: `${n}.5`, model: "small", user: `user ${n % 4}` },
    });
  const control = (fact: ControlFact, partition: number): LogRecord =>
    encodeControl({ fact, partition, key: controlKey });
  const text = (event: UsageEvent): string => encodeUsageEvent(event, {}).toString("utf8");
  const partitionOf = (event: UsageEvent): number => partitionOfEvent(event, PARTITIONS);
  const all = Array.from({ length: 30 }, (_, n) => recordOf(nth(n)));

  const first = await start(3);
  await first.append([...activations(METER), ...activations(users), ...all]);
  await first.untilStored();
  await first.stop();
  expect(await correctedTotals()).toEqual({ rollup: "30 450", events: "30 450", users: "4" });

  const voided = nth(7);
  const replaced = nth(11);
  // A replacement is in the partition of what it replaces.
  const replacement = Array.from({ length: 50 }, (_, n) => ({
    ...nth(100 + n),
    data: { inputTokens: "1000.25", user: "eve" },
  }))
    .filter((event) => partitionOf(event) === partitionOf(replaced))
    .at(0);
  if (replacement === undefined) throw new Error("no identity for the replacement");
  const corrections = [
    control({ kind: "void", offset: await countedOffset(3, voided.id), event: text(voided) }, partitionOf(voided)),
    control(
      {
        kind: "replace",
        offset: await countedOffset(3, replaced.id),
        event: text(replaced),
        replacement: text(replacement),
      },
      partitionOf(replaced),
    ),
  ];
  const until = new Date(at + 3_600_000).toISOString();
  for (let round = 0; round < 2; round += 1) {
    const again = await start(3);
    await again.append(corrections);
    await again.append(
      Array.from({ length: PARTITIONS }, (_, partition) =>
        control({ kind: "meter.end", mode: "live", meter: "users", version: 1, until }, partition),
      ),
    );
    await again.untilStored();
    await again.stop();
    expect(await correctedTotals()).toEqual({ rollup: "29 1431.25", events: "29 1431.25", users: "5" });
  }
  const [kinds] = await analytics.select<{ kinds: readonly string[] }>(
    "SELECT arraySort(groupArray(concat(kind, ' ', target != '' ? 'of one' : 'of all'))) AS kinds FROM control_records WHERE stream = 3",
  );
  expect(kinds?.kinds).toEqual([
    ...Array.from({ length: 6 }, () => "meter.activate of all"),
    ...Array.from({ length: 3 }, () => "meter.end of all"),
    "replace of one",
    "void of one",
  ]);

  const tooSoon = await start(4, analytics, [3]);
  expect(await tooSoon.untilDead()).toMatchObject({ code: "STREAM_MISMATCH", action: "halt" });
  const closing = await start(3);
  await closing.append(Array.from({ length: PARTITIONS }, (_, n) => control({ kind: "stream.close", stream: 3 }, n)));
  await closing.untilStored();
  await closing.stop();
  const next = await start(4, analytics, [3]);
  await next.append([...all, ...corrections, recordOf({ ...nth(200), occurredAt: at })]);
  await next.untilStored();
  await next.stop();
  expect(await correctedTotals()).toEqual({ rollup: "30 1631.75", events: "30 1631.75", users: "5" });
});
