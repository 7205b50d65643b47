import { cp, mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ControlStore } from "@tallyhouse/domain";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migratePostgres } from "./migrate.ts";
import type { OpenedControlStore } from "./opened-control-store.ts";
import { openPglite } from "./pglite.ts";

const MIGRATIONS = fileURLToPath(new URL("../../../infra/postgres", import.meta.url));

let opened: OpenedControlStore;
let store: ControlStore;
beforeAll(async () => {
  opened = await openPglite({ path: join(await mkdtemp(join(tmpdir(), "tallyhouse-pglite-")), "postgres") });
  store = opened.store;
});
afterAll(async () => opened.close());

describe("PGlite", () => {
  test("is PostgreSQL 18 and compares text by bytes", async () => {
    expect(opened.serverVersion).toMatch(/^18\./);
    expect(
      await store.query(
        "SELECT 'B' < 'a' AS bytes, pg_encoding_to_char(encoding) AS encoding FROM pg_database LIMIT 1",
      ),
    ).toEqual([{ bytes: true, encoding: "UTF8" }]);
  });

  test("a statement of the store inside a transaction is a bug, said at once instead of a deadlock", async () => {
    await expect(store.transaction(async () => store.query("SELECT 1"))).rejects.toMatchObject({
      name: "InvariantError",
    });
    await expect(store.transaction(async () => store.transaction(async () => 1))).rejects.toMatchObject({
      name: "InvariantError",
    });
    expect(await store.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test("work that a transaction started and left behind may use the store afterwards", async () => {
    const ended = Promise.withResolvers<void>();
    const later = await store.transaction(async () => {
      const wait = async (): Promise<unknown> => {
        await ended.promise;
        return store.query("SELECT 2 AS two");
      };
      return { answer: wait() };
    });
    ended.resolve();
    expect(await later.answer).toEqual([{ two: 2 }]);
  });

  test("a folder that holds something else is refused", async () => {
    const path = await mkdtemp(join(tmpdir(), "tallyhouse-other-"));
    await writeFile(join(path, "letter.txt"), "not a database");
    await expect(openPglite({ path })).rejects.toMatchObject({
      code: "STORE_UNAVAILABLE",
      action: "halt",
      cause: { message: "the folder holds files but no PostgreSQL database" },
    });
  });
});

describe("migrations", () => {
  test("are applied once and each file whole, a changed one is refused", async () => {
    const folder = join(await mkdtemp(join(tmpdir(), "tallyhouse-migrations-")), "postgres");
    await mkdir(folder);
    await cp(MIGRATIONS, folder, { recursive: true });
    await writeFile(join(folder, "9000-broken.sql"), "CREATE TABLE half (n int);\nSELECT nonsense; -- the end");
    await expect(migratePostgres(store, folder)).rejects.toMatchObject({ code: "42703" });
    expect(await store.query("SELECT to_regclass('half') AS half")).toEqual([{ half: null }]);
    await writeFile(join(folder, "9000-broken.sql"), "CREATE TABLE half (n int) -- the end");
    expect(await migratePostgres(store, folder)).toEqual(["9000-broken.sql"]);
    expect(await migratePostgres(store, folder)).toEqual([]);
    await writeFile(join(folder, "9000-broken.sql"), "CREATE TABLE other (n int)");
    await expect(migratePostgres(store, folder)).rejects.toMatchObject({ code: "MIGRATION_MISMATCH", action: "halt" });
    await store.query("DELETE FROM schema_migrations WHERE name = '9000-broken.sql'");
  });

  test("a meter's version is immutable in number and digest, and its dimensions keep their order", async () => {
    await migratePostgres(store, MIGRATIONS);
    const insert = async (version: number, digest: string): Promise<unknown> =>
      store.query(
        "INSERT INTO meter_version (mode, key, version, digest, rule, unit, active_from, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        [
          "live",
          "tokens",
          version,
          digest,
          { dimensions: { region: "/region", model: "/model" } },
          "tokens",
          new Date(0),
          new Date(1),
          "operator",
        ],
      );
    await insert(1, "digest one");
    await expect(insert(1, "digest two")).rejects.toMatchObject({ code: "23505" });
    await expect(insert(2, "digest one")).rejects.toMatchObject({ code: "23505" });
    await expect(insert(65_536, "digest three")).rejects.toMatchObject({ code: "23514" });
    const [row] = await store.query<{ rule: unknown }>("SELECT rule FROM meter_version");
    expect(JSON.stringify(row?.rule)).toBe('{"dimensions":{"region":"/region","model":"/model"}}');
  });

  test("the outbox gives what waits in the order it was written", async () => {
    const insert = async (partition: number): Promise<unknown> =>
      store.query(
        "INSERT INTO control_outbox (stream, partition, kind, body, created_at) VALUES (1, $1, 'tick', $2, now())",
        [partition, {}],
      );
    for (const partition of [2, 0, 1]) await insert(partition);
    await store.query("UPDATE control_outbox SET appended_at = now() WHERE partition = 0");
    expect(await store.query("SELECT id, partition FROM control_outbox WHERE appended_at IS NULL ORDER BY id")).toEqual(
      [
        { id: "1", partition: 2 },
        { id: "3", partition: 1 },
      ],
    );
  });
});
