import fc from "fast-check";
import { expect, it } from "vitest";
import { bucketOf, type CustomerChange, SimulationSummary } from "./simulation-summary.ts";

it.each([
  [100n, 100n, "unchanged"],
  [0n, 0n, "unchanged"],
  [0n, 1n, "from nothing"],
  [100n, 0n, "−50 % and less"],
  [100n, 50n, "−50 % and less"],
  [1_000n, 501n, "−50 to −25 %"],
  [100n, 75n, "−50 to −25 %"],
  [100n, 90n, "−25 to −10 %"],
  [1_000n, 901n, "−10 to 0 %"],
  [1_000n, 1_099n, "0 to +10 %"],
  [100n, 110n, "+10 to +25 %"],
  [100n, 125n, "+25 to +50 %"],
  [100n, 150n, "+50 to +100 %"],
  [100n, 200n, "+100 % and more"],
])("puts %s → %s into the bucket %s", (before, after, bucket) => {
  expect(bucketOf(before, after)).toBe(bucket);
});

const change = (index: number, before: bigint, after: bigint): CustomerChange => ({
  customer: `c${String(index).padStart(3, "0")}`,
  currency: index % 3 === 0 ? "jpy" : "usd",
  plans: ["pro"],
  plansAfter: ["pro"],
  periods: 1,
  before,
  after,
});

it("adds up, whatever the order of the customers: buckets and counts tile the whole, the largest are the largest", () => {
  const amounts = fc.array(fc.tuple(fc.bigInt({ min: 0n, max: 500n }), fc.bigInt({ min: 0n, max: 500n })), {
    maxLength: 60,
  });
  fc.assert(
    fc.property(amounts, (pairs) => {
      const changes = pairs.map(([before, after], index) => change(index, before, after));
      const summaryOf = (all: readonly CustomerChange[]) => {
        const summary = new SimulationSummary();
        for (const each of all) {
          summary.addCustomer(each);
          summary.addPeriod(each.currency, { plan: "pro", planAfter: "pro" }, each);
        }
        return summary.summaries();
      };
      const summaries = summaryOf(changes);
      expect(summaryOf(changes.toReversed())).toEqual(summaries);
      for (const { currency, customers, more, less, same, distribution, largestIncreases, ...rest } of summaries) {
        const mine = changes.filter((each) => each.currency === currency);
        expect(customers).toBe(mine.length);
        expect(more + less + same).toBe(customers);
        expect(distribution.reduce((sum, bucket) => sum + bucket.customers, 0)).toBe(customers);
        const minor = (text: string): bigint => BigInt(text.replace(".", ""));
        const sum = mine.reduce((total, { before, after }) => total + after - before, 0n);
        expect(distribution.reduce((total, bucket) => total + minor(bucket.change), 0n)).toBe(sum);
        expect(minor(rest.change)).toBe(sum);
        expect(minor(rest.after) - minor(rest.before)).toBe(sum);
        const rises = mine.filter(({ before, after }) => after > before);
        const ranked = rises.toSorted(
          (a, b) => Number(b.after - b.before - (a.after - a.before)) || (a.customer < b.customer ? -1 : 1),
        );
        expect(largestIncreases.map(({ customer }) => customer)).toEqual(
          ranked.slice(0, 10).map(({ customer }) => customer),
        );
      }
    }),
  );
});
