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
