import fc from "fast-check";
import { expect, test } from "vitest";
import { SipHash128 } from "./siphash.ts";

const key = Uint8Array.from({ length: 16 }, (_, i) => i);

/** Reference vectors of SipHash-2-4-128: input 00 01 … of the given length. */
const vectors: readonly (readonly [number, string])[] = [
  [0, "a3817f04ba25a8e66df67214c7550293"],
  [1, "da87c1d86b99af44347659119b22fc45"],
  [2, "8177228da4a45dc7fca38bdef60affe4"],
];

test.each(vectors)("input of %i bytes hashes as the reference does", (length, expected) => {
  const sip = new SipHash128(key);
  sip.bytes.set(Uint8Array.from({ length }, (_, i) => i));
  sip.hash(length);
  expect(hexOf(sip)).toBe(expected);
});

function hexOf({ words }: SipHash128): string {
  return Buffer.from(Uint32Array.from(words).buffer).toString("hex");
}

/** The definition in 64-bit integers, as the paper has it. */
function definition(bytes: Uint8Array): string {
  const mask = 2n ** 64n - 1n;
  const word = (at: number, from: Uint8Array): bigint =>
    Buffer.from(from.buffer, from.byteOffset, from.length).readBigUInt64LE(at);
  const rotated = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (64n - by))) & mask;
  const [k0, k1] = [word(0, key), word(8, key)];
  let v0 = k0 ^ 0x736f6d6570736575n;
  let v1 = k1 ^ 0x646f72616e646f6dn ^ 0xeen;
  let v2 = k0 ^ 0x6c7967656e657261n;
  let v3 = k1 ^ 0x7465646279746573n;
  const rounds = (count: number): void => {
    for (let i = 0; i < count; i += 1) {
      v0 = (v0 + v1) & mask;
      v1 = rotated(v1, 13n) ^ v0;
      v0 = rotated(v0, 32n);
      v2 = (v2 + v3) & mask;
      v3 = rotated(v3, 16n) ^ v2;
      v0 = (v0 + v3) & mask;
      v3 = rotated(v3, 21n) ^ v0;
      v2 = (v2 + v1) & mask;
      v1 = rotated(v1, 17n) ^ v2;
      v2 = rotated(v2, 32n);
    }
  };
  const padded = Buffer.alloc((bytes.length & ~7) + 8);
  padded.set(bytes);
  padded[padded.length - 1] = bytes.length & 255;
  for (let at = 0; at < padded.length; at += 8) {
    v3 ^= word(at, padded);
    rounds(2);
    v0 ^= word(at, padded);
  }
  const hash = Buffer.alloc(16);
  v2 ^= 0xeen;
  rounds(4);
  hash.writeBigUInt64LE(v0 ^ v1 ^ v2 ^ v3, 0);
  v1 ^= 0xddn;
  rounds(4);
  hash.writeBigUInt64LE(v0 ^ v1 ^ v2 ^ v3, 8);
  return hash.toString("hex");
}

test("any bytes hash as the definition says, whatever lies behind them", () => {
  const sip = new SipHash128(key);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 9 }), (bytes, behind) => {
      sip.bytes.set(Buffer.concat([bytes, behind]));
      sip.hash(bytes.length);
      expect(hexOf(sip)).toBe(definition(bytes));
    }),
  );
});

test("room grows, and the key stays", () => {
  const sip = new SipHash128(key);
  for (const length of [65_463, 65_464, 65_465, 140_001]) {
    const bytes = Uint8Array.from({ length }, (_, i) => i);
    sip.reserve(length);
    sip.bytes.set(bytes);
    sip.hash(length);
    expect(hexOf(sip)).toBe(definition(bytes));
  }
});
