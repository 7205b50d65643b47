import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { crc32 } from "node:zlib";

/** Bytes read at once. */
const READ_BYTES = 1 << 20;
/** `crc32` in 8 hex digits and a space. */
const PREFIX_LENGTH = 9;
const NEWLINE = 0x0a;

/** One record as a line: checksum, JSON, newline. JSON never holds a raw newline. */
export function encodeRecord(value: unknown): string {
  const json = JSON.stringify(value);
  return `${checksum(json)} ${json}\n`;
}

function checksum(content: string | Buffer): string {
  return crc32(content).toString(16).padStart(8, "0");
}

/** How much of a file is whole records from its start, and how long it is. Equal for an intact file. */
export interface RecordFileEnd {
  readonly validBytes: number;
  readonly fileBytes: number;
}

/**
 * Reads records in order until the first damaged one (wrong checksum, or no newline), which is not delivered.
 * A file that does not exist has none.
 */
export function readRecords(path: string, onRecord: (value: unknown) => void): RecordFileEnd {
  const file = openIfPresent(path);
  if (file === undefined) return { validBytes: 0, fileBytes: 0 };
  try {
    let validBytes = 0;
    let rest: Buffer = Buffer.alloc(0);
    const chunk = Buffer.allocUnsafe(READ_BYTES);
    for (;;) {
      const bytes = readSync(file, chunk, 0, READ_BYTES, null);
      if (bytes === 0) break;
      const data = Buffer.concat([rest, chunk.subarray(0, bytes)]);
      let from = 0;
      for (let end = data.indexOf(NEWLINE); end !== -1; end = data.indexOf(NEWLINE, from)) {
        const record = decode(data.subarray(from, end));
        if (record === undefined) return { validBytes, fileBytes: fstatSync(file).size };
        onRecord(record.value);
        validBytes += end + 1 - from;
        from = end + 1;
      }
      rest = data.subarray(from);
    }
    return { validBytes, fileBytes: fstatSync(file).size };
  } finally {
    closeSync(file);
  }
}

function openIfPresent(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function decode(line: Buffer): { value: unknown } | undefined {
  const json = line.subarray(PREFIX_LENGTH);
  if (line.subarray(0, PREFIX_LENGTH).toString("latin1") !== `${checksum(json)} `) return undefined;
  return { value: JSON.parse(json.toString("utf8")) };
}
