import { createHash } from "node:crypto";

/** RFC 4648 base 32 in lower case: safe in headers, URLs and Stripe's identifier. */
const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";
/** 40 characters hold 200 bits of the digest; with the prefix 45 of the 100 characters that Stripe takes. */
const DIGEST_CHARACTERS = 40;

/** What makes one meter event itself. Its value is deliberately no part of it. */
export interface MeterEventIdentity {
  readonly mode: "live" | "test";
  readonly stripeAccount: string;
  readonly eventName: string;
  readonly stripeCustomerId: string;
  /** Epoch milliseconds of a whole minute. */
  readonly eventAt: number;
  readonly seq: number;
}

/**
 * The identifier Stripe dedupes by: a function of the slot, without the value. A ledger that forgot a send (crash, restore)
 * and computed another value cannot send it a second time under another name.
 */
export function identifierOf(identity: MeterEventIdentity): string {
  return `th1_${digestOf([
    1,
    identity.mode,
    identity.stripeAccount,
    identity.eventName,
    identity.stripeCustomerId,
    identity.eventAt / 1_000,
    identity.seq,
  ])}`;
}

/**
 * The Idempotency-Key of the next send. `epoch` counts definitive answers: Stripe replays a stored 500 for the same key for
 * 24 hours, so after one the key must change; after a timeout or a reset it must not, or the first call could count too.
 */
export function idempotencyKeyOf(identifier: string, epoch: number): string {
  return epoch === 0 ? identifier : `${identifier}.e${epoch}`;
}

/** The Idempotency-Key of one creation: what is created, for whom, the how-manieth try with a new key. */
export function creationKeyOf(parts: readonly (string | number)[]): string {
  return `thc1_${digestOf(parts)}`;
}

function digestOf(parts: readonly (string | number)[]): string {
  const bytes = createHash("sha256").update(JSON.stringify(parts)).digest();
  let text = "";
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte;
    for (bits += 8; bits >= 5; bits -= 5) text += ALPHABET[(buffer >>> (bits - 5)) & 31] ?? "";
    buffer &= (1 << bits) - 1;
  }
  return text.slice(0, DIGEST_CHARACTERS);
}
