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
  return (event) => {
    hash(bytesOf([event.mode, event.customer, event.source, event.id]), out);
    const fpHigh = wide[0] as bigint;
    const fpLow = out[2] as number;
    const suppliedTime = event.occurredAt === null || event.isStamped ? "" : formatInstant(event.occurredAt);
    hash(bytesOf([event.type, suppliedTime, canonicalJson(event.data)]), out);
    return { fpHigh, fpLow, payloadHash: wide[0] as bigint, payloadCheck: out[0] as number };
  };
}

/** Each part after its own UTF-8 length: no choice of parts can imitate another. */
function bytesOf(parts: readonly string[]): Buffer {
  return Buffer.from(parts.map((part) => `${Buffer.byteLength(part, "utf8")}:${part}`).join(""), "utf8");
}
