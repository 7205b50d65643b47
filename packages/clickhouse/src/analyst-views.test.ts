import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { AnalyticsStore } from "@tallyhouse/domain";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migrateClickHouse } from "./migrate.ts";
import { openClickHouse, type OpenedClickHouse } from "./open.ts";

const MIGRATIONS = fileURLToPath(new URL("../../../infra/clickhouse", import.meta.url));

let opened: OpenedClickHouse;
let store: AnalyticsStore;
beforeAll(async () => {
  opened = await openClickHouse({ path: await mkdtemp(join(tmpdir(), "tallyhouse-views-")) });
  store = opened.store;
  await migrateClickHouse(store, MIGRATIONS);
  for (const statement of [
    // 3,000 customers, so that a filter on one has granules to leave out.
    `INSERT INTO rollup SELECT 'live', concat('bulk-', toString(number % 3000)), 'tokens', 1,
       toDateTime(intDiv(number, 3000) * 900, 'UTC'), ['m'], 1, 0, 0, toDateTime(0, 'UTC'), 1, 1, 0, 1, 1, 1, 1, 0, number
     FROM numbers(60000)`,
    // Booked in 2096: rows older than the table's 400 days leave at insert.
    `INSERT INTO raw_events SELECT 1, 0, 1000000 + number, 'live', concat('bulk-', toString(number % 3000)), 'api', 'i', 'llm',
       toDateTime64('2096-01-01 00:00:00', 3, 'UTC') AS at, at, at, 0, 'duplicate', '', 0, '{}' FROM numbers(60000)`,
    `INSERT INTO rollup_uniq SELECT 'live', concat('bulk-', toString(number % 3000)), 'tokens', 1,
       toDateTime(intDiv(number, 3000) * 900, 'UTC'), ['m'], number, toDateTime(0, 'UTC') FROM numbers(60000)`,
    `INSERT INTO control_records SELECT 1, number, 0, 0, 'meter.activate', '',
       '{"mode":"live","meter":"tokens","version":2,"rule":{"key":"tokens","eventType":"llm","aggregation":"sum","unit":"t","dimensions":{"b":"/b","a":"/a"},"from":"2000-01-01T00:00:00Z"}}'
     FROM numbers(4)`,
    "INSERT INTO progress SELECT 7, number, 5, toDateTime64(1000 + number, 3, 'UTC'), 4, 3, 'w', toDateTime64(2000, 3, 'UTC') FROM numbers(4)",
    "INSERT INTO progress SELECT 7, 0, 6, toDateTime64(1009, 3, 'UTC'), 5, 4, 'w', toDateTime64(2001, 3, 'UTC')",
  ])
    await store.execute(statement);
});
afterAll(async () => opened.close());

/** One raw row as SQL values; times are of 1 May 2096, UTC. */
function raw(offset: number, fate: { status: string; reason?: string; occurred: string; booked: string }): string {
  const { status, reason = "", occurred, booked } = fate;
  return `(1, 0, ${offset}, 'live', 'acme', 'api', 'i-${offset}', 'llm', '2096-05-01 ${occurred}', '2096-05-01 ${booked}',
    '2096-05-01 ${booked}', 0, '${status}', '${reason}', 0, '{}')`;
}

