import { cp, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { AnalyticsStore, AnalyticsValue } from "@tallyhouse/domain";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migrateClickHouse, statementsOf } from "./migrate.ts";
import { openClickHouse, type OpenedClickHouse } from "./open.ts";

const MIGRATIONS = fileURLToPath(new URL("../../../infra/clickhouse", import.meta.url));
/** 2023-11-14T22:15:00Z: the start of a window. */
const WINDOW_SECONDS = 1_700_000_100;
/** Rows booked more than 400 days ago leave raw_events at once (its TTL), so these are booked in 2096. */
const BOOKED_AT = 4_000_000_000_000;

let opened: OpenedClickHouse;
let store: AnalyticsStore;
beforeAll(async () => {
  opened = await openClickHouse({ path: await mkdtemp(join(tmpdir(), "tallyhouse-migrate-")) });
  store = opened.store;
});
afterAll(async () => opened.close());

const ROLLUP_COLUMNS = [
  "mode",
  "customer",
  "meter",
  "meterVersion",
  "windowStart",
  "dims",
  "stream",
  "logPartition",
  "lane",
  "bookedStart",
  "ver",
  "counted",
  "voided",
  "sumQty",
  "minQty",
  "maxQty",
  "lastQty",
  "lastAt",
  "lastOffset",
] as const;

/** The plan of a SELECT as text, without the drawing of its tree. */
async function planOf(sql: string): Promise<string> {
  const lines = await store.select<{ explain: string }>(`EXPLAIN indexes = 1 ${sql}`);
  return lines.map(({ explain }) => explain.replaceAll(/[│├└─]/g, " ")).join("\n");
}

/** A rollup row with defaults. */
function rollup(changes: Partial<Record<(typeof ROLLUP_COLUMNS)[number], AnalyticsValue>>): AnalyticsValue[] {
  const row: Record<(typeof ROLLUP_COLUMNS)[number], AnalyticsValue> = {
    mode: "live",
    customer: "acme",
    meter: "tokens",
    meterVersion: 1,
    windowStart: WINDOW_SECONDS,
    dims: ["gpt", "eu"],
    stream: 1,
    logPartition: 0,
    lane: 0,
    bookedStart: WINDOW_SECONDS,
    ver: 1,
    counted: 1,
    voided: 0,
    sumQty: "1",
    minQty: "1",
    maxQty: "1",
    lastQty: "1",
    lastAt: WINDOW_SECONDS * 1_000,
    lastOffset: 0,
    ...changes,
  };
  return ROLLUP_COLUMNS.map((column) => row[column]);
}

async function insertRollups(rows: AnalyticsValue[][]): Promise<void> {
  await store.insert({ table: "rollup", columns: ROLLUP_COLUMNS, rows });
}

