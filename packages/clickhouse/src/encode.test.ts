import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openChdb } from "./chdb.ts";
import { type Column, columnTypeOf } from "./column-types.ts";
import { encodeRows } from "./encode.ts";

const columnOf = (name: string, typeName: string): Column => ({ name, typeName, type: columnTypeOf(typeName) });

const COLUMNS = [
  columnOf("id", "UInt64"),
  columnOf("text", "String"),
  columnOf("kind", "LowCardinality(String)"),
  columnOf("amount", "Decimal(38, 9)"),
  columnOf("names", "Array(String)"),
];
const ROWS = Array.from({ length: 3 }, (_, n) => [n, `text ${n}`, "kind", `${n}.5`, ["a", "b"]]);

test("G1 a block that is cut at any byte is an error and stores nothing", async () => {
  const channels = await openChdb(await mkdtemp(join(tmpdir(), "tallyhouse-cut-")));
  const { connection } = channels.writer;
  const columns = COLUMNS.map(({ name }) => name);
  await connection.command(
    `CREATE TABLE cut (${COLUMNS.map(({ name, typeName }) => `${name} ${typeName}`).join(", ")}) ENGINE = MergeTree ORDER BY id`,
  );
  const body = encodeRows({ table: "cut", columns: COLUMNS, rows: ROWS });
  const stored = async (): Promise<unknown> => connection.select("SELECT toUInt32(count()) AS n FROM cut", undefined);
  for (let bytes = 1; bytes < body.length; bytes += 1)
    await expect(
      connection.insert({ table: "cut", columns, body: body.subarray(0, bytes) }),
      `cut after ${bytes}`,
    ).rejects.toThrow(/Code: \d+|./);
  expect(await stored()).toEqual([{ n: 0 }]);
  await connection.insert({ table: "cut", columns, body });
  expect(await stored()).toEqual([{ n: 3 }]);
  await Promise.all(Object.values(channels).map(async (channel) => channel.connection.close()));
});

test("memory grows as the rows need it, whatever was guessed, and texts keep their length at every size of it", () => {
  const texts = [0, 1, 23, 24, 42, 43, 127, 128, 129, 5_461, 5_462, 16_383, 16_384, 70_000, 2 ** 21].flatMap(
    (length) => ["x".repeat(length), "é".repeat(Math.ceil(length / 2)), "☃".repeat(Math.ceil(length / 3))],
  );
  const columns = [columnOf("text", "String")];
  const rows = texts.map((text) => [text]);
  const roomy = encodeRows({ table: "t", columns, rows, rowBytes: 2 ** 20 });
  expect(encodeRows({ table: "t", columns, rows, rowBytes: 0 }).equals(roomy)).toBe(true);
  // Columns, rows, "text", "String", then length and bytes of each text.
  let at = 2 + 5 + 7;
  for (const text of texts) {
    let length = 0;
    for (let shift = 1, more = true; more; shift *= 128, at += 1) {
      const byte = roomy[at] ?? 0;
      length += (byte % 128) * shift;
      more = byte >= 128;
    }
    expect(roomy.toString("utf8", at, at + length) === text).toBe(true);
    at += length;
  }
  expect(at).toBe(roomy.length);
});

test("a row of another length is refused, and so are more than 512 MiB", () => {
  const columns = [columnOf("text", "String")];
  expect(() => encodeRows({ table: "t", columns, rows: [["a"], ["a", "b"]] })).toThrow(
    "a row has 2 values for 1 columns",
  );
  const large = "x".repeat(100 * 1024 * 1024);
  expect(() => encodeRows({ table: "t", columns, rows: Array.from({ length: 6 }, () => [large]) })).toThrow(
    "an insert is larger than 536870912 bytes",
  );
});

test.each([
  ...["Float64", "Nullable(String)", "FixedString(3)", "Date", "UUID", "Map(String, String)", "Array(UInt8)"],
  ...["LowCardinality(Nullable(String))", String.raw`Enum8('it\'s' = 1)`, "DateTime64(3, 'a\"b')", "UInt7"],
])("%s is no type that an insert writes", (typeName) => {
  expect(columnTypeOf(typeName)).toBeUndefined();
});
