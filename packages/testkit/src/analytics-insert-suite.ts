import type { AnalyticsStore, AnalyticsValue } from "@tallyhouse/domain";
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";

/** A value, and how the engine shows what it stored. */
interface Stored {
  readonly value: AnalyticsValue;
  readonly shown: unknown;
}

/** A column of `contract_types`. */
interface ColumnCase {
  readonly type: string;
  /** How a SELECT shows it without loss; `v` is the column. */
  readonly show?: string;
  /** Values that it must hold to the last digit. */
  readonly holds: readonly Stored[];
  /** Values that are a bug of the caller. */
  readonly refuses: readonly unknown[];
  readonly arbitrary: fc.Arbitrary<Stored>;
}

/** The same number in each form that a caller may give it. */
function forms(number: bigint): Stored[] {
  const shown = String(number);
  const isSafe = Number.isSafeInteger(Number(number));
  return [number, shown, ...(isSafe ? [Number(number)] : [])].map((value) => ({ value, shown }));
}

/** No column of numbers takes any of them. */
const NO_NUMBERS = [
  1.5,
  Number.NaN,
  Infinity,
  2 ** 53,
  1e300,
  "",
  " 1",
  "1 ",
  "1e1",
  "0x1",
  "+1",
  "--1",
  "1,5",
  "NaN",
  "x",
  ["1"],
  null,
  undefined,
  true,
];

function integerCase(bits: number, isSigned: boolean): ColumnCase {
  const values = 1n << BigInt(bits);
  const min = isSigned ? -values / 2n : 0n;
  const max = min + values - 1n;
  return {
    type: `${isSigned ? "" : "U"}Int${bits}`,
    show: "toString(v)",
    holds: [min, min + 1n, 0n, 1n, max - 1n, max].flatMap(forms),
    refuses: [min - 1n, max + 1n, String(min - 1n), String(max + 1n), "1.0", ...NO_NUMBERS],
    arbitrary: fc.bigInt({ min, max }).chain((number) => fc.constantFrom(...forms(number))),
  };
}

/** `scaled` / 10^scale without needless zeros, as the engine writes it. */
function decimalText(scaled: bigint, scale: number): string {
  const digits = String(scaled < 0n ? -scaled : scaled).padStart(scale + 1, "0");
  const fraction = digits.slice(digits.length - scale).replace(/0+$/, "");
  const integer = digits.slice(0, digits.length - scale);
  return `${scaled < 0n ? "-" : ""}${integer}${fraction === "" ? "" : `.${fraction}`}`;
}

function decimalCase(precision: number, scale: number): ColumnCase {
  const max = 10n ** BigInt(precision) - 1n;
  const one = 10n ** BigInt(scale);
  const stored = (scaled: bigint): Stored[] => {
    const shown = decimalText(scaled, scale);
    const padded = shown.includes(".") ? shown : `${shown}.${"0".repeat(scale)}`;
    const whole = scaled % one === 0n ? forms(scaled / one) : [];
    return [shown, padded, ...whole.map(({ value }) => value)].map((value) => ({ value, shown }));
  };
  const tooLarge = decimalText(max + 1n, scale);
  return {
    type: `Decimal(${precision}, ${scale})`,
    show: "toString(v)",
    holds: [-max, -one, -1n, 0n, 1n, one - 1n, one, max].flatMap(stored),
    refuses: [tooLarge, `-${tooLarge}`, max / one + 1n, `0.${"0".repeat(scale)}1`, ".5", "1.", ...NO_NUMBERS],
    arbitrary: fc.bigInt({ min: -max, max }).chain((scaled) => fc.constantFrom(...stored(scaled))),
  };
}

/** Times are numbers alone: text in such a column is a date to the engine, or counts seconds. */
function timeCase({ type, show, min, max }: { type: string; show: string; min: number; max: number }): ColumnCase {
  const stored = (value: number): Stored => ({ value, shown: String(value) });
  return {
    type,
    show: `toString(${show})`,
    holds: [min, 0, 1, 1_700_000_000, max].map(stored),
    refuses: [
      ...(type === "DateTime('UTC')" ? [-1, 2 ** 32] : []),
      2 ** 53,
      0.5,
      Number.NaN,
      "1700000000",
      1n,
      "2026-01-01",
    ],
    arbitrary: fc.integer({ min, max }).map(stored),
  };
}

function enumCase(bits: number, names: Readonly<Record<string, number>>): ColumnCase {
  const list = Object.entries(names).map(([name, number]) => `'${name}' = ${number}`);
  return {
    type: `Enum${bits}(${list.join(", ")})`,
    show: "toString(v) || ' ' || toString(toInt16(v))",
    holds: Object.entries(names).map(([value, number]) => ({ value, shown: `${value} ${number}` })),
    refuses: ["no such name", " ", 1, 1n, null],
    arbitrary: fc
      .constantFrom(...Object.entries(names))
      .map(([value, number]) => ({ value, shown: `${value} ${number}` })),
  };
}

