/** The rows that benchmarks store by SQL are those that the fold stores. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { migrateClickHouse, openClickHouse, type OpenedClickHouse } from "@tallyhouse/clickhouse";
import { type AnalyticsStore, encodeControl, recordKeyOf } from "@tallyhouse/domain";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { MemoryLog, until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  MONTH_DAYS,
  MONTH_METERS,
  MONTH_STREAM,
  storeActivations,
  storeDay,
  type StoredMonth,
} from "./stored-usage.ts";

const MIGRATIONS = fileURLToPath(new URL("../../infra/clickhouse", import.meta.url));
const MONTH: StoredMonth = { events: 4_000, customers: 40, seed: 7, fromAt: Date.UTC(2026, 9, 20) };
const CONTROL_KEY = { name: "bench", secret: Buffer.from("a signing key of tests") };

let folder: string;
let opened: OpenedClickHouse;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-stored-"));
  opened = await openClickHouse({ path: folder });
  await migrateClickHouse(opened.store, MIGRATIONS);
});
afterAll(async () => {
  await opened.close();
  await rm(folder, { recursive: true });
});

/** Hashes are keyed, `ver` and `writer` are of the process that stores; of the control record's own raw row there is no copy. */
const TABLES = {
  raw_events: { except: "payloadHash", where: "status != 'control'" },
  identities: { except: "fpHigh, fpLow, payloadCheck", where: "1" },
  rollup: { except: "ver", where: "ver > lastOffset" },
  progress: { except: "lastRecord, writer, storedAt", where: "1" },
  backfills: { except: "ver", where: "1" },
} as const;

async function rowsOf(analytics: AnalyticsStore): Promise<Record<string, readonly string[]>> {
  const found: Record<string, readonly string[]> = {};
  for (const [table, { except, where }] of Object.entries(TABLES)) {
    const rows = await analytics.select<object>(`SELECT * EXCEPT (${except}) FROM ${table} FINAL WHERE ${where}`);
    found[table] = rows.map((row) => JSON.stringify(row)).sort();
  }
  return found;
}

/** The stored raw rows as a log, and what the real fold makes of it. */
async function foldAgain(analytics: AnalyticsStore): Promise<void> {
  const clock = { now: () => MONTH.fromAt + 31 * 86_400_000 };
  const log = new MemoryLog({ partitionCount: MONTH_STREAM.partitionCount, clock });
  for (let partition = 0; partition < log.partitionCount; partition += 1)
    for (const version of MONTH_METERS)
      log.appendAt(
        MONTH.fromAt,
        encodeControl({ fact: { kind: "meter.activate", ...version }, partition, key: CONTROL_KEY }),
      );
  const rows = await analytics.select<
    Record<"customer" | "id" | "time" | "received" | "payload", string> & { partition: number }
  >(
    `SELECT customer, id, logPartition AS partition, formatDateTime(occurredAt, '%Y-%m-%dT%H:%i:%S.', 'UTC') || leftPad(toString(toUnixTimestamp64Milli(occurredAt) % 1000), 3, '0') || 'Z' AS time,
       toString(toUnixTimestamp64Milli(receivedAt)) AS received, payload
     FROM raw_events ORDER BY logPartition, logOffset`,
  );
  expect(rows).toHaveLength(MONTH.events);
  for (const { customer, id, partition, time, received, payload } of rows) {
    const key = recordKeyOf({ mode: "live", customer, source: "api", id });
    const value = `{"specversion":"1.0","id":"${id}","source":"api","type":"llm.request","subject":"${customer}","time":"${time}","data":${payload}}`;
    log.appendAt(Number(received), { partition, key, value: Buffer.from(value), headers: {} });
  }
  for (const table of Object.keys(TABLES)) await analytics.execute(`TRUNCATE TABLE ${table}`);
  await analytics.execute("TRUNCATE TABLE control_records");
  const aggregator = buildAggregator(
    {
      ...AggregatorConfigSchema.parse({}),
      stream: { ...MONTH_STREAM, hashSeed: Buffer.alloc(16, 1) },
      controlKeys: [CONTROL_KEY],
    },
    {
      log,
      analytics,
      clock,
      random: () => 0.5,
      logger: createLogger({ level: "silent", name: "test" }),
      metrics: createMetrics(),
    },
  );
  const stop = new AbortController();
  const done = aggregator.run(stop.signal);
  await until(async () => {
    const [row] = await analytics.select<{ stored: string; backfills: string }>(
      "SELECT toString((SELECT sum(nextOffset) FROM progress FINAL)) AS stored, toString((SELECT count() FROM backfills FINAL)) AS backfills",
    );
    const controls = MONTH_METERS.length * MONTH_STREAM.partitionCount;
    return Number(row?.stored) === MONTH.events + controls && Number(row?.backfills) === controls;
  });
  stop.abort();
  await done;
  await aggregator.close();
}

test("rows stored by SQL equal the rows of the fold", async () => {
  const offsets = await storeActivations(opened.store, MONTH);
  for (let day = 0; day < MONTH_DAYS; day += 1) await storeDay(opened.store, { month: MONTH, day, offsets });
  const stored = await rowsOf(opened.store);
  expect(stored["raw_events"]).toHaveLength(MONTH.events);
  expect(stored["identities"]).toHaveLength(MONTH.events);
  await foldAgain(opened.store);
  const folded = await rowsOf(opened.store);
  for (const table of Object.keys(TABLES)) expect(folded[table], table).toEqual(stored[table]);
});