describe("migrations", () => {
  test("a statement ends with a semicolon at the end of a line", () => {
    expect(statementsOf("-- a; b\nSELECT ';' , 1;\n-- only a comment;\n\nSELECT 2")).toEqual([
      "-- a; b\nSELECT ';' , 1",
      "SELECT 2",
    ]);
  });

  test("are applied once, a half applied file is finished, a changed one is refused", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tallyhouse-migrations-"));
    await cp(MIGRATIONS, folder, { recursive: true });
    const [first = ""] = statementsOf("CREATE TABLE IF NOT EXISTS half (n UInt8) ENGINE = MergeTree ORDER BY n;");
    await store.execute(first);
    await writeFile(
      join(folder, "9000-half.sql"),
      `${first};\nCREATE TABLE IF NOT EXISTS other (n UInt8) ENGINE = MergeTree ORDER BY n;\n`,
    );
    const names = await migrateClickHouse(store, folder);
    expect(names[0]).toBe("0001-usage.sql");
    expect(names.at(-1)).toBe("9000-half.sql");
    expect(await migrateClickHouse(store, folder)).toEqual([]);
    await writeFile(join(folder, "9000-half.sql"), "SELECT 1;");
    await expect(migrateClickHouse(store, folder)).rejects.toMatchObject({
      code: "MIGRATION_MISMATCH",
      action: "halt",
    });
    await store.execute(
      "ALTER TABLE schema_migrations DELETE WHERE name = '9000-half.sql' SETTINGS mutations_sync = 1",
    );
  });

  test("every table fsyncs its inserts and keeps no deduplication window", async () => {
    const tables = await store.select<{ name: string; create_table_query: string }>(
      "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() AND engine LIKE 'Replacing%'",
    );
    const own = tables.filter(({ name }) => name !== "schema_migrations");
    expect(own.map(({ name }) => name).toSorted()).toEqual([
      "backfills",
      "control_records",
      "identities",
      "progress",
      "rated_line",
      "raw_events",
      "rollup",
      "rollup_uniq",
    ]);
    const settings = ["fsync_after_insert = 1", "fsync_part_directory = 1", "non_replicated_deduplication_window = 0"];
    const without = tables.filter(({ create_table_query: sql }) => !settings.every((setting) => sql.includes(setting)));
    expect(without).toEqual([]);
  });
});

describe("usage views", () => {
  beforeAll(async () => {
    await migrateClickHouse(store, MIGRATIONS);
    await insertRollups([
      rollup({ ver: 5, counted: 2, sumQty: "10", minQty: "4", maxQty: "6", lastQty: "6", lastOffset: 4 }),
      // A zombie's copy of an older version, in a part of its own by the next insert.
      rollup({
        logPartition: 1,
        sumQty: "0.5",
        minQty: "0.5",
        maxQty: "0.5",
        lastQty: "0.5",
        lastAt: (WINDOW_SECONDS + 5) * 1_000,
      }),
      rollup({ bookedStart: WINDOW_SECONDS + 900, sumQty: "100", maxQty: "100", minQty: "100" }),
      rollup({ customer: "other", sumQty: "7" }),
      rollup({ dims: ["gpt", "us"], counted: 0, voided: 1, sumQty: "-3", minQty: "0", maxQty: "0", lastQty: "0" }),
    ]);
    await insertRollups([rollup({ ver: 4, counted: 1, sumQty: "4", minQty: "4", maxQty: "4", lastQty: "4" })]);
  });

  test("G3 the highest version of a key wins and partitions are summed", async () => {
    const found = await store.select(
      "SELECT customer, dims, counted, voided, sumQty, minQty, maxQty, lastQty FROM usage WHERE customer = {customer:String} ORDER BY dims",
      { customer: "acme" },
    );
    expect(found).toEqual([
      {
        customer: "acme",
        dims: ["gpt", "eu"],
        counted: "4",
        voided: "0",
        sumQty: "110.5",
        minQty: "0.5",
        maxQty: "100",
        lastQty: "0.5",
      },
      {
        customer: "acme",
        dims: ["gpt", "us"],
        counted: "0",
        voided: "1",
        sumQty: "-3",
        minQty: "0",
        maxQty: "0",
        lastQty: "0",
      },
    ]);
  });

  test("usage_at sees only what was booked before the cut", async () => {
    const at = async (cut: string): Promise<unknown[]> =>
      store.select("SELECT sumQty FROM usage_at(cut = {cut:String}) WHERE customer = 'acme' AND dims = ['gpt', 'eu']", {
        cut,
      });
    expect(await at("2023-11-14 22:30:00")).toEqual([{ sumQty: "10.5" }]);
    expect(await at("2023-11-14 22:45:00")).toEqual([{ sumQty: "110.5" }]);
    expect(await at("2023-11-14 22:15:00")).toEqual([]);
  });

  test("usage_daily follows the zone's midnight", async () => {
    const daily = async (timeZone: string): Promise<unknown[]> =>
      store.select(
        `SELECT toString(localDay) AS day, events, quantity FROM usage_daily(timeZone = {timeZone:String}) WHERE customer = 'other'`,
        { timeZone },
      );
    expect(await daily("UTC")).toEqual([{ day: "2023-11-14", events: "1", quantity: "7" }]);
    expect(await daily("Asia/Kolkata")).toEqual([{ day: "2023-11-15", events: "1", quantity: "7" }]);
  });

  test("usage_named names the dimensions in the order of the activation", async () => {
    const body = JSON.stringify({
      mode: "live",
      meter: "tokens",
      version: 1,
      rule: { dimensions: { model: "/model", area: "/region" } },
    });
    await store.insert({
      table: "control_records",
      columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
      rows: [0, 1].map((partition) => [1, partition, 0, 0, "meter.activate", "tokens", body]),
    });
    expect(await store.select("SELECT dimensions, sumQty FROM usage_named WHERE customer = 'other'")).toEqual([
      { dimensions: { model: "gpt", area: "eu" }, sumQty: "7" },
    ]);
  });

  test.each([
    ["usage", "usage"],
    ["usage_at", "usage_at(cut = '2100-01-01 00:00:00')"],
    ["usage_daily", "usage_daily(timeZone = 'Asia/Kolkata')"],
    ["usage_named", "usage_named"],
  ])("a filter on %s reaches the primary key of rollup", async (_name, source) => {
    await insertRollups(
      Array.from({ length: 30_000 }, (_, n) => rollup({ customer: `bulk-${n % 3_000}`, windowStart: n * 900 })),
    );
    const text = await planOf(`SELECT * FROM ${source} WHERE mode = 'live' AND customer = 'acme' AND meter = 'tokens'`);
    expect(text).toMatch(/PrimaryKey\s+Keys:\s+mode\s+customer\s+meter/);
    const [, read = "", all = ""] = /PrimaryKey[\s\S]*?Granules: (\d+)\/(\d+)/.exec(text) ?? [];
    expect(Number(read)).toBeLessThan(Number(all));
  });
});