describe("views for analysts", () => {
  test("fates_daily and rejected_daily count each record once, by the local day of booking", async () => {
    const rows = [
      raw(1, { status: "counted", occurred: "09:00:00", booked: "09:14:59.999" }),
      raw(2, { status: "counted", occurred: "09:00:00", booked: "09:15:00" }),
      raw(3, { status: "counted", occurred: "09:01:00", booked: "09:00:00" }),
      raw(4, { status: "duplicate", occurred: "09:00:00", booked: "12:00:00" }),
      raw(5, { status: "conflict", occurred: "09:00:00", booked: "12:00:00" }),
      raw(6, { status: "invalid", reason: "FIELD_MISSING", occurred: "09:00:00", booked: "12:00:00" }),
      raw(7, { status: "too_late", occurred: "00:00:00", booked: "22:30:00" }),
      raw(8, { status: "redirected", occurred: "09:00:00", booked: "12:00:00" }),
    ];
    // Twice: a replay writes the same rows again.
    for (let again = 0; again < 2; again += 1) await store.execute(`INSERT INTO raw_events VALUES ${rows.join(", ")}`);
    const daily = (zone: string): Promise<unknown[]> =>
      store.select(
        `SELECT toString(localDay) AS day, counted, late, duplicates, conflicts, tooLate, tooEarly, invalid, latestSeconds
         FROM fates_daily(timeZone = {zone:String}) WHERE mode = 'live' AND customer = 'acme' ORDER BY day`,
        { zone },
      );
    const fates = {
      counted: "3",
      late: "1",
      duplicates: "1",
      conflicts: "1",
      tooLate: "1",
      tooEarly: "0",
      invalid: "1",
    };
    expect(await daily("UTC")).toEqual([{ day: "2096-05-01", ...fates, latestSeconds: "900" }]);
    const none = { counted: "0", late: "0", duplicates: "0", conflicts: "0", tooEarly: "0", invalid: "0" };
    expect(await daily("Europe/Berlin")).toEqual([
      { day: "2096-05-01", ...fates, tooLate: "0", latestSeconds: "900" },
      { day: "2096-05-02", ...none, tooLate: "1", latestSeconds: "0" },
    ]);
    const rejected = await store.select(
      "SELECT status, reason, records FROM rejected_daily(timeZone = 'UTC') WHERE customer = 'acme' ORDER BY status",
    );
    expect(rejected).toEqual([
      { status: "too_late", reason: "", records: "1" },
      { status: "invalid", reason: "FIELD_MISSING", records: "1" },
    ]);
  });

  test("usage_monthly begins its months at the zone's midnight", async () => {
    const window = Date.parse("2031-03-31T22:00:00Z") / 1_000;
    await store.execute(
      `INSERT INTO rollup VALUES ('test', 'moon', 'tokens', 1, ${window}, ['m'], 1, 0, 0, ${window}, 1, 3, 1, 2.5, 1, 1, 1, 0, 1)`,
    );
    const monthly = (zone: string): Promise<unknown[]> =>
      store.select(
        `SELECT toString(localMonth) AS month, events, quantity FROM usage_monthly(timeZone = {zone:String}) WHERE customer = 'moon'`,
        { zone },
      );
    expect(await monthly("UTC")).toEqual([{ month: "2031-03-01", events: "2", quantity: "2.5" }]);
    expect(await monthly("Europe/Berlin")).toEqual([{ month: "2031-04-01", events: "2", quantity: "2.5" }]);
  });

  test("top_customers ranks within mode and meter over whole windows of the span, ties by name", async () => {
    const at = Date.parse("2032-01-01T00:00:00Z") / 1_000;
    const rows = ["b", "a", "c"].map(
      (customer, index) =>
        `('live', '${customer}', 'ranked', 1, ${at + 900 * Math.floor(index / 2)}, ['m'], 1, 0, 0, ${at}, 1, 1, 0, ${index < 2 ? 2 : 96}, 1, 1, 1, 0, 1)`,
    );
    await store.execute(`INSERT INTO rollup VALUES ${rows.join(", ")}`);
    const top = (before: string): Promise<unknown[]> =>
      store.select(
        `SELECT customer, place, share FROM top_customers(since = '2032-01-01 00:00:00', before = {before:String})
         WHERE mode = 'live' AND meter = 'ranked' ORDER BY place`,
        { before },
      );
    expect(await top("2032-01-01 00:15:00")).toEqual([
      { customer: "a", place: "1", share: 50 },
      { customer: "b", place: "2", share: 50 },
    ]);
    expect(await top("2032-01-01 00:30:00")).toEqual([
      { customer: "c", place: "1", share: 96 },
      { customer: "a", place: "2", share: 2 },
      { customer: "b", place: "3", share: 2 },
    ]);
  });

  test("meters has one row for each version, its dimensions in their order", async () => {
    expect(await store.select("SELECT * FROM meters")).toEqual([
      {
        mode: "live",
        meter: "tokens",
        meterVersion: 2,
        eventType: "llm",
        aggregation: "sum",
        unit: "t",
        dimensionNames: ["b", "a"],
        activeFrom: "2000-01-01T00:00:00Z",
        activeUntil: null,
      },
    ]);
    const end = (until: string): string => `{"mode":"live","meter":"tokens","version":2,"until":"${until}"}`;
    await store.execute(
      `INSERT INTO control_records VALUES (1, 0, 8, 0, 'meter.end', '', '${end("2031-01-02T00:30:00+01:00")}'),
         (1, 0, 9, 0, 'meter.end', '', '${end("2031-01-01T23:00:00.5Z")}')`,
    );
    expect(await store.select("SELECT meterVersion, activeUntil FROM meters")).toEqual([
      { meterVersion: 2, activeUntil: "2031-01-01 23:00:00.500" },
    ]);
  });

  test("usage_unique has each value once, and says where a void makes it uncertain", async () => {
    const row = (window: number, hash: number, booked: number): string =>
      `('live', 'uniq', 'users', 1, ${window}, ['eu'], ${hash}, ${booked})`;
    // One value in two windows and two booking windows; a replay writes a row again.
    const rows = [row(900, 5, 900), row(900, 5, 1_800), row(1_800, 5, 1_800), row(1_800, 6, 1_800), row(900, 5, 900)];
    await store.execute(`INSERT INTO rollup_uniq VALUES ${rows.join(", ")}`);
    await store.execute(
      `INSERT INTO rollup VALUES ('live', 'uniq', 'users', 1, 1800, ['us'], 1, 0, 0, 1800, 1, 3, 1, 0, 0, 0, 0, 0, 1),
         ('live', 'uniq', 'other', 1, 900, ['us'], 1, 0, 0, 1800, 1, 3, 1, 0, 0, 0, 0, 0, 1)`,
    );
    const found = await store.select(
      "SELECT toUnixTimestamp(windowStart) AS at, dims, valueHash, hasVoids FROM usage_unique WHERE customer = 'uniq' ORDER BY at, valueHash",
    );
    expect(found).toEqual([
      { at: 900, dims: ["eu"], valueHash: "5", hasVoids: 0 },
      { at: 1_800, dims: ["eu"], valueHash: "5", hasVoids: 1 },
      { at: 1_800, dims: ["eu"], valueHash: "6", hasVoids: 1 },
    ]);
  });

  test("G7 freshness is the slowest partition's clock, at the highest progress of each", async () => {
    expect(await store.select("SELECT * FROM freshness")).toEqual([
      {
        stream: 7,
        partitions: "4",
        watermarkAt: "1970-01-01 00:16:41.000",
        newestAt: "1970-01-01 00:16:49.000",
        counted: "13",
        storedAt: "1970-01-01 00:33:21.000",
      },
    ]);
  });

  const SPAN = "since = '2000-01-01 00:00:00', before = '2100-01-01 00:00:00'";
  test.each([
    [
      "usage_monthly(timeZone = 'Asia/Kolkata')",
      "customer = 'bulk-7' AND meter = 'tokens'",
      ["mode", "customer", "meter"],
    ],
    ["fates_daily(timeZone = 'Asia/Kolkata')", "customer = 'bulk-7' AND type = 'llm'", ["mode", "customer", "type"]],
    ["rejected_daily(timeZone = 'Asia/Kolkata')", "customer = 'bulk-7' AND type = 'llm'", ["mode", "customer", "type"]],
    ["usage_unique", "customer = 'bulk-7' AND meter = 'tokens'", ["mode", "customer", "meter"]],
    [
      "counted_events_at(cut = '2099-01-01 00:00:00')",
      "customer = 'bulk-7' AND type = 'llm'",
      ["mode", "customer", "type"],
    ],
    // Ranks are of all customers, so only mode and meter reach the key here; windows narrow it further.
    [`top_customers(${SPAN})`, "meter = 'tokens'", ["mode", "meter", "windowStart"]],
  ])("a filter on %s reaches the primary key of its table", async (source, filter, keys) => {
    const lines = await store.select<{ explain: string }>(
      `EXPLAIN indexes = 1 SELECT * FROM ${source} WHERE mode = 'live' AND ${filter}`,
    );
    const text = lines.map(({ explain }) => explain.replaceAll(/[│├└─]/g, " ")).join("\n");
    const [, names = "", read = "", all = ""] =
      /PrimaryKey\s+Keys:([\w\s]*?)Condition[\s\S]*?Granules: (\d+)\/(\d+)/.exec(text) ?? [];
    expect(names.trim().split(/\s+/), text).toEqual(keys);
    const isNarrow = keys.includes("customer");
    expect(Number(all)).toBeGreaterThan(4);
    expect(Number(read)).toBeLessThanOrEqual(isNarrow ? Number(all) / 2 : Number(all));
  });
});
