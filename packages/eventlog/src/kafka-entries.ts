import { type LogEntry, TallyhouseError } from "@tallyhouse/domain";
import type { RawMessage } from "./kafkajs-mends.ts";

/** Of a batch's attributes: the broker stamped the time. */
const LOG_APPEND_TIME = 1;
const EMPTY = Buffer.alloc(0);
const NO_HEADERS: Readonly<Record<string, Buffer>> = Object.freeze({});

/**
 * An offset that holds nothing to read: a transaction's marker or an aborted record. It carries no time: some of them reach
 * us as records and some only as a range, depending on where a fetch began, and a replay must give equal entries.
 */
export function markerEntry(offset: number): LogEntry {
  return { offset, receivedAt: 0, key: null, value: null, headers: NO_HEADERS, marker: true };
}

/** Markers for `[firstOffset, lastOffset]`. */
export function markerRange(firstOffset: number, lastOffset: number): LogEntry[] {
  return Array.from({ length: lastOffset - firstOffset + 1 }, (_, i) => markerEntry(firstOffset + i));
}

/**
 * A fetched batch as entries from `fromOffset` on; a packed batch may begin before what was asked for.
 * @throws {TallyhouseError} LOG_GAP (halt) when offsets are missing, LOG_MISCONFIGURED (halt) when a record carries its
 *   producer's time instead of the log's.
 */
export function toEntries(messages: readonly RawMessage[], fromOffset: number, name: string): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const message of messages) {
    const offset = Number(message.offset);
    if (offset < fromOffset) continue;
    if (offset !== fromOffset + entries.length) {
      throw new TallyhouseError({
        code: "LOG_GAP",
        action: "halt",
        message: `${name}: offset ${fromOffset + entries.length} is missing, the next one is ${offset}`,
      });
    }
    entries.push(message.isControlRecord ? markerEntry(offset) : recordEntry(message, offset, name));
  }
  return entries;
}

function recordEntry(message: RawMessage, offset: number, name: string): LogEntry {
  if (message.batchContext.timestampType !== LOG_APPEND_TIME) {
    throw new TallyhouseError({
      code: "LOG_MISCONFIGURED",
      action: "halt",
      message: `${name}: offset ${offset} carries its producer's time; message.timestamp.type must be LogAppendTime`,
    });
  }
  const { key, value } = message;
  return { offset, receivedAt: Number(message.timestamp), key, value, headers: headersOf(message), marker: false };
}

function headersOf({ headers }: RawMessage): Readonly<Record<string, Buffer>> {
  let named: Record<string, Buffer> | null = null;
  for (const name in headers) {
    // Without a prototype: a header may be called `__proto__`.
    named ??= Object.create(null) as Record<string, Buffer>;
    const value = headers[name];
    named[name] = (value === null || value === undefined || Buffer.isBuffer(value) ? value : value.at(-1)) ?? EMPTY;
  }
  return named ?? NO_HEADERS;
}
