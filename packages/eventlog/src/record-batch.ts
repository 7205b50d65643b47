import { zstdCompressSync } from "node:zlib";
import type { LogRecord } from "@tallyhouse/domain";
import { crc32c } from "./crc32c.ts";
import { ZSTD_PARAMETERS } from "./kafkajs-mends.ts";

/*
 * Kafka's record batch, magic 2, big-endian:
 *
 *   i64 base offset | i32 length of what follows | i32 leader epoch | i8 magic | u32 CRC-32C of what follows | i16 attributes |
 *   i32 last offset delta | i64 first timestamp | i64 last timestamp | i64 producer | i16 epoch | i32 sequence | i32 record count |
 *   per record: length, i8 0, timestamp delta 0, offset delta, key, value, header count, per header: name, value
 *
 * Lengths and deltas of records are zigzag varints; -1 stands for null.
 */
const HEAD_BYTES = 61;
const LENGTH_AT = 8;
const LENGTH_END = 12;
const MAGIC_AT = 16;
const CRC_AT = 17;
const CRC_END = 21;
const LAST_DELTA_AT = 23;
const FIRST_TIME_AT = 27;
const LAST_TIME_AT = 35;
const PRODUCER_AT = 43;
const COUNT_AT = 57;
const MAGIC = 2;
const ZSTD = 4;

/**
 * Encodes the records of one partition as one batch. `timestamp` is the producer's, in epoch milliseconds; a topic of LogAppendTime
 * replaces it. Byte for byte what kafkajs makes of the same records, at a tenth of its cost: it builds some ten growing buffers for each.
 * @see https://kafka.apache.org/documentation/#recordbatch (read 2026-11)
 */
export function encodeRecordBatch(
  records: readonly LogRecord[],
  options: { readonly timestamp: number; readonly isCompressed: boolean },
): Buffer {
  let recordsBytes = 0;
  for (const [delta, record] of records.entries()) {
    const bodyBytes = bodyBytesOf(record, delta);
    recordsBytes += varintBytes(bodyBytes) + bodyBytes;
  }
  const whole = Buffer.allocUnsafeSlow(HEAD_BYTES + recordsBytes);
  let at = HEAD_BYTES;
  for (const [delta, record] of records.entries()) at = writeRecord(whole, at, { record, delta });
  if (!options.isCompressed) return withHead(whole, records.length, { attributes: 0, timestamp: options.timestamp });
  const packed = zstdCompressSync(whole.subarray(HEAD_BYTES), { params: ZSTD_PARAMETERS });
  const batch = Buffer.allocUnsafeSlow(HEAD_BYTES + packed.length);
  packed.copy(batch, HEAD_BYTES);
  return withHead(batch, records.length, { attributes: ZSTD, timestamp: options.timestamp });
}

function withHead(batch: Buffer, count: number, head: { attributes: number; timestamp: number }): Buffer {
  batch.fill(0, 0, HEAD_BYTES);
  batch.writeInt32BE(batch.length - LENGTH_END, LENGTH_AT);
  batch[MAGIC_AT] = MAGIC;
  batch.writeInt16BE(head.attributes, CRC_END);
  batch.writeInt32BE(count - 1, LAST_DELTA_AT);
  batch.writeBigInt64BE(BigInt(head.timestamp), FIRST_TIME_AT);
  batch.writeBigInt64BE(BigInt(head.timestamp), LAST_TIME_AT);
  // No producer id: plain sends, which can only duplicate.
  batch.writeBigInt64BE(-1n, PRODUCER_AT);
  batch.writeInt32BE(count, COUNT_AT);
  batch.writeUInt32BE(crc32c(batch, CRC_END, batch.length), CRC_AT);
  return batch;
}

/** Bytes of a record behind its own length. */
function bodyBytesOf({ key, value, headers }: LogRecord, delta: number): number {
  // Two of them are the attributes and the timestamp's delta, both 0.
  let bytes = 2 + varintBytes(delta) + partBytes(key) + partBytes(value);
  let headerCount = 0;
  for (const name in headers) {
    const nameBytes = Buffer.byteLength(name);
    bytes += varintBytes(nameBytes) + nameBytes + partBytes(headers[name] ?? null);
    headerCount += 1;
  }
  return bytes + varintBytes(headerCount);
}

function partBytes(part: Buffer | null): number {
  return part === null ? 1 : varintBytes(part.length) + part.length;
}

function writeRecord(batch: Buffer, from: number, { record, delta }: { record: LogRecord; delta: number }): number {
  let at = writeVarint(batch, from, bodyBytesOf(record, delta));
  batch[at++] = 0;
  batch[at++] = 0;
  at = writeVarint(batch, at, delta);
  at = writePart(batch, at, record.key);
  at = writePart(batch, at, record.value);
  const names = Object.keys(record.headers);
  at = writeVarint(batch, at, names.length);
  for (const name of names) {
    at = writePart(batch, at, Buffer.from(name, "utf8"));
    at = writePart(batch, at, record.headers[name] ?? null);
  }
  return at;
}

function writePart(batch: Buffer, from: number, part: Buffer | null): number {
  if (part === null) return writeVarint(batch, from, -1);
  const at = writeVarint(batch, from, part.length);
  batch.set(part, at);
  return at + part.length;
}

/** Numbers from -1 to 2^30 - 1: lengths and deltas. */
function varintBytes(value: number): number {
  let rest = zigzag(value);
  let bytes = 1;
  while (rest > 127) {
    rest >>>= 7;
    bytes += 1;
  }
  return bytes;
}

function writeVarint(batch: Buffer, from: number, value: number): number {
  let rest = zigzag(value);
  let at = from;
  while (rest > 127) {
    batch[at++] = (rest & 127) | 128;
    rest >>>= 7;
  }
  batch[at++] = rest;
  return at;
}

function zigzag(value: number): number {
  return (value << 1) ^ (value >> 31);
}
