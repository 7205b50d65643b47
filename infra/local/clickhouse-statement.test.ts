import { describe, expect, it } from "vitest";
import { answerFormatOf, breakageOf, insertHeadOf, kindOf } from "./clickhouse-statement.ts";

describe("kindOf", () => {
  it.each([
    ["SELECT 1", "select"],
    ["-- SET\n/* USE */ (with 1 AS a SELECT a)", "select"],
    ["insert into t values (1)", "insert"],
    ["SET a = 1", "stateful"],
    [" create temporary table t (a UInt8)", "stateful"],
    ["CREATE TABLE t (a UInt8) ENGINE = Memory", "other"],
    ["SHOW TABLES", "other"],
  ])("%s is %s", (sql, kind) => {
    expect(kindOf(sql)).toBe(kind);
  });
});

describe("insertHeadOf", () => {
  it("splits where the rows begin, whatever quoted names and comments say", () => {
    const head =
      'INSERT INTO `a FORMAT b`."SELECT" (`x\'`) /* VALUES */ SETTINGS async_insert = 0 FORMAT JSONEachRow\n';
    const found = insertHeadOf(`${head}{"FORMAT":1}`);
    expect(found).toEqual({
      target: 'INSERT INTO `a FORMAT b`."SELECT" (`x\'`) /* VALUES */',
      settings: "SETTINGS async_insert = 0",
      format: "JSONEachRow",
      end: head.length,
    });
  });

  it("leaves binary rows alone, one line break after the format belongs to the statement", () => {
    expect(insertHeadOf("INSERT INTO t FORMAT Native \r\n\n\u0000\u0001")?.end).toBe(
      "INSERT INTO t FORMAT Native \r\n".length,
    );
  });

  it.each(["INSERT INTO t SELECT 1 FORMAT Null", "INSERT INTO t VALUES (' FORMAT ')", "SELECT 1 FORMAT TSV"])(
    "is undefined when no rows follow: %s",
    (sql) => {
      expect(insertHeadOf(sql)).toBeUndefined();
    },
  );

  it("copes with a statement of 20 MB in one text", () => {
    const sql = `INSERT INTO t VALUES ('${String.raw`\' FORMAT x`.repeat(2_000_000)}')`;
    expect([insertHeadOf(sql), kindOf(sql), answerFormatOf(sql)]).toEqual([undefined, "insert", undefined]);
  });
});

describe("answerFormatOf", () => {
  it.each([
    ["SELECT 1 FORMAT JSON", "JSON"],
    ["SELECT ' FORMAT CSV' FORMAT Native SETTINGS max_threads = 1 ; ", "Native"],
    ["SELECT 1 -- FORMAT CSV", undefined],
    ["SELECT format('{}', 1) AS format", undefined],
  ])("%s: %s", (sql, format) => {
    expect(answerFormatOf(sql)).toBe(format);
  });
});

describe("breakageOf", () => {
  it("reads the order from a comment", () => {
    expect(breakageOf("SELECT 1 /* front:cut-after=12 */")).toEqual({ how: "cut", afterBytes: 12 });
    expect(breakageOf("SELECT 1 /* front:other-after=12 */")).toBeUndefined();
  });
});