const text = fc.string({ unit: "binary" });
const same = (value: AnalyticsValue): Stored => ({ value, shown: value });

const CASES: readonly ColumnCase[] = [
  ...[8, 16, 32, 64, 128, 256].flatMap((bits) => [integerCase(bits, false), integerCase(bits, true)]),
  decimalCase(9, 2),
  decimalCase(18, 4),
  decimalCase(38, 9),
  decimalCase(76, 20),
  timeCase({ type: "DateTime('UTC')", show: "toUnixTimestamp(v)", min: 0, max: 2 ** 32 - 1 }),
  timeCase({ type: "DateTime64(3, 'UTC')", show: "toUnixTimestamp64Milli(v)", min: -(2 ** 53) + 1, max: 2 ** 53 - 1 }),
  enumCase(8, { none: 0, live: 1, "a, b = 2) c": -128, "": 127 }),
  enumCase(16, { low: -32_768, high: 32_767 }),
  {
    type: "Bool",
    show: "toUInt8(v)",
    holds: [0, 1].map(same),
    refuses: [2, -1, "true", true, 1n],
    arbitrary: fc.constantFrom(0, 1).map(same),
  },
  {
    type: "String",
    holds: ["", "x", "é".repeat(70), "x".repeat(20_000)].map(same),
    refuses: [1, 1n, ["x"], null],
    arbitrary: text.map(same),
  },
  {
    type: "LowCardinality(String)",
    holds: ["", "x", "é"].map(same),
    refuses: [1, ["x"], null],
    arbitrary: text.map(same),
  },
  {
    type: "Array(String)",
    holds: [[], [""], ["a", "", "é".repeat(70)]].map(same),
    refuses: ["x", [1], [null], 1, null],
    arbitrary: fc.array(text, { maxLength: 4 }).map(same),
  },
];

/** Rows of each of the property's runs. */
const ROWS_MAX = 40;

