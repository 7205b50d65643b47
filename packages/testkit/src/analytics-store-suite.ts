import { type AnalyticsStore, type AnalyticsValue, type TallyhouseError } from "@tallyhouse/domain";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testInserts } from "./analytics-insert-suite.ts";

/** An opened analytics store under test. */
export interface OpenedAnalyticsStore {
  readonly store: AnalyticsStore;
  close(): Promise<void>;
}

/** Text that breaks naive SQL, naive formats and naive encoders. */
const NASTY_TEXTS = [
  "",
  " ",
  "plain",
  "tab\there",
  "line\nbreak",
  "carriage\rreturn",
  "back\\slash",
  "\\",
  "\\N",
  "\\n",
  "\\ud83d",
  "NUL\0inside",
  "\b\f\v\u001F\u007F",
  "quote ' double \" back `",
  "'); DROP TABLE contract_values; --",
  "{name:String}",
  "null",
  "NULL",
  "[1,2]",
  "😀 Ünïcödé ﷽ \u2028 \uFEFF",
  `long ${"x".repeat(70_000)}`,
] as const;

const CREATE_VALUES = `CREATE TABLE contract_values (
  id UInt64, text String, category LowCardinality(String), small UInt16, big UInt128,
  amount Decimal(38, 9), atMs DateTime64(3, 'UTC'), atSeconds DateTime('UTC'), kind Enum8('counted' = 0, 'too_late' = 3),
  names Array(String))
ENGINE = MergeTree ORDER BY id`;
const COLUMNS = ["id", "text", "category", "small", "big", "amount", "atMs", "atSeconds", "kind", "names"] as const;
const SELECT_VALUES = `SELECT id, text, category, small, big, amount, toUnixTimestamp64Milli(atMs) AS atMs,
  toUnixTimestamp(atSeconds) AS atSeconds, kind, names FROM contract_values`;

type ValuesRow = Record<(typeof COLUMNS)[number], unknown>;

function row(id: number, changes: Partial<Record<(typeof COLUMNS)[number], AnalyticsValue>> = {}): AnalyticsValue[] {
  const values: Record<(typeof COLUMNS)[number], AnalyticsValue> = {
    id,
    text: "",
    category: "",
    small: 0,
    big: "0",
    amount: "0",
    atMs: 0,
    atSeconds: 0,
    kind: "counted",
    names: [],
    ...changes,
  };
  return COLUMNS.map((column) => values[column]);
}

/**
 * What every analytics store must do. `open` is called again after `close` and must then find the same data; it
 * starts on an empty database of its own.
 */
