import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { describeAnalyticsStore } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";

const MIGRATIONS = fileURLToPath(new URL("../../infra/clickhouse", import.meta.url));
/** Processes that start at the same moment. */
const PROCESSES = 6;

/** Fails, never skips: a suite that did not run is not a suite that passed. */
function clickhouseUrl(): string {
  const url = process.env["CLICKHOUSE_URL"];
  if (url === undefined || url === "") {
    throw new Error("CLICKHOUSE_URL is not set: run npm run test:integration");
  }
  return url;
}

const url = clickhouseUrl();
const databases: string[] = [];

/** A database that no other test uses. */
async function freshDatabase(): Promise<string> {
  const database = `test_${randomUUID().replaceAll("-", "")}`;
  await execute(`CREATE DATABASE ${database}`);
  databases.push(database);
  return database;
}

async function execute(sql: string): Promise<void> {
  const opened = await openClickHouse({ url });
  await opened.store.execute(sql);
  await opened.close();
}

let contractDatabase: string;
beforeAll(async () => {
  contractDatabase = await freshDatabase();
});
afterAll(async () => {
  for (const database of databases) await execute(`DROP DATABASE ${database}`);
});

describeAnalyticsStore("ClickHouse over HTTP", async () => openClickHouse({ url, database: contractDatabase }));

test("processes that start at once migrate an empty database together, and each then works", async () => {
  const database = await freshDatabase();
  const opened = await Promise.all(Array.from({ length: PROCESSES }, () => openClickHouse({ url, database })));
  await Promise.all(opened.map(async ({ store }) => migrateClickHouse(store, MIGRATIONS)));
  for (const one of opened) {
    const { store } = one;
    expect(await store.select("SELECT name FROM schema_migrations FINAL WHERE name = '0001-usage.sql'")).toEqual([
      { name: "0001-usage.sql" },
    ]);
    expect(await store.select("SELECT count() AS n FROM usage")).toEqual([{ n: "0" }]);
    expect(await migrateClickHouse(store, MIGRATIONS)).toEqual([]);
    await one.close();
  }
});

test.each(["cut", "fail"])(
  "G1 a scan whose connection is lost among the rows (%s) is STORE_UNAVAILABLE, never a shorter answer",
  async (how) => {
    const opened = await openClickHouse({ url });
    let bytes = 0;
    // A comment that the local front obeys: 200, so many bytes of the rows, then the end without a last chunk.
    const sql = `SELECT toUInt32(number) FROM numbers({count:UInt64}) /* front:${how}-after=400000 */`;
    const scanning = opened.store.scan(sql, { count: 300_000 }, (piece) => {
      bytes += piece.length;
    });
    await expect(scanning).rejects.toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
    expect(bytes).toBeGreaterThan(0);
    await opened.close();
  },
);
