/**
 * Usage events in plain form, from their bytes to the bytes of their record, without a string or an object of theirs in between.
 *
 * Plain is what nearly every sender sends: known attributes, text without escapes, numbers as JSON.stringify writes them. Whatever is
 * not certainly valid and certainly stored as it stands is not plain, and goes the way of parseJson, {@link readUsageEvent} and
 * {@link encodeUsageEvent}, which alone knows what is wrong with it. Both ways give the same record.
 */
import { isUtf8 } from "node:buffer";
import { type Mode, USAGE_EVENT_LIMITS } from "./usage-event.ts";

/** Where a plain usage event's parts stand in `bytes`; each part is `[…At, …End)`, text without its quotes. -1: absent. */
export interface PlainEvent {
  readonly kind: "plain";
  readonly bytes: Buffer;
  readonly at: number;
  readonly end: number;
  /** Otherwise the native shape. */
  readonly isCloudEvent: boolean;
  /** As the event says it; null when it does not. */
  readonly mode: Mode | null;
  readonly idAt: number;
  readonly idEnd: number;
  readonly customerAt: number;
  readonly customerEnd: number;
  readonly sourceAt: number;
  readonly sourceEnd: number;
  readonly typeAt: number;
  readonly typeEnd: number;
  readonly timeAt: number;
  readonly timeEnd: number;
  readonly dataAt: number;
  readonly dataEnd: number;
  /** Blanks between the tokens of data: they are not stored. */
  readonly hasBlanks: boolean;
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** Two decimals of at most 15 digits are two doubles, so each is the shortest text of its own. */
const DIGITS_MAX = 15;
/** 0.000001 is written so, 0.0000001 as 1e-7. */
const ZEROS_BEHIND_POINT_MAX = 5;

const NAMES = {
  id: latin1("id"),
  time: latin1("time"),
  mode: latin1("mode"),
  data: latin1("data"),
  type: latin1("type"),
  source: latin1("source"),
  subject: latin1("subject"),
  customer: latin1("customer"),
  specversion: latin1("specversion"),
  datacontenttype: latin1("datacontenttype"),
};
const VERSION = latin1("1.0");
const JSON_TYPE = latin1("application/json");
/** The modes' names as bytes. */
export const LIVE = latin1("live");
/** See {@link LIVE}. */
export const TEST = latin1("test");
const TRUE = latin1("true");
const FALSE = latin1("false");
const NULL = latin1("null");
const FORBIDDEN = [latin1("__proto__"), latin1("constructor"), latin1("prototype")];
const { depthMax, propertiesMax, identityCharactersMax, typeCharactersMax } = USAGE_EVENT_LIMITS;

/** ASCII text as bytes. */
export function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** Reads plain events of one body, one after the other. */
export class PlainEventReader {
  readonly #bytes: Buffer;
  /** Behind the last token that was read. */
  #at = 0;
  #hasBlanks = false;
  #isAscii = true;
  /** Start and end of the property names of the objects that are open in data. */
  readonly #names = new Int32Array(2 * propertiesMax);
  #openNames = 0;
  #properties = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** The event whose `{` stands at `at`; null when it is not plain, or no JSON at all. Pure. */
  read(at: number): PlainEvent | null {
    const bytes = this.#bytes;
    this.#at = at + 1;
    this.#isAscii = true;
    const parts = new PlainParts(bytes, at);
    for (;;) {
      this.#skipBlanks();
      if (!this.#readMember(parts)) return null;
      this.#skipBlanks();
      const next = bytes[this.#at];
      this.#at += 1;
      if (next === CLOSE_OBJECT) break;
      if (next !== COMMA) return null;
    }
    parts.end = this.#at;
    // Text that is no UTF-8 is a fault of the whole body.
    return parts.isWhole() && (this.#isAscii || isUtf8(bytes.subarray(at, this.#at))) ? parts : null;
  }

  #readMember(parts: PlainParts): boolean {
    const bytes = this.#bytes;
    if (bytes[this.#at] !== QUOTE) return false;
    const nameAt = this.#at + 1;
    const length = this.#readText() - nameAt;
    this.#skipBlanks();
    if (length < 0 || bytes[this.#at] !== COLON) return false;
    this.#at += 1;
    this.#skipBlanks();
    if (length === 4 && isAt(bytes, nameAt, NAMES.data)) return this.#readData(parts);
    if (bytes[this.#at] !== QUOTE) return false;
    const at = this.#at + 1;
    const wasAscii = this.#isAscii;
    this.#isAscii = true;
    const end = this.#readText();
    const isAscii = this.#isAscii;
    this.#isAscii = wasAscii;
    return end >= 0 && isAscii && parts.take({ nameAt, length, at, end });
  }

  #readData(parts: PlainParts): boolean {
    if (parts.dataAt !== -1 || this.#bytes[this.#at] !== OPEN_OBJECT) return false;
    this.#hasBlanks = false;
    this.#openNames = 0;
    this.#properties = 0;
    parts.dataAt = this.#at;
    if (!this.#readObject(1)) return false;
    parts.dataEnd = this.#at;
    parts.hasBlanks = this.#hasBlanks;
    return true;
  }

  /** `depth`: objects and lists around, this one included. */
  #readObject(depth: number): boolean {
    const bytes = this.#bytes;
    const namesBefore = this.#openNames;
    this.#at += 1;
    this.#skipBlanks();
    if (bytes[this.#at] === CLOSE_OBJECT) {
      this.#at += 1;
      return true;
    }
    for (;;) {
      if (bytes[this.#at] !== QUOTE || !this.#readName(namesBefore)) return false;
      this.#skipBlanks();
      if (bytes[this.#at] !== COLON) return false;
      this.#at += 1;
      this.#skipBlanks();
      if (!this.#readValue(depth)) return false;
      this.#skipBlanks();
      const next = bytes[this.#at];
      this.#at += 1;
      if (next === CLOSE_OBJECT) break;
      if (next !== COMMA) return false;
      this.#skipBlanks();
    }
    this.#openNames = namesBefore;
    return true;
  }

  #readList(depth: number): boolean {
    const bytes = this.#bytes;
    this.#at += 1;
    this.#skipBlanks();
    if (bytes[this.#at] === CLOSE_LIST) {
      this.#at += 1;
      return true;
    }
    for (;;) {
      if (!this.#readValue(depth)) return false;
      this.#skipBlanks();
      const next = bytes[this.#at];
      this.#at += 1;
      if (next === CLOSE_LIST) return true;
      if (next !== COMMA) return false;
      this.#skipBlanks();
    }
  }

  #readValue(depth: number): boolean {
    const first = this.#bytes[this.#at] ?? 0;
    if (first === QUOTE) return this.#readText() >= 0;
    if (first === MINUS || (first >= ZERO && first <= NINE)) return this.#readNumber();
    if (first === OPEN_OBJECT) return depth < depthMax && this.#readObject(depth + 1);
    if (first === OPEN_LIST) return depth < depthMax && this.#readList(depth + 1);
    return this.#readWord(TRUE) || this.#readWord(FALSE) || this.#readWord(NULL);
  }

  #readWord(word: Uint8Array): boolean {
    if (!isAt(this.#bytes, this.#at, word)) return false;
    this.#at += word.length;
    return true;
  }

  /** A property's name: harmless, new in its object, and none that JSON.stringify would move to the front. */
  #readName(namesBefore: number): boolean {
    const bytes = this.#bytes;
    const names = this.#names;
    const at = this.#at + 1;
    const end = this.#readText();
    this.#properties += 1;
    if (end < 0 || this.#properties > propertiesMax) return false;
    const first = bytes[at] as number;
    if (first >= ZERO && first <= NINE) return false;
    for (const name of FORBIDDEN) if (name.length === end - at && isAt(bytes, at, name)) return false;
    for (let i = namesBefore; i < this.#openNames; i += 1) {
      const otherAt = names[2 * i] as number;
      if ((names[2 * i + 1] as number) - otherAt === end - at && areEqual(bytes, otherAt, { at, end })) return false;
    }
    names[2 * this.#openNames] = at;
    names[2 * this.#openNames + 1] = end;
    this.#openNames += 1;
    return true;
  }

  /** Text without escapes, from its first quote on. Where its last quote stands, -1 when it is not plain. */
  #readText(): number {
    const bytes = this.#bytes;
    let at = this.#at + 1;
    for (; at < bytes.length; at += 1) {
      const byte = bytes[at] as number;
      if (byte === QUOTE) {
        this.#at = at + 1;
        return at;
      }
      if (byte < 0x20 || byte === BACKSLASH) return -1;
      // The delete character too: it is a control, though JSON allows it.
      if (byte >= 0x7f) this.#isAscii = false;
    }
    return -1;
  }

  /** A number that JSON.stringify writes as it stands. */
  #readNumber(): boolean {
    const bytes = this.#bytes;
    let at = this.#at;
    const isNegative = bytes[at] === MINUS;
    if (isNegative) at += 1;
    const integerAt = at;
    at = endOfDigits(bytes, at);
    const integerDigits = at - integerAt;
    const isZero = bytes[integerAt] === ZERO;
    if (integerDigits === 0 || integerDigits > DIGITS_MAX || (isZero && integerDigits > 1)) return false;
    if (bytes[at] === POINT) {
      const fractionAt = at + 1;
      at = endOfDigits(bytes, fractionAt);
      if (at === fractionAt || integerDigits + at - fractionAt > DIGITS_MAX || bytes[at - 1] === ZERO) return false;
      let zeros = 0;
      while (bytes[fractionAt + zeros] === ZERO) zeros += 1;
      if (isZero && zeros > ZEROS_BEHIND_POINT_MAX) return false;
    } else if (isZero && isNegative) {
      return false;
    }
    const next = bytes[at] ?? 0;
    this.#at = at;
    // No exponent, and nothing else that could belong to it: what may follow is checked by whoever reads on.
    return next !== 0x65 && next !== 0x45;
  }

  #skipBlanks(): void {
    const bytes = this.#bytes;
    for (let byte = bytes[this.#at] as number; byte <= 0x20; byte = bytes[this.#at] as number) {
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.#hasBlanks = true;
      this.#at += 1;
    }
  }
}

/** The parts of one event while it is read. */
class PlainParts implements PlainEvent {
  readonly kind = "plain";
  readonly bytes: Buffer;
  readonly at: number;
  end = -1;
  isCloudEvent = false;
  mode: Mode | null = null;
  idAt = -1;
  idEnd = -1;
  customerAt = -1;
  customerEnd = -1;
  sourceAt = -1;
  sourceEnd = -1;
  typeAt = -1;
  typeEnd = -1;
  timeAt = -1;
  timeEnd = -1;
  dataAt = -1;
  dataEnd = -1;
  hasBlanks = false;
  #hasSubject = false;
  #hasContentType = false;

  constructor(bytes: Buffer, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  /** Whether this attribute, text `[at, end)`, is plain here. A second one of the same name is not. */
  take({ nameAt, length, at, end }: { nameAt: number; length: number; at: number; end: number }): boolean {
    const { bytes } = this;
    switch (length) {
      case 2:
        if (this.idAt !== -1 || !isAt(bytes, nameAt, NAMES.id)) return false;
        this.idAt = at;
        this.idEnd = end;
        return isWithin(at, end, identityCharactersMax);
      case 4:
        if (isAt(bytes, nameAt, NAMES.type)) {
          if (this.typeAt !== -1) return false;
          this.typeAt = at;
          this.typeEnd = end;
          return isWithin(at, end, typeCharactersMax);
        }
        return isAt(bytes, nameAt, NAMES.time)
          ? this.#takeTime(at, end)
          : isAt(bytes, nameAt, NAMES.mode) && this.#takeMode(at, end);
      case 6:
        if (this.sourceAt !== -1 || !isAt(bytes, nameAt, NAMES.source)) return false;
        this.sourceAt = at;
        this.sourceEnd = end;
        return isWithin(at, end, identityCharactersMax);
      case 7:
      case 8:
        if (this.customerAt !== -1 || !isAt(bytes, nameAt, length === 7 ? NAMES.subject : NAMES.customer)) return false;
        this.#hasSubject = length === 7;
        this.customerAt = at;
        this.customerEnd = end;
        return isWithin(at, end, identityCharactersMax);
      case 11:
        if (this.isCloudEvent || !isAt(bytes, nameAt, NAMES.specversion)) return false;
        this.isCloudEvent = true;
        return end - at === VERSION.length && isAt(bytes, at, VERSION);
      case 15:
        if (this.#hasContentType || !isAt(bytes, nameAt, NAMES.datacontenttype)) return false;
        this.#hasContentType = true;
        return end - at === JSON_TYPE.length && isAt(bytes, at, JSON_TYPE);
      default:
        return false;
    }
  }

  #takeTime(at: number, end: number): boolean {
    if (this.timeAt !== -1) return false;
    this.timeAt = at;
    this.timeEnd = end;
    return isPlainInstant(this.bytes, at, end);
  }

  #takeMode(at: number, end: number): boolean {
    if (this.mode !== null || end - at !== 4) return false;
    this.mode = isAt(this.bytes, at, LIVE) ? "live" : isAt(this.bytes, at, TEST) ? "test" : null;
    return this.mode !== null;
  }

  /** Whether the attributes that must be there are, and none that belongs to the other shape. */
  isWhole(): boolean {
    if (this.idAt === -1 || this.typeAt === -1 || this.customerAt === -1) return false;
    if (this.isCloudEvent) return this.sourceAt !== -1 && this.#hasSubject;
    return !this.#hasSubject && this.mode === null && !this.#hasContentType;
  }
}

function isWithin(at: number, end: number, charactersMax: number): boolean {
  return end > at && end - at <= charactersMax;
}

/** Whether `bytes` go on with `word` at `at`. */
export function isAt(bytes: Buffer, at: number, word: Uint8Array): boolean {
  for (let i = 0; i < word.length; i += 1) if (bytes[at + i] !== word[i]) return false;
  return true;
}

function areEqual(bytes: Buffer, otherAt: number, part: { at: number; end: number }): boolean {
  const shift = otherAt - part.at;
  for (let i = part.at; i < part.end; i += 1) if (bytes[i] !== bytes[i + shift]) return false;
  return true;
}

function endOfDigits(bytes: Buffer, from: number): number {
  let at = from;
  while ((bytes[at] as number) >= ZERO && (bytes[at] as number) <= NINE) at += 1;
  return at;
}

const MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/** `2026-11-20T10:00:00Z` or with three fraction digits, of the years 1970 to 2199: what formatInstant writes, but for `.000`. */
function isPlainInstant(bytes: Buffer, at: number, end: number): boolean {
  const hasMillis = end - at === 24;
  if ((!hasMillis && end - at !== 20) || bytes[end - 1] !== 0x5a) return false;
  if (bytes[at + 4] !== MINUS || bytes[at + 7] !== MINUS || bytes[at + 10] !== 0x54) return false;
  if (bytes[at + 13] !== COLON || bytes[at + 16] !== COLON || (hasMillis && bytes[at + 19] !== POINT)) return false;
  const year = 100 * twoDigits(bytes, at) + twoDigits(bytes, at + 2);
  const month = twoDigits(bytes, at + 5);
  const day = twoDigits(bytes, at + 8);
  // NaN, for what is no digit, fails every one of these. The 29th of February is left to the general reader.
  return (
    year >= 1970 &&
    year < 2200 &&
    day >= 1 &&
    day <= (MONTH_DAYS[month - 1] ?? 0) &&
    twoDigits(bytes, at + 11) < 24 &&
    twoDigits(bytes, at + 14) < 60 &&
    twoDigits(bytes, at + 17) < 60 &&
    (!hasMillis || (twoDigits(bytes, at + 20) >= 0 && endOfDigits(bytes, at + 22) === at + 23))
  );
}

function twoDigits(bytes: Buffer, at: number): number {
  const tens = (bytes[at] as number) - ZERO;
  const ones = (bytes[at + 1] as number) - ZERO;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? 10 * tens + ones : Number.NaN;
}
