import { randomBytes } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import type { ControlStore } from "@tallyhouse/domain";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { migratePostgres } from "./migrate.ts";
import type { OpenedControlStore } from "./opened-control-store.ts";
import { openPglite } from "./pglite.ts";
import {
  createServiceTokenDirectory,
  generateServiceToken,
  TOKEN_CACHE_MAX,
  TOKEN_CACHE_MS,
} from "./service-tokens.ts";

const MIGRATIONS = fileURLToPath(new URL("../../../infra/postgres", import.meta.url));
const PEPPER = Buffer.from("pepper");

let opened: OpenedControlStore;
let lookUps = 0;
/** The store, counting its statements. */
let store: ControlStore;
beforeAll(async () => {
  opened = await openPglite({ path: join(await mkdtemp(join(tmpdir(), "tallyhouse-tokens-")), "postgres") });
  await migratePostgres(opened.store, MIGRATIONS);
  store = {
    ...opened.store,
    query: async <Row>(sql: string, params?: readonly unknown[]): Promise<Row[]> => {
      lookUps += 1;
      return opened.store.query<Row>(sql, params);
    },
  };
});
afterAll(async () => opened.close());

const newToken = (mode: "live" | "test" = "live"): string => generateServiceToken(mode, randomBytes);

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/** Base62 read back. */
function valueOf(text: string): bigint {
  return text.split("").reduce((sum, digit) => sum * 62n + BigInt(DIGITS.indexOf(digit)), 0n);
}

describe("service tokens", () => {
  test.each([
    ["zeros", Buffer.alloc(32)],
    ["ones", Buffer.alloc(32, 0xff)],
    ["a small number", Buffer.concat([Buffer.alloc(31), Buffer.from([61])])],
    ["random bytes", randomBytes(32)],
  ])("of %s have the format that scanners know", (_name, bytes) => {
    for (const mode of ["live", "test"] as const) {
      const token = generateServiceToken(mode, () => bytes);
      expect(token).toMatch(/^svc_(live|test)_th_[0-9A-Za-z]{49}$/);
      expect(token.startsWith(`svc_${mode}_`)).toBe(true);
      expect(valueOf(token.slice(-49, -6))).toBe(BigInt(`0x${bytes.toString("hex")}`));
      expect(valueOf(token.slice(-6))).toBe(BigInt(crc32(token.slice(0, -6))));
    }
  });

  test("are known after add, which may be repeated, and the store holds no token", async () => {
    const directory = createServiceTokenDirectory(store, PEPPER, { now: () => 0 });
    const live = newToken();
    const own = "svc_test_th_chosen-by-the_operator";
    expect(await directory.verify(live)).toBeNull();
    for (const token of [live, live, own]) await directory.add(token);
    expect(await directory.verify(live)).toEqual({ mode: "live" });
    expect(await directory.verify(own)).toEqual({ mode: "test" });
    const rows = await opened.store.query<{ row: string }>("SELECT service_token::text AS row FROM service_token");
    expect(rows).toHaveLength(2);
    expect(rows.some(({ row }) => row.includes("chosen") || row.includes(live.slice(12)))).toBe(false);
    expect(await createServiceTokenDirectory(store, Buffer.from("other"), { now: () => 0 }).verify(live)).toBeNull();
  });

  test.each([
    "",
    "svc_live_th_short",
    "sk_live_th_0123456789abcdef0",
    "svc_live_th_0123456789abcdef\n",
    "svc_prod_th_0123456789abcdef",
  ])("%j is no service token: refused without a look-up, and never added", async (token) => {
    const directory = createServiceTokenDirectory(store, PEPPER, { now: () => 0 });
    const before = lookUps;
    expect(await directory.verify(token)).toBeNull();
    expect(lookUps).toBe(before);
    await expect(directory.add(token)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
  });

  test("a row whose mode is not the prefix's opens nothing", async () => {
    const directory = createServiceTokenDirectory(store, PEPPER, { now: () => 0 });
    const token = newToken("test");
    await directory.add(token);
    await opened.store.query(
      "UPDATE service_token SET mode = 'live' WHERE token_hash = (SELECT token_hash FROM service_token ORDER BY ctid DESC LIMIT 1)",
    );
    expect(await directory.verify(token)).toBeNull();
  });

  test("a known token is looked up once per while, by all who ask at once; a revoked one ends with it", async () => {
    let nowMs = 0;
    const directory = createServiceTokenDirectory(store, PEPPER, { now: () => nowMs });
    const token = newToken();
    await directory.add(token);
    const before = lookUps;
    const answers = await Promise.all(Array.from({ length: 50 }, async () => directory.verify(token)));
    expect(answers).toEqual(answers.map(() => ({ mode: "live" })));
    expect(lookUps - before).toBe(1);
    await opened.store.query("UPDATE service_token SET revoked_at = now()");
    expect(await directory.verify(token)).toEqual({ mode: "live" });
    nowMs += TOKEN_CACHE_MS;
    expect(await directory.verify(token)).toBeNull();
    await directory.add(token);
    expect(await directory.verify(token)).toBeNull();
  });

  test("an unknown token is looked up every time and pushes no known one out; a store that is away is an outage", async () => {
    const directory = createServiceTokenDirectory(store, PEPPER, { now: () => 0 });
    const token = newToken();
    await directory.add(token);
    await directory.verify(token);
    for (let n = 0; n <= TOKEN_CACHE_MAX; n += 1)
      await directory.verify(`svc_live_th_unknown_${String(n).padStart(16, "0")}`);
    const before = lookUps;
    expect(await directory.verify(token)).toEqual({ mode: "live" });
    expect(lookUps).toBe(before);

    const outage = new Error("away");
    let isAway = true;
    const shaky: ControlStore = {
      ...store,
      query: async <Row>(sql: string, params?: readonly unknown[]): Promise<Row[]> => {
        if (isAway) throw outage;
        return store.query<Row>(sql, params);
      },
    };
    const other = createServiceTokenDirectory(shaky, PEPPER, { now: () => 0 });
    await expect(other.verify(token)).rejects.toBe(outage);
    isAway = false;
    expect(await other.verify(token)).toEqual({ mode: "live" });
  });
});
