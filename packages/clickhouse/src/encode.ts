import { type AnalyticsValue, assert } from "@tallyhouse/domain";

/**
 * Most bytes of one INSERT. A flush is at most 64 MiB of records; rows repeat no more than their identity and times,
 * so eight times that is a bug of the caller, not a busy hour.
 */
export const INSERT_BYTES_MAX = 512 * 1024 * 1024;

/** Rows joined into one string at a time: long strings cost a copy, short ones a call. */
const ROWS_PER_CHUNK = 1_000;

/**
 * Rows as JSONCompactEachRow in one buffer: a number stays a bare number, which ClickHouse reads as the scaled value
 * of a DateTime64 (epoch milliseconds), and all else is text, which it reads as the column's type. Unpaired
 * surrogates, which UTF-8 cannot hold, become U+FFFD. Pure.
 *
 * Why this format: of the text formats it costs least (docs in the README), and TabSeparated reads a small
 * epoch as a date.
 * @throws {InvariantError} for a row of another length than `columns`, a number that is no safe integer, or more than
 * {@link INSERT_BYTES_MAX}.
 */
export function encodeRows(columns: number, rows: readonly (readonly AnalyticsValue[])[]): Buffer {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for (let from = 0; from < rows.length; from += ROWS_PER_CHUNK) {
    let text = "";
    for (const row of rows.slice(from, from + ROWS_PER_CHUNK)) {
      assert(row.length === columns, `a row has ${row.length} values for ${columns} columns`);
      text += `${encodeRow(row)}\n`;
    }
    const chunk = Buffer.from(text, "utf8");
    bytes += chunk.length;
    assert(bytes <= INSERT_BYTES_MAX, `an insert of ${rows.length} rows is larger than ${INSERT_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, bytes);
}

function encodeRow(row: readonly AnalyticsValue[]): string {
  let hasBigint = false;
  for (const value of row) {
    if (typeof value === "bigint") hasBigint = true;
    // JSON would write NaN as null, which ClickHouse stores as the column's default: a silent zero.
    else if (typeof value === "number")
      assert(Number.isSafeInteger(value), `${value} is not a whole number below 2^53`);
  }
  const line = JSON.stringify(hasBigint ? row.map(bigintAsText) : row);
  // JSON.stringify writes a `\ud…` escape only for an unpaired surrogate; a literal backslash-u-d merely takes the slow way.
  return line.includes("\\ud") ? JSON.stringify(row.map(wellFormed)) : line;
}

function bigintAsText(value: AnalyticsValue): AnalyticsValue {
  return typeof value === "bigint" ? String(value) : value;
}

function wellFormed(value: AnalyticsValue): AnalyticsValue {
  if (typeof value === "string") return value.toWellFormed();
  return Array.isArray(value) ? value.map((text: string) => text.toWellFormed()) : bigintAsText(value);
}
