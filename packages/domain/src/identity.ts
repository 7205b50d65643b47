/** Identity of a usage event: where it is placed in the log, and how a second copy is recognised. */
import { canonicalJson } from "./json.ts";
import { partitionOfKey, partitionOfKeyAt } from "./murmur2.ts";
import { SipHash128 } from "./siphash.ts";
import { formatInstant } from "./time.ts";
import type { UsageEvent } from "./usage-event.ts";

type Identity = Pick<UsageEvent, "mode" | "customer" | "source" | "id">;

/** The record key `mode/customer/source/id` in UTF-8: for placement only, never read back as an identity. */
export function recordKeyOf(identity: Identity): Buffer {
  return Buffer.from(recordKeyText(identity), "utf8");
}

function recordKeyText({ mode, customer, source, id }: Identity): string {
  return `${mode}/${customer}/${source}/${id}`;
}

/** Room for the key of any valid identity: three texts of 256 UTF-16 units, each unit at most 3 bytes, and the mode. */
const keyBytes = Buffer.alloc(4_096);

/** Where every copy of this identity belongs, computed from the content and not from a producer's key. */
export function partitionOfEvent(identity: Identity, partitionCount: number): number {
  const text = recordKeyText(identity);
  if (text.length * UTF8_BYTES_MAX > keyBytes.length) return partitionOfKey(Buffer.from(text, "utf8"), partitionCount);
  return partitionOfKeyAt(keyBytes, { at: 0, end: keyBytes.write(text, 0, "utf8") }, partitionCount);
}

/** The most that UTF-8 needs for one UTF-16 unit. */
const UTF8_BYTES_MAX = 3;

/** Keyed digests of one usage event. */
export interface EventDigests {
  /** First 64 bits of SipHash-2-4-128 over the identity, length-prefixed: `a/b`+`c` is not `a`+`b/c`. */
  readonly fpHigh: bigint;
  /** Its first 96 bits as words: the low and the high one of fpHigh, and the next. What the dedupe index looks for. */
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
  /** 64-bit keyed hash of type, caller-supplied occurredAt and canonical data. Two payloads that mean the same are equal. */
  readonly payloadHash: bigint;
  /** Its low 32 bits, what the dedupe index keeps. */
  readonly payloadCheck: number;
}

/** Makes the digest function of one stream. Keyed by the stream's secret seed: unkeyed, a caller could craft collisions. */
export function createDigester(seed: Uint8Array): (event: UsageEvent) => EventDigests {
  const sip = new SipHash128(seed);
  return (event) => {
    hashText(sip, identityText, event);
    const fpHigh = sip.wide[0] as bigint;
    const word0 = sip.words[0] as number;
    const word1 = sip.words[1] as number;
    const word2 = sip.words[2] as number;
    hashText(sip, payloadText, event);
    const payloadHash = sip.wide[0] as bigint;
    return { fpHigh, word0, word1, word2, payloadHash, payloadCheck: sip.words[0] as number };
  };
}

type LengthOf = (part: string) => number;
const unitsOf: LengthOf = (part) => part.length;
const bytesOf: LengthOf = (part) => Buffer.byteLength(part, "utf8");

/**
 * Hashes a text of parts, each after its own UTF-8 length: no choice of parts can imitate another. Nearly every text is ASCII, whose
 * UTF-16 length is the same number: only when the bytes turn out to be more than the units are the true lengths counted.
 */
function hashText(sip: SipHash128, textOf: (event: UsageEvent, lengthOf: LengthOf) => string, event: UsageEvent): void {
  let text = textOf(event, unitsOf);
  sip.reserve(UTF8_BYTES_MAX * text.length);
  let length = sip.bytes.write(text, 0, "utf8");
  if (length !== text.length) {
    text = textOf(event, bytesOf);
    sip.reserve(UTF8_BYTES_MAX * text.length);
    length = sip.bytes.write(text, 0, "utf8");
  }
  sip.hash(length);
}

function identityText({ mode, customer, source, id }: UsageEvent, lengthOf: LengthOf): string {
  const owner = `${lengthOf(mode)}:${mode}${lengthOf(customer)}:${customer}`;
  return `${owner}${lengthOf(source)}:${source}${lengthOf(id)}:${id}`;
}

function payloadText({ type, occurredAt, isStamped, data }: UsageEvent, lengthOf: LengthOf): string {
  const time = occurredAt === null || isStamped ? "" : formatInstant(occurredAt);
  const canonical = canonicalJson(data);
  return `${lengthOf(type)}:${type}${lengthOf(time)}:${time}${lengthOf(canonical)}:${canonical}`;
}
