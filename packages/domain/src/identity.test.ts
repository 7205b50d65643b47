import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createDigester, partitionOfEvent, recordKeyOf } from "./identity.ts";
import { parseJson } from "./json.ts";
import { partitionOfKey } from "./murmur2.ts";
import { SipHash128 } from "./siphash.ts";
import type { UsageEvent } from "./usage-event.ts";

const event: UsageEvent = {
  mode: "live",
  customer: "cus_1",
  source: "api",
  id: "evt-1",
  type: "llm.request",
  occurredAt: 1_000,
  isStamped: false,
  decidedAt: null,
  data: { a: 1, b: [2, { c: 3 }] },
};
const digest = createDigester(Buffer.from("0123456789abcdef"));
const identityOf = (changes: Partial<UsageEvent>): string => {
  const { fpHigh, word0, word1, word2 } = digest({ ...event, ...changes });
  expect(fpHigh).toBe(BigInt(word0) | (BigInt(word1) << 32n));
  return `${fpHigh}/${word2}`;
};
const payloadOf = (changes: Partial<UsageEvent>): bigint => digest({ ...event, ...changes }).payloadHash;
const part = fc.string({ unit: fc.constantFrom("a", "/", ":", "1", "ü"), minLength: 1, maxLength: 6 });

test("the record key is mode/customer/source/id, and places the event", () => {
  const identity = { mode: "test", customer: "ü", source: "/s", id: "1" } as const;
  expect(recordKeyOf(identity).toString("utf8")).toBe("test/ü//s/1");
  expect(partitionOfEvent(identity, 16)).toBe(partitionOfKey(Buffer.from("test/ü//s/1"), 16));
});

describe("digests", () => {
  test("two identities never imitate each other by where a part ends", () => {
    const identity = fc.record({ customer: part, source: part, id: part });
    fc.assert(
      fc.property(identity, identity, (a, b) => {
        const isEqual = a.customer === b.customer && a.source === b.source && a.id === b.id;
        expect(identityOf(a) === identityOf(b)).toBe(isEqual);
      }),
    );
    expect(identityOf({ customer: "a/b", source: "c" })).not.toBe(identityOf({ customer: "a", source: "b/c" }));
    expect(identityOf({ mode: "test" })).not.toBe(identityOf({}));
  });

  test("the identity is no function of the payload, nor the payload of the identity", () => {
    expect(identityOf({ type: "x", occurredAt: 5, data: { z: 1 } })).toBe(identityOf({}));
    expect(payloadOf({ customer: "x", source: "y", id: "z", mode: "test", decidedAt: 9 })).toBe(payloadOf({}));
  });

  test("payloads that mean the same are equal, others are not", () => {
    expect(payloadOf({ data: { b: [2, { c: 3 }], a: 1 } })).toBe(payloadOf({}));
    expect(payloadOf({ data: parseJson('{"b":[2.0,{"c":3e0}],"a":1.00}') as never })).toBe(payloadOf({}));
    expect(payloadOf({ data: { a: 2, b: [2, { c: 3 }] } })).not.toBe(payloadOf({}));
    expect(payloadOf({ data: { a: "1", b: [2, { c: 3 }] } })).not.toBe(payloadOf({}));
    expect(payloadOf({ type: "x" })).not.toBe(payloadOf({}));
    expect(payloadOf({ occurredAt: 1_001 })).not.toBe(payloadOf({}));
    const long = (digits: string): bigint => payloadOf({ data: parseJson(`{"v":${digits}}`) as never });
    expect(long("12345678901234567890")).toBe(long("1.234567890123456789e19"));
    expect(long("12345678901234567890")).not.toBe(long("12345678901234567891"));
  });

  test("G2 a time stamped by the gateway is no part of the payload: a resend is a duplicate, no conflict", () => {
    expect(payloadOf({ occurredAt: 1, isStamped: true })).toBe(payloadOf({ occurredAt: 2, isStamped: true }));
    expect(payloadOf({ occurredAt: 1, isStamped: true })).toBe(payloadOf({ occurredAt: null }));
    expect(payloadOf({ occurredAt: 1, isStamped: false })).not.toBe(payloadOf({ occurredAt: 1, isStamped: true }));
  });

  test("long and non-ASCII parts hash as their bytes do, whatever was hashed before", () => {
    const sip = new SipHash128(Buffer.from("0123456789abcdef"));
    fc.assert(
      fc.property(fc.array(fc.string({ unit: "binary", maxLength: 700 }), { minLength: 3, maxLength: 3 }), (parts) => {
        const [customer = "", source = "", id = ""] = parts.map((text) => text.toWellFormed());
        const all = ["live", customer, source, id].map((text) => `${Buffer.byteLength(text)}:${text}`).join("");
        sip.hash(sip.bytes.write(all, 0, "utf8"));
        expect(digest({ ...event, customer, source, id }).word2).toBe(sip.words[2]);
      }),
    );
  });

  test("the seed keys everything, and one digester can be used again", () => {
    const other = createDigester(Buffer.from("fedcba9876543210"));
    expect(other(event).fpHigh).not.toBe(digest(event).fpHigh);
    expect(other(event).payloadHash).not.toBe(digest(event).payloadHash);
    const first = digest(event);
    digest({ ...event, id: "another" });
    expect(digest(event)).toEqual(first);
    expect(first.payloadCheck).toBe(Number(BigInt.asUintN(32, first.payloadHash)));
  });
});
