import type { LogEntry, LogRecord } from "@tallyhouse/domain";
import { crc32c } from "./crc32c.ts";
import { RECORD_BYTES_MAX } from "./record-size.ts";

/*
 * One record on disk, little-endian:
 *
 *   u32 length of the body | u32 CRC-32C of the body | body:
 *   u64 offset | u64 receivedAt | i32 key length | i32 value length (-1: null) | u16 header count |
 *   per header: u16 name length, u32 value length, name, value | key | value
 *
 * The body is never empty, so a run of zeros (what a file system may leave behind a power loss) is not a frame.
 */
const HEAD_BYTES = 8;
const BODY_FIXED_BYTES = 26;
const HEADER_FIXED_BYTES = 6;
const UINT32 = 4_294_967_296;
const NO_HEADERS: Readonly<Record<string, Buffer>> = Object.freeze({});

/** Smallest frame: no key, no value, no header. */
export const FRAME_BYTES_MIN = HEAD_BYTES + BODY_FIXED_BYTES;
/** Largest frame: `recordBytes` counts more for every part than a frame takes. */
export const FRAME_BYTES_MAX = RECORD_BYTES_MAX;

/** What the log adds to a record: its place and its append time (epoch milliseconds). */
export interface FrameStamp {
  readonly offset: number;
  readonly receivedAt: number;
}

/** Exact bytes of the record's frame. */
export function frameBytes(record: LogRecord): number {
  let bytes = FRAME_BYTES_MIN + (record.key?.length ?? 0) + (record.value?.length ?? 0);
  for (const name in record.headers) {
    bytes += HEADER_FIXED_BYTES + Buffer.byteLength(name) + (record.headers[name]?.length ?? 0);
  }
  return bytes;
}

/** Appends one frame to `target.bytes` at `target.at` and moves `at` behind it. The room must be there. */
export function writeFrame(target: { bytes: Buffer; at: number }, record: LogRecord, stamp: FrameStamp): void {
  const { bytes, at: start } = target;
  const { key, value } = record;
  let at = start + HEAD_BYTES;
  at = writeUint64(bytes, at, stamp.offset);
  at = writeUint64(bytes, at, stamp.receivedAt);
  at = bytes.writeInt32LE(key === null ? -1 : key.length, at);
  at = bytes.writeInt32LE(value === null ? -1 : value.length, at);
  const headerCountAt = at;
  at += 2;
  let headerCount = 0;
  for (const name in record.headers) {
    const header = record.headers[name] as Buffer;
    const nameBytes = bytes.write(name, at + HEADER_FIXED_BYTES, "utf8");
    bytes.writeUInt16LE(nameBytes, at);
    bytes.writeUInt32LE(header.length, at + 2);
    at += HEADER_FIXED_BYTES + nameBytes;
    bytes.set(header, at);
    at += header.length;
    headerCount += 1;
  }
  bytes.writeUInt16LE(headerCount, headerCountAt);
  if (key !== null) {
    bytes.set(key, at);
    at += key.length;
  }
  if (value !== null) {
    bytes.set(value, at);
    at += value.length;
  }
  bytes.writeUInt32LE(at - start - HEAD_BYTES, start);
  bytes.writeUInt32LE(crc32c(bytes, start + HEAD_BYTES, at), start + 4);
  target.at = at;
}

/**
 * What the frame at `at` says of its own length, in whole-frame bytes.
 * 0: no frame can have this length, or fewer than 8 bytes are left. The result may reach beyond `bytes`.
 */
export function statedFrameBytes(bytes: Buffer, at: number): number {
  if (at + HEAD_BYTES > bytes.length) return 0;
  const total = HEAD_BYTES + bytes.readUInt32LE(at);
  return total < FRAME_BYTES_MIN || total > FRAME_BYTES_MAX ? 0 : total;
}

/** Whether the whole frame `bytes[at, at + total)` is what was written. */
export function isIntact(bytes: Buffer, at: number, total: number): boolean {
  return bytes.readUInt32LE(at + 4) === crc32c(bytes, at + HEAD_BYTES, at + total);
}

/** The offset that the frame at `at` states; its first 16 bytes must be there. */
export function statedOffset(bytes: Buffer, at: number): number {
  return readUint64(bytes, at + HEAD_BYTES);
}

/** The receivedAt that the frame at `at` states; its first 24 bytes must be there. */
export function statedReceivedAt(bytes: Buffer, at: number): number {
  return readUint64(bytes, at + HEAD_BYTES + 8);
}

/** Reads an intact frame. Key, value and headers are views into `bytes`, not copies. */
export function readFrame(bytes: Buffer, at: number): LogEntry {
  const keyLength = bytes.readInt32LE(at + 24);
  const valueLength = bytes.readInt32LE(at + 28);
  const headerCount = bytes.readUInt16LE(at + 32);
  let next = at + FRAME_BYTES_MIN;
  let headers = NO_HEADERS;
  if (headerCount > 0) {
    // Without a prototype: a header may be called `__proto__`.
    const named = Object.create(null) as Record<string, Buffer>;
    for (let i = 0; i < headerCount; i += 1) {
      const nameEnd = next + HEADER_FIXED_BYTES + bytes.readUInt16LE(next);
      const headerEnd = nameEnd + bytes.readUInt32LE(next + 2);
      named[bytes.toString("utf8", next + HEADER_FIXED_BYTES, nameEnd)] = bytes.subarray(nameEnd, headerEnd);
      next = headerEnd;
    }
    headers = named;
  }
  const keyEnd = next + Math.max(keyLength, 0);
  return {
    offset: statedOffset(bytes, at),
    receivedAt: statedReceivedAt(bytes, at),
    key: keyLength < 0 ? null : bytes.subarray(next, keyEnd),
    value: valueLength < 0 ? null : bytes.subarray(keyEnd, keyEnd + valueLength),
    headers,
    marker: false,
  };
}

function writeUint64(bytes: Buffer, at: number, value: number): number {
  bytes.writeUInt32LE(value % UINT32, at);
  return bytes.writeUInt32LE(Math.floor(value / UINT32), at + 4);
}

function readUint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * UINT32;
}