describe("counted_events", () => {
  test("leaves out copies, what was not counted and what was voided, and its filter reaches the primary key", async () => {
    const event = (logOffset: number, status: string, payload = "{}"): AnalyticsValue[] => [
      1,
      0,
      logOffset,
      "live",
      "acme",
      "api",
      `id-${logOffset}`,
      "llm.request",
      WINDOW_SECONDS * 1_000 + logOffset,
      BOOKED_AT,
      BOOKED_AT,
      0,
      status,
      "",
      String(2n ** 64n - 1n),
      payload,
    ];
    const columns = [
      "stream",
      "logPartition",
      "logOffset",
      "mode",
      "customer",
      "source",
      "id",
      "type",
      "occurredAt",
      "receivedAt",
      "bookedAt",
      "decidedAt",
      "status",
      "reason",
      "payloadHash",
      "payload",
    ];
    const rows = [
      event(1, "counted", '{"n":"\\t😀"}'),
      event(2, "duplicate"),
      event(3, "counted"),
      event(4, "invalid"),
    ];
    for (let again = 0; again < 2; again += 1) await store.insert({ table: "raw_events", columns, rows });
    await store.insert({
      table: "control_records",
      columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
      rows: [[1, 0, 99, 0, "void", "3", "{}"]],
    });
    expect(await store.select("SELECT logOffset, payload, payloadHash, occurredAt FROM counted_events")).toEqual([
      {
        logOffset: "1",
        payload: '{"n":"\\t😀"}',
        payloadHash: "18446744073709551615",
        occurredAt: "2023-11-14 22:15:00.001",
      },
    ]);
    expect(
      await planOf("SELECT * FROM counted_events WHERE mode = 'live' AND customer = 'acme' AND type = 'llm.request'"),
    ).toMatch(/PrimaryKey\s+Keys:\s+mode\s+customer\s+type/);
  });
});
