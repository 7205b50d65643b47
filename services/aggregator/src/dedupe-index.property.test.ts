import fc from "fast-check";
import { expect, test } from "vitest";
import { DedupeIndex, type Fingerprint } from "./dedupe-index.ts";

const HORIZON_SECONDS = 100;

test("G2 the index answers like a map with a horizon, whatever is put, found and expired", () => {
  // Few distinct words, so that fingerprints collide in sub-table, slot and parts of their text.
  const word = fc.integer({ min: 0, max: 3 }).map((n) => (n * 0x40000001) >>> 0);
  const steps = fc.array(fc.record({ a: word, b: word, c: fc.nat(200), check: fc.nat(3), waits: fc.nat(20) }), {
    maxLength: 600,
  });
  fc.assert(
    fc.property(steps, (commands) => {
      const index = new DedupeIndex(HORIZON_SECONDS);
      const model = new Map<string, { bookedAt: number; check: number }>();
      let now = 1;
      for (const { a, b, c, check, waits } of commands) {
        now += waits;
        const fingerprint: Fingerprint = { word0: a, word1: b, word2: c };
        const known = model.get(`${a}/${b}/${c}`);
        const isKnown = known !== undefined && now - known.bookedAt <= HORIZON_SECONDS;
        expect(index.find(fingerprint, now)).toBe(isKnown ? known.check : null);
        if (isKnown) continue;
        index.put(fingerprint, now, check);
        model.set(`${a}/${b}/${c}`, { bookedAt: now, check });
      }
    }),
  );
});

test("the later booking wins, in whatever order stored identities are loaded", () => {
  const fingerprint = { word0: 1, word1: 2, word2: 3 };
  for (const bookings of [
    [10, 500],
    [500, 10],
  ]) {
    const index = new DedupeIndex(HORIZON_SECONDS);
    for (const bookedAt of bookings) index.put(fingerprint, bookedAt, bookedAt);
    expect(index.find(fingerprint, 600)).toBe(500);
  }
});

test("expired identities leave when their sub-table grows, so a steady stream needs a bounded index", () => {
  const index = new DedupeIndex(HORIZON_SECONDS);
  const sizes: number[] = [];
  for (let n = 1; n <= 200_000; n += 1) {
    // 100 identities a second: 10,000 live ones within the horizon.
    index.put({ word0: n >>> 0, word1: Math.imul(n, 0x9e3779b1) >>> 0, word2: n }, 1 + Math.floor(n / 100), 0);
    if (n % 20_000 === 0) sizes.push(index.sizeBytes);
  }
  expect(sizes.at(-1)).toBe(sizes[2]);
  expect(index.size).toBeLessThan(40_000);
});

/** A plain generator with a seed, for runs too long for a shrinking one. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) >>> 0;
  };
}

test.each([1, 2, 3])(
  "G2 rows loaded into reserved room, then a year of growth and expiry, equal a map (seed %i)",
  (seed) => {
    const random = seeded(seed);
    const index = new DedupeIndex(HORIZON_SECONDS);
    const model = new Map<number, { bookedAt: number; check: number }>();
    /** The n-th fingerprint: pairs differ in one word, so that two of three are equal everywhere. */
    const wordsOf = (n: number): Fingerprint => {
      const pair = n >>> 1;
      const word2 = (Math.imul(pair, 0x85ebca6b) ^ (n & 1)) >>> 0;
      return { word0: Math.imul(pair, 0x9e3779b1) >>> 0, word1: Math.imul(pair, 0xc2b2ae35) >>> 0, word2 };
    };
    const loaded = Uint32Array.from(
      Array.from({ length: 30_000 }, (_, n) => {
        const bookedAt = 1 + (random() % HORIZON_SECONDS);
        const check = random();
        model.set(n, { bookedAt, check });
        const { word0, word1, word2 } = wordsOf(n);
        return [word0, word1, word2, bookedAt, check];
      }).flat(),
    );
    index.reserve(30_000);
    index.putRows(loaded);
    expect(index.size).toBe(30_000);
    for (let step = 0; step < 300_000; step += 1) {
      // Ten a second, so that a horizon holds 1,000 of 40,000: most of what comes again has expired.
      const now = HORIZON_SECONDS + Math.floor(step / 10);
      const n = random() % 40_000;
      const known = model.get(n);
      const expected = known !== undefined && now - known.bookedAt <= HORIZON_SECONDS ? known.check : null;
      const fingerprint = wordsOf(n);
      const found = index.find(fingerprint, now);
      if (found !== expected) expect.fail(`step ${step}: ${n} is ${found}, not ${expected}`);
      if (expected !== null) continue;
      const check = random();
      index.put(fingerprint, now, check);
      model.set(n, { bookedAt: now, check });
    }
  },
);

test("a large index takes at most 30 bytes for each identity at every size, 29 on average, and grows in small parts", () => {
  const random = seeded(7);
  const index = new DedupeIndex(HORIZON_SECONDS);
  let worst = 0;
  let sum = 0;
  let samples = 0;
  let before = index.sizeBytes;
  let largestGrowth = 0;
  for (let n = 1; n <= 600_000; n += 1) {
    index.put({ word0: random(), word1: random(), word2: n }, 1, 0);
    const { sizeBytes, size } = index;
    if (size > 100_000) {
      worst = Math.max(worst, sizeBytes / size);
      sum += sizeBytes / size;
      samples += 1;
      largestGrowth = Math.max(largestGrowth, (sizeBytes - before) / sizeBytes);
    }
    before = sizeBytes;
  }
  expect(index.size).toBe(600_000);
  expect(worst).toBeLessThanOrEqual(30);
  expect(sum / samples).toBeLessThanOrEqual(29);
  expect(largestGrowth).toBeLessThan(1 / 1_000);
});

test("room that is reserved is enough for what it was reserved for, at 30 bytes each", () => {
  const random = seeded(11);
  for (const identities of [100_000, 1_000_000]) {
    const index = new DedupeIndex(HORIZON_SECONDS);
    index.reserve(identities);
    const reservedBytes = index.sizeBytes;
    for (let n = 0; n < identities; n += 1) index.put({ word0: random(), word1: random(), word2: n }, 1, 0);
    expect(index.sizeBytes / index.size).toBeLessThanOrEqual(30.5);
    if (identities > 500_000) expect(index.sizeBytes).toBe(reservedBytes);
  }
});
