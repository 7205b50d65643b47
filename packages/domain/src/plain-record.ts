/** Records of plain usage events, written from the bytes of a request's body. */
import type { LogRecord } from "./event-log.ts";
import { partitionOfKeyAt } from "./murmur2.ts";
import { isAt, latin1, LIVE, type PlainEvent, TEST } from "./plain-event.ts";
import { formatInstant } from "./time.ts";
import { type Mode, USAGE_EVENT_LIMITS } from "./usage-event.ts";

const QUOTE = 0x22;
const SLASH = 0x2f;
const CLOSE_OBJECT = 0x7d;
const Z = 0x5a;
const NO_HEADERS: LogRecord["headers"] = Object.freeze({});
const BEFORE_ID = latin1('{"specversion":"1.0","id":"');
const BEFORE_SOURCE = latin1('","source":"');
const BEFORE_TYPE = latin1('","type":"');
const BEFORE_SUBJECT = latin1('","subject":"');
const BEFORE_MODE = latin1('","mode":"');
const BEFORE_TIME = latin1('","time":"');
const BEHIND_TIME = latin1('","datacontenttype":"application/json","data":');
const BEHIND_STAMP = latin1('","stamped":"true","datacontenttype":"application/json","data":');
const DEFAULT_SOURCE = latin1("api");
const NO_DATA = latin1("{}");
const NO_MILLIS = latin1(".000Z");
/** More than the texts above, the mode twice, the default source twice, a stamp and the key's slashes take together. */
const ADDED_BYTES_MAX = 320;

/** Writes the records of one request, all into the same buffer. */
export class PlainRecordWriter {
  readonly #mode: Uint8Array;
  readonly #modeName: Mode;
  readonly #stamp: Uint8Array;
  readonly #partitionCount: number;
  readonly #bytesExpected: number;
  #out: Buffer = Buffer.alloc(0);
  #at = 0;

  /** `bytesExpected` are those of all events still to be written; further ones only cost another buffer. */
  constructor(context: { mode: Mode; receivedAt: number; partitionCount: number; bytesExpected: number }) {
    this.#mode = context.mode === "live" ? LIVE : TEST;
    this.#modeName = context.mode;
    this.#stamp = Buffer.from(formatInstant(context.receivedAt), "latin1");
    this.#partitionCount = context.partitionCount;
    this.#bytesExpected = context.bytesExpected;
  }

  /** Null when the record would exceed `eventBytesMax`, or the event names another mode: those are not plain after all. */
  write(event: PlainEvent): LogRecord | null {
    if (event.mode !== null && event.mode !== this.#modeName) return null;
    this.#makeRoom(2 * (event.end - event.at) + ADDED_BYTES_MAX);
    const keyAt = this.#at;
    this.#add(this.#mode);
    this.#out[this.#at++] = SLASH;
    this.#copy(event.bytes, event.customerAt, event.customerEnd);
    this.#out[this.#at++] = SLASH;
    this.#addSource(event);
    this.#out[this.#at++] = SLASH;
    this.#copy(event.bytes, event.idAt, event.idEnd);
    const valueAt = this.#at;
    this.#addValue(event);
    if (this.#at - valueAt > USAGE_EVENT_LIMITS.eventBytesMax) return null;
    const out = this.#out;
    return {
      partition: partitionOfKeyAt(out, { at: keyAt, end: valueAt }, this.#partitionCount),
      key: out.subarray(keyAt, valueAt),
      value: out.subarray(valueAt, this.#at),
      headers: NO_HEADERS,
    };
  }

  /** The same text as encodeUsageEvent's. */
  #addValue(event: PlainEvent): void {
    const { bytes } = event;
    this.#add(BEFORE_ID);
    this.#copy(bytes, event.idAt, event.idEnd);
    this.#add(BEFORE_SOURCE);
    this.#addSource(event);
    this.#add(BEFORE_TYPE);
    this.#copy(bytes, event.typeAt, event.typeEnd);
    this.#add(BEFORE_SUBJECT);
    this.#copy(bytes, event.customerAt, event.customerEnd);
    this.#add(BEFORE_MODE);
    this.#add(this.#mode);
    this.#add(BEFORE_TIME);
    if (event.timeAt === -1) {
      this.#add(this.#stamp);
      this.#add(BEHIND_STAMP);
    } else {
      this.#copy(bytes, event.timeAt, event.timeEnd);
      if (isAt(bytes, event.timeEnd - NO_MILLIS.length, NO_MILLIS)) {
        this.#at -= NO_MILLIS.length;
        this.#out[this.#at++] = Z;
      }
      this.#add(BEHIND_TIME);
    }
    if (event.dataAt === -1) this.#add(NO_DATA);
    else if (event.hasBlanks) this.#copyTokens(bytes, event.dataAt, event.dataEnd);
    else this.#copy(bytes, event.dataAt, event.dataEnd);
    this.#out[this.#at++] = CLOSE_OBJECT;
  }

  #addSource(event: PlainEvent): void {
    if (event.sourceAt === -1) this.#add(DEFAULT_SOURCE);
    else this.#copy(event.bytes, event.sourceAt, event.sourceEnd);
  }

  #makeRoom(bytesMax: number): void {
    if (this.#at + bytesMax <= this.#out.length) return;
    this.#out = Buffer.allocUnsafeSlow(Math.max(bytesMax, this.#bytesExpected));
    this.#at = 0;
  }

  #add(text: Uint8Array): void {
    const out = this.#out;
    let to = this.#at;
    for (let i = 0; i < text.length; i += 1) out[to++] = text[i] as number;
    this.#at = to;
  }

  // A loop: for parts this short, calling Buffer.copy costs more than the copy.
  #copy(bytes: Buffer, at: number, end: number): void {
    const out = this.#out;
    let to = this.#at;
    for (let i = at; i < end; i += 1) out[to++] = bytes[i] as number;
    this.#at = to;
  }

  /** Without the blanks between tokens. Plain text has no escaped quote. */
  #copyTokens(bytes: Buffer, at: number, end: number): void {
    const out = this.#out;
    let to = this.#at;
    let isText = false;
    for (let i = at; i < end; i += 1) {
      const byte = bytes[i] as number;
      if (byte === QUOTE) isText = !isText;
      if (isText || byte > 0x20) out[to++] = byte;
    }
    this.#at = to;
  }
}
