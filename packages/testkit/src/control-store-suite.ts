import type { ControlStore } from "@tallyhouse/domain";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

/** A control store under test. */
export interface ControlStoreUnderTest {
  readonly store: ControlStore;
  close(): Promise<void>;
}

const NASTY_TEXTS = [
  "",
  "plain",
  "tab\tline\nreturn\rback\\slash",
  "\\N",
  "quote ' double \" dollar $1 $$",
  "'); DROP TABLE contract_values; --",
  "null",
  "{a,b}",
  '{"json":true}',
  "😀 Ünïcödé ﷽ \u2028 \uFEFF",
  `long ${"x".repeat(100_000)}`,
] as const;

/**
 * What every control store must do. `open` is called again after `close` and must then find the same data; it starts
 * on an empty database of its own.
 */
export function describeControlStore(name: string, open: () => Promise<ControlStoreUnderTest>): void {
  describe(`control store: ${name}`, () => {
    let opened: ControlStoreUnderTest;
    let store: ControlStore;

    beforeAll(async () => {
      opened = await open();
      store = opened.store;
      await store.execute(`
        CREATE TABLE contract_values (
          id int PRIMARY KEY, text text, big bigint, amount numeric(38, 9), at timestamptz, day date, body jsonb,
          ordered json, bytes bytea, names text[], numbers bigint[], flag boolean, real double precision);
        CREATE TABLE contract_counter (id int PRIMARY KEY, n bigint NOT NULL CHECK (n >= 0));
      `);
    });
    afterAll(async () => opened.close());

    const count = async (where: string): Promise<string | undefined> =>
      (await store.query<{ n: string }>(`SELECT count(*) AS n FROM contract_values WHERE ${where}`))[0]?.n;

    describe("types", () => {
      test("G4 every type comes back as the port says, to the last digit", async () => {
        const values = {
          id: 1,
          text: "text",
          big: 9_223_372_036_854_775_807n,
          amount: "12345678901234567890123456789.123456789",
          at: new Date("2026-11-01T12:34:56.789Z"),
          day: "2026-11-01",
          body: { b: [1, "two", null], a: { nested: true } },
          ordered: { zebra: 1, apple: { y: 1, x: 2 } },
          bytes: Buffer.from([0, 1, 127, 128, 255]),
          names: ["a", "", 'quote " and \\ and ,', "{}", "NULL"],
          numbers: [1n, 9_223_372_036_854_775_807n],
          flag: true,
          real: 0.1,
        };
        await store.query(
          "INSERT INTO contract_values VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
          Object.values(values),
        );
        const [row] = await store.query<Record<keyof typeof values, unknown>>(
          "SELECT * FROM contract_values WHERE id = $1",
          [1],
        );
        expect(row).toEqual({ ...values, big: "9223372036854775807", numbers: ["1", "9223372036854775807"] });
        expect(row?.at).toBeInstanceOf(Date);
        expect(Buffer.isBuffer(row?.bytes)).toBe(true);
        expect(JSON.stringify(row?.ordered)).toBe('{"zebra":1,"apple":{"y":1,"x":2}}');
      });

      test("null is null in every type, and a number is a parameter of bigint and numeric too", async () => {
        await store.query("INSERT INTO contract_values (id, big, amount, at) VALUES ($1, $2, $3, $4)", [
          2,
          42,
          7,
          null,
        ]);
        expect(
          await store.query("SELECT big, amount, at, body, bytes, names FROM contract_values WHERE id = 2"),
        ).toEqual([{ big: "42", amount: "7.000000000", at: null, body: null, bytes: null, names: null }]);
      });

      test("sums and counts are text", async () => {
        expect(
          await store.query("SELECT count(*) AS n, sum(v::bigint) AS total FROM unnest(ARRAY[1, 2]) AS v"),
        ).toEqual([{ n: "2", total: "3" }]);
      });

      test("text of any kind survives, as a column, in an array and as JSON", async () => {
        for (const [at, text] of NASTY_TEXTS.entries()) {
          await store.query("INSERT INTO contract_values (id, text, names, body) VALUES ($1, $2, $3, $4)", [
            100 + at,
            text,
            [text, text],
            { text },
          ]);
          const found = await store.query("SELECT text, names, body FROM contract_values WHERE id = $1 AND text = $2", [
            100 + at,
            text,
          ]);
          expect(found).toEqual([{ text, names: [text, text], body: { text } }]);
        }
      });

      test("arbitrary text and bytes survive (property)", async () => {
        // NUL is the one character that PostgreSQL's text does not hold.
        const text = fc.string({ unit: "binary" }).map((value) => value.replaceAll("\0", ""));
        await fc.assert(
          fc.asyncProperty(text, fc.uint8Array(), fc.array(text, { maxLength: 3 }), async (value, bytes, names) => {
            const params = [value, Buffer.from(bytes), names];
            const [row] = await store.query(
              "SELECT $1::text AS value, $2::bytea AS bytes, $3::text[] AS names",
              params,
            );
            expect(row).toEqual({ value, bytes: params[1], names });
          }),
          { numRuns: 50 },
        );
      });
    });

    describe("statements", () => {
      test("a parameter is never read as SQL", async () => {
        expect(await store.query("SELECT id FROM contract_values WHERE text = $1", ["' OR true --"])).toEqual([]);
        await expect(store.query("SELECT $1::int AS n", ["1; SELECT 2"])).rejects.toMatchObject({ code: "22P02" });
      });

      test("what PostgreSQL refuses keeps its SQLSTATE, and the store works on", async () => {
        await store.query("INSERT INTO contract_values (id) VALUES (300)");
        await expect(store.query("INSERT INTO contract_values (id) VALUES (300)")).rejects.toMatchObject({
          code: "23505",
        });
        await expect(store.query("SELECT nonsense")).rejects.toMatchObject({ code: "42703" });
        await expect(store.query("SELEC")).rejects.toMatchObject({ code: "42601" });
        await expect(store.execute("SELECT 1; SELECT * FROM contract_missing")).rejects.toMatchObject({
          code: "42P01",
        });
        expect(await store.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
      });

      test("a script is all or nothing", async () => {
        await expect(
          store.execute("INSERT INTO contract_values (id) VALUES (310); SELECT nonsense;"),
        ).rejects.toMatchObject({ code: "42703" });
        expect(await count("id = 310")).toBe("0");
      });

      test("RETURNING gives rows, other statements none", async () => {
        expect(await store.query("INSERT INTO contract_values (id) VALUES (320) RETURNING id")).toEqual([{ id: 320 }]);
        expect(await store.query("DELETE FROM contract_values WHERE id = 320")).toEqual([]);
      });
    });

    describe("transactions", () => {
      test("commit what their body did and return its result", async () => {
        const result = await store.transaction(async (tx) => {
          await tx.query("INSERT INTO contract_values (id, text) VALUES ($1, $2)", [400, "first"]);
          const seen = await tx.query<{ text: string }>("SELECT text FROM contract_values WHERE id = 400");
          return seen[0]?.text;
        });
        expect(result).toBe("first");
        expect(await count("id = 400")).toBe("1");
      });

      test("roll back everything when the body throws, and throw the same", async () => {
        const mistake = new Error("the caller's own");
        await expect(
          store.transaction(async (tx) => {
            await tx.query("INSERT INTO contract_values (id) VALUES (410)");
            throw mistake;
          }),
        ).rejects.toBe(mistake);
        expect(await count("id = 410")).toBe("0");
      });

      test("roll back everything when a statement fails", async () => {
        await expect(
          store.transaction(async (tx) => {
            await tx.query("INSERT INTO contract_values (id) VALUES (420)");
            await tx.query("INSERT INTO contract_values (id) VALUES (420)");
          }),
        ).rejects.toMatchObject({ code: "23505" });
        expect(await count("id = 420")).toBe("0");
      });

      test("of a failed statement that was caught commit nothing", async () => {
        await expect(
          store.transaction(async (tx) => {
            await tx.query("INSERT INTO contract_values (id) VALUES (430)");
            await tx.query("SELECT nonsense").catch(() => undefined);
          }),
        ).rejects.toMatchObject({ code: "25P02" });
        expect(await count("id = 430")).toBe("0");
      });

      test("do not lose an update of each other", async () => {
        await store.query("INSERT INTO contract_counter VALUES (1, 0)");
        const raise = async (): Promise<void> =>
          store.transaction(async (tx) => {
            const [row] = await tx.query<{ n: string }>("SELECT n FROM contract_counter WHERE id = 1");
            await tx.query("UPDATE contract_counter SET n = $1 WHERE id = 1", [BigInt(row?.n ?? 0) + 1n]);
          });
        await Promise.all(Array.from({ length: 5 }, raise));
        expect(await store.query("SELECT n FROM contract_counter")).toEqual([{ n: "5" }]);
      });

      test("are not seen by statements outside before they commit", async () => {
        const begun = Promise.withResolvers<void>();
        const asked = Promise.withResolvers<void>();
        const watch = async (): Promise<string | undefined> => {
          await begun.promise;
          const seen = count("id BETWEEN 440 AND 449");
          asked.resolve();
          return seen;
        };
        const outside = watch();
        await store.transaction(async (tx) => {
          await tx.query("INSERT INTO contract_values (id) VALUES (440)");
          begun.resolve();
          await asked.promise;
          await tx.query("INSERT INTO contract_values (id) VALUES (441)");
        });
        // Before or after the transaction, never the half of it.
        expect(["0", "2"]).toContain(await outside);
      });
    });

    test("G1 closing and opening again keeps everything", async () => {
      await store.query("INSERT INTO contract_values (id, text) VALUES (900, 'still here')");
      await opened.close();
      await expect(store.query("SELECT 1")).rejects.toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
      opened = await open();
      store = opened.store;
      expect(await store.query("SELECT text FROM contract_values WHERE id = 900")).toEqual([{ text: "still here" }]);
    });
  });
}
