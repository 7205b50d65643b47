import fc from "fast-check";
import { expect, test } from "vitest";
import { murmur2, partitionOfKey } from "./murmur2.ts";

/** @see https://github.com/apache/kafka/blob/trunk/clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java (read 2026-11) */
test.each([
  ["21", -973_932_308],
  ["foobar", -790_332_482],
  ["a-little-bit-long-string", -985_981_536],
  ["a-little-bit-longer-string", -1_486_304_829],
  ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971],
  ["abc", 479_470_107],
])("murmur2 of %s is Kafka's", (text, expected) => {
  expect(murmur2(Buffer.from(text))).toBe(expected);
});

test("equals a second implementation in bigint arithmetic on any bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), (bytes) => {
      expect(murmur2(bytes)).toBe(murmur2InBigint(bytes));
    }),
    { numRuns: 1_000 },
  );
});

test("a partition is in range and never negative", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 1, max: 1_000 }), (key, count) => {
      const partition = partitionOfKey(key, count);
      expect(Number.isInteger(partition) && partition >= 0 && partition < count).toBe(true);
    }),
  );
});

function murmur2InBigint(bytes: Uint8Array): number {
  const m = 0x5bd1e995n;
  const wrap = (value: bigint): bigint => BigInt.asUintN(32, value);
  let h = wrap(0x9747b28cn ^ BigInt(bytes.length));
  let i = 0;
  for (; i + 4 <= bytes.length; i += 4) {
    let k = BigInt(Buffer.from(bytes).readUInt32LE(i));
    k = wrap(k * m);
    k = wrap((k ^ (k >> 24n)) * m);
    h = wrap(h * m) ^ k;
  }
  const rest = [...bytes.subarray(i)];
  if (rest.length > 0) {
    for (const [at, byte] of rest.entries()) h ^= BigInt(byte) << BigInt(8 * at);
    h = wrap(h * m);
  }
  h = wrap((h ^ (h >> 13n)) * m);
  return Number(BigInt.asIntN(32, h ^ (h >> 15n)));
}
