import { type AnalyticsValue, assert, InvariantError } from "@tallyhouse/domain";
import { ByteWriter } from "./byte-writer.ts";
import type { Column, ColumnType } from "./column-types.ts";
import { writeDecimals, writeEnums, writeIntegers } from "./encode-numbers.ts";

/** Rows as the caller has them: values in the order of the columns. */
export type Rows = readonly (readonly AnalyticsValue[])[];

/** One column of the rows to write. */
export interface ColumnOfRows {
  readonly rows: Rows;
  /** Its place in each row. */
  readonly index: number;
  /** The error for a value that the column cannot hold. */
  refuse(row: number): InvariantError;
}

/** Bytes of a row when nobody knows better. */
const ROW_BYTES_GUESS = 256;
/** Rows of one insert are a little longer than those of the last. */
const GUESS_MARGIN = 1.1;

/**
 * Rows as one block of ClickHouse's Native format, in one buffer: names, types, then column by column.
 *
 * Why this format: the types travel with the values, so the engine refuses bytes that were made for another state of the
 * table; and the block says how many rows it holds, so a body that was cut anywhere within is an error and stores nothing.
 * Pure.
 * @throws {InvariantError} for a row of another length than `columns`, a type that nothing here writes, a value that its
 * column cannot hold (beyond its range, not whole, no number, no such name), or too many bytes.
 */
export function encodeRows(input: {
  table: string;
  columns: readonly Column[];
  rows: Rows;
  /** About how long a row will be. */
  rowBytes?: number;
}): Buffer {
  const { table, columns, rows, rowBytes = ROW_BYTES_GUESS } = input;
  for (const row of rows)
    assert(row.length === columns.length, `a row has ${row.length} values for ${columns.length} columns`);
  const writer = new ByteWriter(Math.ceil(rows.length * rowBytes * GUESS_MARGIN));
  writer.length(columns.length);
  writer.length(rows.length);
  for (const [index, { name, typeName, type }] of arraysFirst(columns)) {
    assert(type !== undefined, `column ${name} of ${table} is ${typeName}, which an insert cannot write`);
    writer.text(name);
    writer.text(typeName);
    // Without the value, which may be personal.
    const refuse = (row: number): InvariantError =>
      new InvariantError(
        `row ${row} of an insert into ${table}: ${name} is ${typeName} and cannot hold this ${typeof rows[row]?.[index]}`,
      );
    writeColumn(writer, type, { rows, index, refuse });
  }
  return writer.finish();
}

/**
 * The columns with their places, arrays before the others; the engine takes them by name. Its reader (26.7) does not miss
 * the texts of arrays that end the block, so such a block, cut right before them, would be stored and could not be read.
 */
function arraysFirst(columns: readonly Column[]): (readonly [number, Column])[] {
  const isArray = ([, { type }]: readonly [number, Column]): boolean => type?.kind === "texts";
  const placed = [...columns.entries()];
  return [...placed.filter(isArray), ...placed.filter((column) => !isArray(column))];
}

function writeColumn(writer: ByteWriter, type: ColumnType, values: ColumnOfRows): void {
  switch (type.kind) {
    case "text":
      return writeTexts(writer, values);
    case "dictionary":
      return writeDictionary(writer, values);
    case "texts":
      return writeTextArrays(writer, values);
    case "integer":
      return writeIntegers(writer, type, values);
    case "decimal":
      return writeDecimals(writer, type, values);
    case "enum":
      return writeEnums(writer, type, values);
  }
}

function writeTexts(writer: ByteWriter, { rows, index, refuse }: ColumnOfRows): void {
  for (let row = 0; row < rows.length; row += 1) {
    const value = rows[row]?.[index];
    if (typeof value !== "string") throw refuse(row);
    writer.text(value);
  }
}

/** Offsets of all rows, then all texts. */
function writeTextArrays(writer: ByteWriter, { rows, index, refuse }: ColumnOfRows): void {
  let texts = 0;
  for (let row = 0; row < rows.length; row += 1) {
    const value = rows[row]?.[index];
    if (!Array.isArray(value)) throw refuse(row);
    texts += value.length;
    writer.uint64(texts);
  }
  for (let row = 0; row < rows.length; row += 1) {
    for (const text of rows[row]?.[index] as readonly string[]) {
      if (typeof text !== "string") throw refuse(row);
      writer.text(text);
    }
  }
}

/** Version 1: keys of its own, no dictionary shared between blocks. */
const DICTIONARY_VERSION = 1;
const HAS_OWN_KEYS = 0x200;

/** Each different text once, then a place among them per row. */
function writeDictionary(writer: ByteWriter, { rows, index, refuse }: ColumnOfRows): void {
  const places = new Map<string, number>();
  const keys: string[] = [];
  const placeOfRow = new Uint32Array(rows.length);
  for (let row = 0; row < rows.length; row += 1) {
    const value = rows[row]?.[index];
    if (typeof value !== "string") throw refuse(row);
    let place = places.get(value);
    if (place === undefined) {
      // Two different texts may be one when they are stored.
      const stored = value.toWellFormed();
      place = places.get(stored) ?? keys.push(stored) - 1;
      places.set(stored, place).set(value, place);
    }
    placeOfRow[row] = place;
  }
  const placeBytes = keys.length <= 2 ** 8 ? 1 : keys.length <= 2 ** 16 ? 2 : 4;
  writer.uint64(DICTIONARY_VERSION);
  writer.uint64(HAS_OWN_KEYS + Math.log2(placeBytes));
  writer.uint64(keys.length);
  for (const key of keys) writer.text(key);
  writer.uint64(rows.length);
  writer.unsigned(placeOfRow, placeBytes);
}