/** Inserts: every type to the last digit, and what happens when values or tables are not as expected. */
export function testInserts(store: () => AnalyticsStore): void {
  const nameOf = (index: number): string => `c${index}`;
  const shownAs = CASES.map(
    ({ show = "v" }, index) => `${show.replaceAll(/\bv\b/g, nameOf(index))} AS ${nameOf(index)}`,
  );
  const insert = async (column: string, values: readonly unknown[]): Promise<void> =>
    store().insert({
      table: "contract_types",
      columns: [column],
      rows: values.map((value) => [value as AnalyticsValue]),
    });

  beforeAll(async () => {
    const columns = CASES.map(({ type }, index) => `${nameOf(index)} ${type}`);
    await store().execute(
      `CREATE TABLE contract_types (n UInt32, ${columns.join(", ")}) ENGINE = MergeTree ORDER BY n SETTINGS index_granularity = 64`,
    );
  });

  test.each(CASES.map((one, index) => ({ ...one, column: nameOf(index) })))(
    "G4 $type keeps the values at its edges and refuses those beyond, before anything is sent",
    async ({ column, show = "v", holds, refuses }) => {
      const values = async (): Promise<unknown[]> => {
        const rows = await store().select<{ shown: unknown }>(
          `SELECT ${show.replaceAll(/\bv\b/g, column)} AS shown FROM contract_types ORDER BY n`,
        );
        return rows.map(({ shown }) => shown);
      };
      await store().execute("TRUNCATE TABLE contract_types");
      await store().insert({
        table: "contract_types",
        columns: [column, "n"],
        rows: holds.map(({ value }, n) => [value, n]),
      });
      const before = await values();
      expect(before).toEqual(holds.map(({ shown }) => shown));
      for (const value of refuses) {
        // Behind a good row: not that one either is stored.
        await expect(insert(column, [holds[0]?.value, value])).rejects.toMatchObject({ name: "InvariantError" });
      }
      expect(await values()).toEqual(before);
    },
  );

  test("G4 arbitrary rows of every type at once keep every value (property)", async () => {
    const rowsOfAll = fc.array(fc.tuple(...CASES.map(({ arbitrary }) => arbitrary)), {
      minLength: 1,
      maxLength: ROWS_MAX,
    });
    const property = fc.asyncProperty(rowsOfAll, async (rows) => {
      await store().execute("TRUNCATE TABLE contract_types");
      await store().insert({
        table: "contract_types",
        columns: ["n", ...CASES.map((_, index) => nameOf(index))],
        rows: rows.map((row, n) => [n, ...row.map(({ value }) => value)]),
      });
      const found = await store().select<Record<string, unknown>>(
        `SELECT ${shownAs.join(", ")} FROM contract_types ORDER BY n`,
      );
      expect(found.map((row) => Object.values(row))).toEqual(rows.map((row) => row.map(({ shown }) => shown)));
    });
    await fc.assert(property, { numRuns: 40 });
  });

  test.each([1, 256, 257, 65_536, 65_537])("G4 %i different texts of a LowCardinality column", async (count) => {
    await store().execute(
      "CREATE OR REPLACE TABLE contract_categories (n UInt32, category LowCardinality(String)) ENGINE = MergeTree ORDER BY n",
    );
    await store().insert({
      table: "contract_categories",
      columns: ["n", "category"],
      rows: Array.from({ length: count + 3 }, (_, n) => [n, `category ${n % count}`]),
    });
    expect(
      await store().select(
        `SELECT count() AS rows, uniqExact(category) AS categories, countIf(category = concat('category ', toString(n % {count:UInt32}))) AS right
        FROM contract_categories`,
        { count },
      ),
    ).toEqual([{ rows: String(count + 3), categories: String(count), right: String(count + 3) }]);
  });

  test("two unpaired surrogates of a LowCardinality column are one replacement character", async () => {
    const category = `c${CASES.findIndex(({ type }) => type.startsWith("LowCardinality"))}`;
    await store().execute("TRUNCATE TABLE contract_types");
    await insert(category, ["a\uD83D", "a\uDE00", "a\uFFFD"]);
    expect(await store().select(`SELECT ${category} AS v, count() AS n FROM contract_types GROUP BY v`)).toEqual([
      { v: "a\uFFFD", n: "3" },
    ]);
  });

  test("a table that was migrated under a running process: new columns, wider types, new names, another table", async () => {
    const migrate = async (sql: string): Promise<void> =>
      store().execute(sql.replace("TABLE T", "TABLE contract_migrated"));
    const put = async (row: Readonly<Record<string, AnalyticsValue>>): Promise<void> =>
      store().insert({ table: "contract_migrated", columns: Object.keys(row), rows: [Object.values(row)] });
    const stored = async (): Promise<unknown> => store().select("SELECT * FROM contract_migrated ORDER BY ALL");
    await migrate("CREATE TABLE T (small UInt16, kind Enum8('a' = 1)) ENGINE = MergeTree ORDER BY tuple()");
    await put({ small: 1, kind: "a" });
    // What could not be held before is looked at again before it is refused.
    await migrate("ALTER TABLE T MODIFY COLUMN small UInt32");
    await put({ small: 70_000, kind: "a" });
    await migrate("ALTER TABLE T MODIFY COLUMN kind Enum8('a' = 1, 'b' = 2)");
    await put({ small: 2, kind: "b" });
    await migrate("ALTER TABLE T ADD COLUMN text String");
    await put({ small: 3, kind: "a", text: "new" });
    // A row that would have fitted the old table is refused once, never converted, and then taken.
    await migrate("ALTER TABLE T MODIFY COLUMN small Int64");
    await expect(put({ small: 4, kind: "a", text: "" })).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    await put({ small: -4, kind: "a", text: "" });
    expect(await stored()).toEqual([
      { small: "-4", kind: "a", text: "" },
      { small: "1", kind: "a", text: "" },
      { small: "2", kind: "b", text: "" },
      { small: "3", kind: "a", text: "new" },
      { small: "70000", kind: "a", text: "" },
    ]);
    await migrate("DROP TABLE T SYNC");
    await migrate("CREATE TABLE T (small UInt8) ENGINE = MergeTree ORDER BY small");
    await expect(put({ small: 1 })).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    await put({ small: 1 });
    expect(await stored()).toEqual([{ small: 1 }]);
  });

  test("a type that an insert cannot write is refused by the names of table, column and type", async () => {
    await store().execute(
      "CREATE TABLE contract_odd (id UInt64, odd Map(String, Float64) DEFAULT map()) ENGINE = MergeTree ORDER BY id",
    );
    await expect(
      store().insert({ table: "contract_odd", columns: ["id", "odd"], rows: [[1, "{}"]] }),
    ).rejects.toMatchObject({
      name: "InvariantError",
      message: "column odd of contract_odd is Map(String, Float64), which an insert cannot write",
    });
    await store().insert({ table: "contract_odd", columns: ["id"], rows: [[1]] });
    expect(await store().select("SELECT count() AS n FROM contract_odd")).toEqual([{ n: "1" }]);
  });

  test("one insert makes one part in each of its partitions, however many rows", async () => {
    await store().execute(
      "CREATE TABLE contract_parts (n UInt32, text String) ENGINE = MergeTree PARTITION BY n % 2 ORDER BY n",
    );
    await store().execute("SYSTEM STOP MERGES contract_parts");
    const rows = Array.from({ length: 150_000 }, (_, n) => [n, "x".repeat(50)]);
    await store().insert({ table: "contract_parts", columns: ["n", "text"], rows });
    expect(
      await store().select(
        "SELECT count() AS parts, sum(rows) AS rows FROM system.parts WHERE database = currentDatabase() AND table = 'contract_parts'",
      ),
    ).toEqual([{ parts: "2", rows: "150000" }]);
    await store().execute("SYSTEM START MERGES contract_parts");
  });
}
