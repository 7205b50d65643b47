/** The control store on a real PostgreSQL server: the contract, what only a server can do, and several processes at once. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { migratePostgres, type OpenedControlStore, openPostgres } from "@tallyhouse/postgres";
import { readMigrations } from "@tallyhouse/runtime";
import { startStandalone } from "@tallyhouse/standalone";
import { describeControlStore } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freshDatabase, postgresUrl } from "./postgres-support.ts";

const SERVER = postgresUrl();
const MIGRATIONS = new URL("../../infra/postgres", import.meta.url).pathname;
const MIGRATE_FIXTURE = new URL("./migrate.fixture.ts", import.meta.url).pathname;

const contractDatabase = freshDatabase(SERVER);
describeControlStore("PostgreSQL server", async () => openPostgres({ url: (await contractDatabase).url }));
afterAll(async () => (await contractDatabase).drop());

describe("a PostgreSQL server", () => {
  let database: Awaited<ReturnType<typeof freshDatabase>>;
  let opened: OpenedControlStore;
  beforeAll(async () => {
    database = await freshDatabase(SERVER);
    opened = await openPostgres({ url: database.url });
    await opened.store.execute("CREATE TABLE seat (id int PRIMARY KEY, taken boolean NOT NULL)");
  });
  afterAll(async () => {
    await opened.close();
    await database.drop();
  });

  test("is named without its password, and sees who is connected", async () => {
    const { username, password, host, pathname } = new URL(database.url);
    expect(opened.place).toBe(`at ${username}@${host}${pathname}`);
    expect(password).not.toBe("");
    expect(opened.serverVersion).toMatch(/^\d+(\.\d+)*$/);
    const [row] = await opened.store.query(
      "SELECT application_name, current_setting('statement_timeout') AS statement, current_setting('idle_in_transaction_session_timeout') AS idle FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    );
    expect(row).toEqual({ application_name: "tallyhouse", statement: "30s", idle: "1min" });
  });

  test("G4 arrays of numeric, date and timestamp are text, like the single values", async () => {
    const [row] = await opened.store.query(
      "SELECT ARRAY[12345678901234567890.123456789, NULL]::numeric[] AS amounts, ARRAY['2026-11-01']::date[] AS days, ARRAY['2026-11-01 10:00']::timestamp[] AS times, interval '1 day' AS span, '2026-11-01 10:00'::timestamp AS time",
    );
    expect(row).toEqual({
      amounts: ["12345678901234567890.123456789", null],
      days: ["2026-11-01"],
      times: ["2026-11-01 10:00:00"],
      span: "1 day",
      time: "2026-11-01 10:00:00",
    });
  });

  test("transactions are serializable: of two that each leave one seat, one is run again and sees the other", async () => {
    await opened.store.query("INSERT INTO seat VALUES (1, false), (2, false)");
    let runs = 0;
    const bothHaveRead = Promise.withResolvers<void>();
    // Each takes a seat only while none is taken: under weaker isolation both would.
    const take = async (id: number): Promise<boolean> =>
      opened.store.transaction(async (tx) => {
        runs += 1;
        const taken = await tx.query("SELECT id FROM seat WHERE taken");
        if (runs >= 2) bothHaveRead.resolve();
        await bothHaveRead.promise;
        if (taken.length === 0) await tx.query("UPDATE seat SET taken = true WHERE id = $1", [id]);
        return taken.length === 0;
      });
    const took = await Promise.all([take(1), take(2)]);
    expect(took.toSorted()).toEqual([false, true]);
    expect(runs).toBe(3);
    expect(await opened.store.query("SELECT count(*) AS n FROM seat WHERE taken")).toEqual([{ n: "1" }]);
  });

  test("a transaction that always conflicts ends after 5 tries, and nothing of it stays", async () => {
    await opened.store.query("INSERT INTO seat VALUES (10, false)");
    let runs = 0;
    const losing = opened.store.transaction(async (tx) => {
      runs += 1;
      await tx.query("INSERT INTO seat VALUES ($1, true)", [100 + runs]);
      // Swallowed by the body, as a careless one might: only a new try can help all the same.
      await tx.query("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$").catch(() => undefined);
    });
    await expect(losing).rejects.toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
    expect(runs).toBe(5);
    expect(await opened.store.query("SELECT id FROM seat WHERE id > 100")).toEqual([]);
  });

  test("a statement of the store inside a transaction, or of a `tx` after its end, is a bug, said at once", async () => {
    const { store } = opened;
    await expect(store.transaction(async () => store.query("SELECT 1"))).rejects.toMatchObject({
      name: "InvariantError",
    });
    const late = await store.transaction(async (tx) => ({ ask: async () => tx.query("SELECT 1") }));
    await expect(late.ask()).rejects.toMatchObject({ name: "InvariantError" });
    expect(await store.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test("every bound holds: a statement, a connection, an idle transaction; and the store works on", async () => {
    const bounded = await openPostgres({
      url: database.url,
      poolMax: 1,
      connectTimeoutMs: 500,
      statementTimeoutMs: 300,
      idleInTransactionTimeoutMs: 300,
    });
    const outage = { code: "STORE_UNAVAILABLE", action: "retry" };
    await expect(bounded.store.query("SELECT pg_sleep(60)")).rejects.toMatchObject({
      ...outage,
      cause: { code: "57014" },
    });
    // A migration may take longer than a statement.
    await bounded.store.execute("SELECT pg_sleep(0.5)");
    const idle = Promise.withResolvers<void>();
    const holding = bounded.store.transaction(async (tx) => {
      await idle.promise;
      return tx.query("SELECT 1");
    });
    await expect(bounded.store.query("SELECT 1")).rejects.toMatchObject(outage);
    idle.resolve();
    await expect(holding).rejects.toMatchObject(outage);
    expect(await bounded.store.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
    await bounded.close();
  });

  test("G1 connections that the server ends are replaced without a restart", async () => {
    await Promise.all(Array.from({ length: 5 }, async () => opened.store.query("SELECT pg_sleep(0.05)")));
    const other = await openPostgres({ url: SERVER });
    const { pathname } = new URL(database.url);
    const ended = await other.store.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", [
      pathname.slice(1),
    ]);
    expect(ended.length).toBeGreaterThanOrEqual(5);
    await other.close();
    // Whoever meets a connection that has just died is told to try again; each such answer removes one of them.
    const answers = await Promise.allSettled(
      Array.from({ length: 5 }, async () => opened.store.query("SELECT 1 AS one")),
    );
    const reasons = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason as unknown] : []));
    const outage: unknown = expect.objectContaining({ code: "STORE_UNAVAILABLE", action: "retry" });
    expect(reasons).toEqual(reasons.map(() => outage));
    expect(await opened.store.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test.each([
    { what: "a wrong password", spoiled: { password: "wrong-one" }, action: "halt" },
    { what: "no such database", spoiled: { pathname: "/nothing" }, action: "halt" },
    { what: "nobody who listens", spoiled: { port: "1" }, action: "retry" },
  ])("$what is said at the start, without the password", async ({ spoiled, action }) => {
    const url = new URL(SERVER);
    Object.assign(url, spoiled);
    const error: unknown = await openPostgres({ url: url.href }).then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({ code: "STORE_UNAVAILABLE", action });
    expect(String(error)).toContain(url.host);
    expect(String(error)).not.toContain(url.password);
  });
});

describe("migrations", () => {
  test("of three processes at once are applied once each, and every process ends well", async () => {
    const files = (await readMigrations(MIGRATIONS)).map(({ name }) => name);
    for (let round = 0; round < 3; round += 1) {
      const database = await freshDatabase(SERVER);
      const processes = Array.from({ length: 3 }, () => {
        const child = spawn(process.execPath, [MIGRATE_FIXTURE, database.url, MIGRATIONS], {
          stdio: ["pipe", "pipe", "inherit"],
        });
        return { child, ready: once(child.stdout, "data"), ended: once(child, "close") };
      });
      await Promise.all(processes.map(async ({ ready }) => ready));
      const said = processes.map(async ({ child }) => text(child.stdout));
      for (const { child } of processes) child.stdin.write("go\n");
      const applied = (await Promise.all(said)).flatMap((line) => JSON.parse(line) as string[]);
      const codes = await Promise.all(processes.map(async ({ ended }) => (await ended)[0] as number));
      expect(codes).toEqual([0, 0, 0]);
      expect(applied.toSorted()).toEqual(files);
      const after = await openPostgres({ url: database.url });
      expect(await migratePostgres(after.store, MIGRATIONS)).toEqual([]);
      await after.close();
      await database.drop();
    }
  });
});

describe("standalone with POSTGRES_URL", () => {
  test("keeps meters and tokens on the server, names it without the password, and starts again on it", async () => {
    const database = await freshDatabase(SERVER);
    const folder = mkdtempSync(join(tmpdir(), "tallyhouse-postgres-"));
    const env = { TALLYHOUSE_DATA: folder, TALLYHOUSE_PORT: "0", LOG_LEVEL: "error", POSTGRES_URL: database.url };
    for (const isFirstStart of [true, false]) {
      const running = await startStandalone(env);
      expect(running.isFirstStart).toBe(isFirstStart);
      const { password, host } = new URL(database.url);
      expect(running.ports.adapters["control"]).toMatch(
        new RegExp(`^PostgreSQL \\d+\\.\\d+ at tallyhouse@${host}/test_`),
      );
      expect(JSON.stringify(running.ports.adapters)).not.toContain(password);
      await running.stop();
    }
    const after = await openPostgres({ url: database.url });
    const [row] = await after.store.query<{ meters: string; tokens: string }>(
      "SELECT (SELECT count(*) FROM meter_version) AS meters, (SELECT count(*) FROM service_token) AS tokens",
    );
    expect(Number(row?.meters)).toBeGreaterThan(0);
    expect(row?.tokens).toBe("1");
    await after.close();
    await database.drop();
    rmSync(folder, { recursive: true, force: true });
  }, 120_000);
});
