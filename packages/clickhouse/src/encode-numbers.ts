import type { AnalyticsValue } from "@tallyhouse/domain";
import type { ByteWriter } from "./byte-writer.ts";
import type { ColumnType, DecimalType, IntegerType } from "./column-types.ts";
import type { ColumnOfRows } from "./encode.ts";

const WORD = 2 ** 32;
const WORD_BITS = 64n;

/** Integers of any size: numbers below 2^53, bigints and decimal text. */
export function writeIntegers(writer: ByteWriter, type: IntegerType, { rows, index, refuse }: ColumnOfRows): void {
  const { bytes } = type;
  writer.reserve(bytes * rows.length);
  const min = Number(type.min);
  const max = Number(type.max);
  for (let row = 0; row < rows.length; row += 1) {
    const value = rows[row]?.[index];
    // Rounded to a double, `max` may be too large by one, but then no safe integer reaches it.
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max) {
      writeNumber(writer, value, bytes);
      continue;
    }
    const whole = type.isNumberOnly ? undefined : wholeOf(value);
    if (whole === undefined || whole < type.min || whole > type.max) throw refuse(row);
    writeBigint(writer, whole, bytes);
  }
}

/** Numbers below 2^53, bigints, and decimal text with no more fraction digits than the scale. */
export function writeDecimals(writer: ByteWriter, type: DecimalType, { rows, index, refuse }: ColumnOfRows): void {
  const { bytes, scale } = type;
  writer.reserve(bytes * rows.length);
  for (let row = 0; row < rows.length; row += 1) {
    const value = rows[row]?.[index];
    if (value === "0") {
      writeNumber(writer, 0, bytes);
      continue;
    }
    const scaled = scaledOf(value, scale);
    if (scaled === undefined || scaled > type.max || scaled < -type.max) throw refuse(row);
    writeBigint(writer, scaled, bytes);
  }
}

/** The numbers of the names. */
export function writeEnums(
  writer: ByteWriter,
  { bytes, numbers }: ColumnType & { kind: "enum" },
  { rows, index, refuse }: ColumnOfRows,
): void {
  writer.reserve(bytes * rows.length);
  for (let row = 0; row < rows.length; row += 1) {
    const value = rows[row]?.[index];
    const number = typeof value === "string" ? numbers.get(value) : undefined;
    if (number === undefined) throw refuse(row);
    writeNumber(writer, number, bytes);
  }
}

/** Two's complement of a safe integer; room is reserved. */
function writeNumber(writer: ByteWriter, value: number, bytes: number): void {
  const { view, at } = writer;
  writer.at = at + bytes;
  if (bytes === 1) view.setUint8(at, value);
  else if (bytes === 2) view.setUint16(at, value, true);
  else {
    view.setUint32(at, value, true);
    if (bytes === 4) return;
    view.setInt32(at + 4, Math.floor(value / WORD), true);
    for (let word = 8; word < bytes; word += 4) view.setInt32(at + word, value < 0 ? -1 : 0, true);
  }
}

/** Two's complement of a bigint that fits; room is reserved. */
function writeBigint(writer: ByteWriter, value: bigint, bytes: number): void {
  if (bytes < 8) return writeNumber(writer, Number(value), bytes);
  const { view, at } = writer;
  writer.at = at + bytes;
  let rest = value;
  for (let word = 0; word < bytes; word += 8) {
    // Takes the lowest 64 bits.
    view.setBigUint64(at + word, rest, true);
    rest >>= WORD_BITS;
  }
}

const WHOLE = /^-?\d+$/;
const DECIMAL = /^(-?\d+)(?:\.(\d+))?$/;

function wholeOf(value: AnalyticsValue | undefined): bigint | undefined {
  if (typeof value === "bigint") return value;
  return typeof value === "string" && WHOLE.test(value) ? BigInt(value) : undefined;
}

function scaledOf(value: AnalyticsValue | undefined, scale: number): bigint | undefined {
  if (typeof value === "bigint") return value * 10n ** BigInt(scale);
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) * 10n ** BigInt(scale) : undefined;
  const [, integer, fraction = ""] = typeof value === "string" ? (DECIMAL.exec(value) ?? []) : [];
  if (integer === undefined || fraction.length > scale) return undefined;
  return BigInt(integer + fraction.padEnd(scale, "0"));
}
