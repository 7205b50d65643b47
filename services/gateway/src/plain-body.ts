/** Bodies of JSON read from their bytes: plain events as they stand, the others parsed one by one. */
import { isUtf8 } from "node:buffer";
import { parseJson, PlainEventReader } from "@tallyhouse/domain";
import type { EventInput } from "./body.ts";

const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Deeper ones are left to the reader of whole bodies: what it says of them depends on the body's depth as a whole. */
const LEVELS_MAX = 100;

/** The one event or the list of events that a body is. */
export interface PlainBody {
  readonly isList: boolean;
  readonly events: readonly EventInput[];
}

/**
 * Reads a body that is an event or a list of 1 to `eventsMax` events, at least as JSON. Null for every other body, which the reader of
 * whole bodies refuses, or reads, with the same result. Pure.
 */
export function readPlainBody(bytes: Buffer, eventsMax: number): PlainBody | null {
  const first = afterBlanks(bytes, 0);
  const isList = bytes[first] === OPEN_LIST;
  const reader = new PlainEventReader(bytes);
  const events: EventInput[] = [];
  let at = isList ? afterBlanks(bytes, first + 1) : first;
  for (;;) {
    const element = bytes[at] === OPEN_OBJECT ? readElement(bytes, at, reader) : null;
    if (element === null || events.length === eventsMax) return null;
    events.push(element.event);
    at = afterBlanks(bytes, element.end);
    if (!isList) break;
    if (bytes[at] === CLOSE_LIST) {
      at = afterBlanks(bytes, at + 1);
      break;
    }
    if (bytes[at] !== COMMA) return null;
    at = afterBlanks(bytes, at + 1);
  }
  return at === bytes.length ? { isList, events } : null;
}

function readElement(
  bytes: Buffer,
  at: number,
  reader: PlainEventReader,
): { readonly event: EventInput; readonly end: number } | null {
  const event = reader.read(at);
  if (event !== null) return { event, end: event.end };
  const end = endOfObject(bytes, at);
  // What is no UTF-8 or no JSON here makes the whole body none.
  if (end === -1 || !isUtf8(bytes.subarray(at, end))) return null;
  try {
    return { event: { kind: "parsed", value: parseJson(bytes.toString("utf8", at, end)) }, end };
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Behind the brace that closes the object at `at`, if it is JSON; -1 when there is none, or it nests too deep. */
function endOfObject(bytes: Buffer, from: number): number {
  let level = 0;
  for (let at = from; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (byte === QUOTE) {
      at = endOfText(bytes, at);
    } else if (byte === OPEN_OBJECT || byte === OPEN_LIST) {
      level += 1;
      if (level > LEVELS_MAX) return -1;
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
      level -= 1;
      if (level === 0) return at + 1;
    }
  }
  return -1;
}

/** Where the text that begins at `from` has its last quote; the end of the bytes when it has none. */
function endOfText(bytes: Buffer, from: number): number {
  let at = from + 1;
  while (at < bytes.length && bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1;
  return at;
}

/** Where the first byte at or behind `from` stands that is no blank of JSON. */
function afterBlanks(bytes: Buffer, from: number): number {
  let at = from;
  for (let byte = bytes[at]; byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09; byte = bytes[at])
    at += 1;
  return at;
}