export function describeAnalyticsStore(name: string, open: () => Promise<OpenedAnalyticsStore>): void {
  describe(`analytics store: ${name}`, () => {
    let opened: OpenedAnalyticsStore;
    let store: AnalyticsStore;

    beforeAll(async () => {
      opened = await open();
      store = opened.store;
      await store.execute(CREATE_VALUES);
    });
    afterAll(async () => opened.close());

    const insert = async (rows: AnalyticsValue[][]): Promise<void> =>
      store.insert({ table: "contract_values", columns: COLUMNS, rows });
    const read = async (id: number): Promise<ValuesRow | undefined> =>
      (await store.select<ValuesRow>(`${SELECT_VALUES} WHERE id = {id:UInt64}`, { id }))[0];

    test("G4 every column type keeps its value to the last digit", async () => {
      await insert([
        row(1, {
          text: "text",
          category: "category",
          small: 65_535,
          big: "340282366920938463463374607431768211455",
          amount: "12345678901234567890123456789.123456789",
          atMs: 1_700_000_000_123,
          atSeconds: 1_700_000_000,
          kind: "too_late",
          names: ["a", "", "b"],
        }),
        row(2, { big: 10n ** 30n, amount: -5n, atMs: 1, atSeconds: 4_294_967_295 }),
        row(3, { amount: "-0.000000001", atMs: 5_000, big: 7 }),
      ]);
      expect(await read(1)).toEqual({
        id: "1",
        text: "text",
        category: "category",
        small: 65_535,
        big: "340282366920938463463374607431768211455",
        amount: "12345678901234567890123456789.123456789",
        atMs: "1700000000123",
        atSeconds: 1_700_000_000,
        kind: "too_late",
        names: ["a", "", "b"],
      });
      expect(await read(2)).toMatchObject({
        big: `1${"0".repeat(30)}`,
        amount: "-5",
        atMs: "1",
        atSeconds: 4_294_967_295,
      });
      expect(await read(3)).toMatchObject({ amount: "-0.000000001", atMs: "5000", big: "7" });
    });

    test("UInt64 above 2^53 keeps its value as bigint and as text", async () => {
      const columns = ["id", "text"];
      await store.insert({
        table: "contract_values",
        columns,
        rows: [
          [2n ** 64n - 1n, "bigint"],
          ["18446744073709551614", "text"],
        ],
      });
      expect(
        await store.select("SELECT id, text FROM contract_values WHERE id > 18446744073709551613 ORDER BY id"),
      ).toEqual([
        { id: "18446744073709551614", text: "text" },
        { id: "18446744073709551615", text: "bigint" },
      ]);
    });

    test("times are text in UTC, whatever the zone of the process", async () => {
      await insert([row(10, { atMs: 1_700_000_000_123, atSeconds: 1_700_000_000 })]);
      expect(
        await store.select(
          "SELECT toString(toDateTime(1700000000)) AS plain, atMs, atSeconds FROM contract_values WHERE id = 10",
        ),
      ).toEqual([{ plain: "2023-11-14 22:13:20", atMs: "2023-11-14 22:13:20.123", atSeconds: "2023-11-14 22:13:20" }]);
    });

    test("text of any kind survives, in columns, in arrays and as parameters", async () => {
      await insert(
        NASTY_TEXTS.map((text, at) => row(100 + at, { text, category: text.slice(0, 50), names: [text, "x", text] })),
      );
      for (const [at, text] of NASTY_TEXTS.entries()) {
        const found = await store.select<ValuesRow>(
          `${SELECT_VALUES} WHERE text = {text:String} AND id = {id:UInt64}`,
          {
            text,
            id: 100 + at,
          },
        );
        expect(found).toHaveLength(1);
        expect(found[0]).toMatchObject({ text, category: text.slice(0, 50), names: [text, "x", text] });
      }
      expect(
        await store.select(
          "SELECT count() AS n FROM contract_values WHERE text IN {texts:Array(String)} AND id BETWEEN 100 AND 199",
          {
            texts: NASTY_TEXTS,
          },
        ),
      ).toEqual([{ n: String(NASTY_TEXTS.length) }]);
    });

    test("an unpaired surrogate becomes the replacement character", async () => {
      await insert([row(200, { text: "a\uD83Db", names: ["\uDE00", "\\ud83d"], big: 1n })]);
      expect(await read(200)).toMatchObject({ text: "a\uFFFDb", names: ["\uFFFD", "\\ud83d"], big: "1" });
    });

    test("arbitrary text survives (property)", async () => {
      const property = fc.asyncProperty(
        fc.array(fc.tuple(fc.string({ unit: "binary" }), fc.array(fc.string({ unit: "binary" }), { maxLength: 4 })), {
          minLength: 1,
          maxLength: 200,
        }),
        fc.nat({ max: 2 ** 40 }),
        async (texts, base) => {
          await store.execute(
            "CREATE TABLE IF NOT EXISTS contract_texts (base UInt64, n UInt32, text String, names Array(String)) ENGINE = MergeTree ORDER BY (base, n)",
          );
          await store.insert({
            table: "contract_texts",
            columns: ["base", "n", "text", "names"],
            rows: texts.map(([text, names], n) => [base, n, text, names]),
          });
          const found = await store.select<{ text: string; names: string[] }>(
            "SELECT text, names FROM contract_texts WHERE base = {base:UInt64} ORDER BY n",
            { base },
          );
          expect(found.map(({ text, names }) => [text, names])).toEqual(texts.map(([text, names]) => [text, names]));
          await store.execute("TRUNCATE TABLE contract_texts");
        },
      );
      await fc.assert(property, { numRuns: 15 });
    });

    test("a parameter is never read as SQL", async () => {
      await insert([row(300), row(301)]);
      const found = await store.select(
        "SELECT id FROM contract_values WHERE text = {text:String} AND id >= 300 AND id < 302",
        {
          text: "' OR 1 = 1 --",
        },
      );
      expect(found).toEqual([]);
      await expect(store.select("SELECT {n:UInt64} AS n", { n: "1; SELECT 2" })).rejects.toMatchObject({
        code: "STORE_UNAVAILABLE",
      });
    });

    test("parameters of one statement do not reach another that runs beside it", async () => {
      const answers = await Promise.all(
        Array.from({ length: 60 }, async (_, n) =>
          store.select<{ v: string }>("SELECT {v:String} AS v", { v: `value ${n}` }),
        ),
      );
      expect(answers.map(([answer]) => answer?.v)).toEqual(Array.from({ length: 60 }, (_, n) => `value ${n}`));
    });

    test("100,000 rows in one insert", async () => {
      const rows = Array.from({ length: 100_000 }, (_, n) =>
        row(1_000_000 + n, { text: `row\t${n}`, amount: `${n}.000000001`, names: ["model", `m${n % 7}`] }),
      );
      await insert(rows);
      expect(
        await store.select(
          "SELECT count() AS n, sum(amount) AS amount, uniqExact(text) AS texts FROM contract_values WHERE id >= 1000000 AND id < 1100000",
        ),
      ).toEqual([{ n: "100000", amount: "4999950000.0001", texts: "100000" }]);
    });

    test("inserting nothing does nothing", async () => {
      await store.insert({ table: "contract_values", columns: ["id"], rows: [] });
    });

    /** 300,000 rows of one UInt32: more than one piece in both adapters, and not a whole number of rows in each. */
    const NUMBERS = "SELECT toUInt32(number) AS n FROM numbers({count:UInt64})";

    test("G4 a scan visits every row once and in order, as RowBinary, over many pieces", async () => {
      const pieces: Buffer[] = [];
      // The bytes are the visitor's until it has ended; so what it keeps it copies.
      await store.scan(NUMBERS, { count: 300_000 }, (bytes) => {
        pieces.push(Buffer.from(bytes));
      });
      expect(pieces.length).toBeGreaterThan(1);
      const all = Buffer.concat(pieces);
      expect(all.length).toBe(4 * 300_000);
      const expected = Uint32Array.from({ length: 300_000 }, (_, n) => n);
      expect(all.equals(Buffer.from(expected.buffer))).toBe(true);
    });

    test("a scan waits for its visitor, and other statements run meanwhile", async () => {
      const answers: unknown[] = [];
      let visiting = 0;
      let most = 0;
      let pieces = 0;
      await store.scan(NUMBERS, { count: 300_000 }, async () => {
        visiting += 1;
        most = Math.max(most, visiting);
        pieces += 1;
        // From within the first piece: neither may wait for the scan to end.
        if (pieces === 1) answers.push(await store.select("SELECT 1 AS one"), await insert([row(400)]));
        visiting -= 1;
      });
      expect(most).toBe(1);
      expect(answers).toEqual([[{ one: 1 }], undefined]);
      expect(pieces).toBeGreaterThan(1);
    });

    test("a scan binds parameters, and visits nothing when there are no rows", async () => {
      const texts: string[] = [];
      const visit = (bytes: Uint8Array): void => {
        texts.push(Buffer.from(bytes).toString("utf8"));
      };
      await store.scan("SELECT {text:String} AS text", { text: "'; --" }, visit);
      expect(texts.join("")).toBe("\u0005'; --");
      texts.length = 0;
      await store.scan("SELECT 1 WHERE {n:UInt8} = 2", { n: 1 }, visit);
      expect(texts.join("")).toBe("");
    });

    test("what a scan's visitor throws ends the scan and arrives unchanged; the next scan works", async () => {
      const mine = new Error("enough");
      let pieces = 0;
      const scanning = store.scan(NUMBERS, { count: 5_000_000 }, () => {
        pieces += 1;
        if (pieces === 2) throw mine;
      });
      await expect(scanning).rejects.toBe(mine);
      expect(pieces).toBe(2);
      let bytes = 0;
      await store.scan(NUMBERS, { count: 10 }, (piece) => {
        bytes += piece.length;
      });
      expect(bytes).toBe(40);
    });

    test("G1 a scan that fails among its rows is STORE_UNAVAILABLE, never a shorter answer; so is one that never began", async () => {
      const failing = [
        "SELECT throwIf(number = 2000000) AS n FROM numbers(3000000)",
        "SELECT nonsense FROM contract_values",
        "SELECT {n:UInt8} AS n",
      ];
      for (const sql of failing) {
        const scanning = store.scan(sql, { n: "1; SELECT 2" }, () => {});
        await expect(scanning).rejects.toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
      }
      expect(await store.select("SELECT 1 AS one")).toEqual([{ one: 1 }]);
    });

    test("inserts and selects at the same time do not disturb each other", async () => {
      await store.execute(
        "CREATE TABLE contract_beside (writer UInt16, n UInt32) ENGINE = MergeTree ORDER BY (writer, n)",
      );
      const writers = Array.from({ length: 8 }, async (_, writer) => {
        for (let n = 0; n < 10; n += 1)
          await store.insert({ table: "contract_beside", columns: ["writer", "n"], rows: [[writer, n]] });
      });
      const readers = Array.from({ length: 8 }, async (_, writer) => {
        for (let n = 0; n < 10; n += 1) {
          const [answer] = await store.select<{ w: number; rows: string }>(
            "SELECT {w:UInt16} AS w, countIf(writer = {w:UInt16}) AS rows FROM contract_beside",
            { w: writer },
          );
          expect(answer?.w).toBe(writer);
        }
      });
      await Promise.all([...writers, ...readers]);
      expect(
        await store.select("SELECT count() AS stored, uniqExact(writer, n) AS distinct FROM contract_beside"),
      ).toEqual([{ stored: "80", distinct: "80" }]);
    });

    test("G2 an equal insert twice is two inserts: the store deduplicates nothing", async () => {
      await store.execute(
        "CREATE TABLE contract_twice (n UInt32) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100",
      );
      for (let again = 0; again < 2; again += 1)
        await store.insert({ table: "contract_twice", columns: ["n"], rows: [[1], [2]] });
      expect(await store.select("SELECT count() AS n FROM contract_twice")).toEqual([{ n: "4" }]);
    });

    test("a row of one day and a row of the next are stored by one insert, over any number of days", async () => {
      await store.execute(
        "CREATE TABLE contract_days (at DateTime('UTC')) ENGINE = MergeTree PARTITION BY toYYYYMMDD(at) ORDER BY at",
      );
      await store.insert({
        table: "contract_days",
        columns: ["at"],
        rows: Array.from({ length: 150 }, (_, day) => [day * 86_400]),
      });
      expect(await store.select("SELECT uniqExact(toDate(at)) AS days FROM contract_days")).toEqual([{ days: "150" }]);
    });

    test("what the engine refuses is STORE_UNAVAILABLE with the engine's text in its cause", async () => {
      const failures: (() => Promise<unknown>)[] = [
        async () => store.select("SELECT nonsense FROM contract_values"),
        async () => store.select("SELECT 1 FROM contract_missing"),
        async () => store.execute("CREATE TABLE contract_values (id UInt64) ENGINE = MergeTree ORDER BY id"),
        async () => store.insert({ table: "contract_missing", columns: ["id"], rows: [[1]] }),
        async () => store.insert({ table: "contract_values", columns: ["misspelt"], rows: [[1]] }),
      ];
      for (const fail of failures) {
        const error: unknown = await fail().then(
          () => undefined,
          (reason: unknown) => reason,
        );
        expect(error).toMatchObject({ code: "STORE_UNAVAILABLE", action: "retry" });
        expect((error as TallyhouseError).cause).toMatchObject({ message: expect.stringMatching(/./) as string });
      }
      expect(await store.select("SELECT 1 AS one")).toEqual([{ one: 1 }]);
    });

    test("what only a bug can send is refused before the engine sees it", async () => {
      const refused: (() => Promise<unknown>)[] = [
        async () => insert([row(1, { amount: 1.5 })]),
        async () => insert([row(1, { small: Number.NaN })]),
        async () => insert([row(1, { id: "not a number" })]),
        async () => insert([row(1, { kind: "no such kind" })]),
        async () => insert([[1, "too short"]]),
        async () =>
          store.insert({ table: "contract_values; DROP TABLE contract_values", columns: ["id"], rows: [[1]] }),
        async () => store.insert({ table: "contract_values", columns: ["id) VALUES (1"], rows: [[1]] }),
        async () => store.select("SELECT {at:DateTime64(3)}", { at: new Date(0) }),
      ];
      for (const attempt of refused) await expect(attempt()).rejects.toMatchObject({ name: "InvariantError" });
    });

    testInserts(() => store);

    test("G1 closing and opening again keeps everything", async () => {
      await insert([row(900, { text: "still here" })]);
      await opened.close();
      await expect(store.select("SELECT 1")).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
      await expect(store.scan("SELECT 1", {}, () => {})).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
      opened = await open();
      store = opened.store;
      expect(await read(900)).toMatchObject({ text: "still here" });
    });
  });
}
