/** Identity of a usage event: where it is placed in the log, and how a second copy is recognised. */
import { canonicalJson } from "./json.ts";
import { partitionOfKey } from "./murmur2.ts";
import { createSipHash128 } from "./siphash.ts";
import { formatInstant } from "./time.ts";
import type { UsageEvent } from "./usage-event.ts";

type Identity = Pick<UsageEvent, "mode" | "customer" | "source" | "id">;

/** The record key `mode/customer/source/id` in UTF-8: for placement only, never read back as an identity. */
export function recordKeyOf(identity: Identity): Buffer {
  return Buffer.from(`${identity.mode}/${identity.customer}/${identity.source}/${identity.id}`, "utf8");
}

/** Where every copy of this identity belongs, computed from the content and not from a producer's key. */
export function partitionOfEvent(identity: Identity, partitionCount: number): number {
  return partitionOfKey(recordKeyOf(identity), partitionCount);
}

/** Keyed digests of one usage event. */
export interface EventDigests {
  /** First 96 bits of SipHash-2-4-128 over the identity, length-prefixed: `a/b`+`c` is not `a`+`b/c`. */
  readonly fpHigh: bigint;
  readonly fpLow: number;
  /** 64-bit keyed hash of type, caller-supplied occurredAt and canonical data. Two payloads that mean the same are equal. */
  readonly payloadHash: bigint;
  /** Its low 32 bits, what the dedupe index keeps. */
  readonly payloadCheck: number;
}

/** Makes the digest function of one stream. Keyed by the stream's secret seed: unkeyed, a caller could craft collisions. */
export function createDigester(seed: Uint8Array): (event: UsageEvent) => EventDigests {
  const hash = createSipHash128(seed);
  const out = new Uint32Array(4);
  const wide = new BigUint64Array(out.buffer);
  const scratch = new Scratch();
  return (event) => {
    scratch.length = 0;
    scratch.addPart(event.mode);
    scratch.addPart(event.customer);
    scratch.addPart(event.source);
    scratch.addPart(event.id);
    hash(scratch.bytes, out, scratch.length);
    const fpHigh = wide[0] as bigint;
    const fpLow = out[2] as number;
    scratch.length = 0;
    scratch.addPart(event.type);
    scratch.addPart(event.occurredAt === null || event.isStamped ? "" : formatInstant(event.occurredAt));
    scratch.addPart(canonicalJson(event.data));
    hash(scratch.bytes, out, scratch.length);
    return { fpHigh, fpLow, payloadHash: wide[0] as bigint, payloadCheck: out[0] as number };
  };
}

/** Digits of a part's length and the colon behind them. */
const PREFIX_BYTES_MAX = 17;

/** Bytes to hash, one record after the other in one buffer: a fresh one for each costs more than the hash. */
class Scratch {
  bytes = Buffer.alloc(1_024);
  length = 0;

  /** Adds a part after its own UTF-8 length: no choice of parts can imitate another. */
  addPart(part: string): void {
    // 3: the most that UTF-8 needs for one UTF-16 unit.
    const needed = this.length + PREFIX_BYTES_MAX + 3 * part.length;
    if (needed > this.bytes.length) this.bytes = Buffer.concat([this.bytes], 2 * needed);
    const { length } = this;
    this.#addAscii(`${part.length}:`);
    if (this.#addAscii(part)) return;
    this.length = length;
    this.#addAscii(`${Buffer.byteLength(part, "utf8")}:`);
    this.length += this.bytes.write(part, this.length, "utf8");
  }

  /** Stops at the first character beyond ASCII: then it says false, and what it wrote is not to be used. */
  #addAscii(text: string): boolean {
    const { bytes, length } = this;
    for (let i = 0; i < text.length; i += 1) {
      const code = text.charCodeAt(i);
      if (code > 127) return false;
      bytes[length + i] = code;
    }
    this.length = length + text.length;
    return true;
  }
}
