import { DAY_MS, type Quantity } from "@tallyhouse/domain";
import { quantity } from "@tallyhouse/testkit";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ItemSoFar, type Projection, projectItem } from "./projection.ts";

const DAY = { partMs: DAY_MS, dayMs: DAY_MS };
const item = (given: Partial<ItemSoFar>): ItemSoFar => ({
  aggregation: "sum",
  counted: quantity("0"),
  elapsedMs: 10 * DAY_MS,
  remainingMs: 20 * DAY_MS,
  days: [],
  rest: [],
  ...given,
});
const days = (...texts: string[]): Quantity[] => texts.map(quantity);
const told = (method: Projection["method"], ...[low = "", likely = "", high = ""]: readonly string[]): Projection => ({
  method,
  low: quantity(low),
  likely: quantity(likely),
  high: quantity(high),
});

describe("a projection", () => {
  it("takes each coming day from its weekday, and a part of a day in proportion, whatever the day's length", () => {
    // Two weeks that end yesterday: 1 to 7, then 10 to 70. Today is the weekday of the first of each.
    const history = days("1", "2", "3", "4", "5", "6", "7", "10", "20", "30", "40", "50", "60", "70");
    const rest = [{ partMs: 6, dayMs: 12 }, DAY, DAY, DAY, DAY, DAY, DAY, DAY, { partMs: 1, dayMs: 25 }];
    // The older week: 1 / 2 + 2 + … + 7, a whole day like today's 1, and 2 / 25, which is 28.58. The newer one is ten times that.
    expect(projectItem(item({ counted: quantity("0.5"), days: history, rest }))).toEqual(
      told("weekdays", "29.08", "157.69", "286.3"),
    );
  });

  it("wants two whole weeks, and looks at four at most", () => {
    const week = days("7", "7", "7", "7", "7", "7", "7");
    expect(projectItem(item({ days: week.concat(week.slice(1)) })).method).toBe("run_rate");
    const old = days("900", "900", "900", "900", "900", "900", "900");
    const five = [old, week, week, week, week].flat();
    expect(projectItem(item({ days: five, rest: [DAY] }))).toEqual(told("weekdays", "7", "7", "7"));
  });

  it("cuts to nine digits, or to whole units where only those were counted", () => {
    const thirds = { elapsedMs: 3, remainingMs: 1 };
    expect(projectItem(item({ counted: quantity("1"), ...thirds }))).toEqual(told("run_rate", "1", "1", "1"));
    expect(projectItem(item({ counted: quantity("0.1"), ...thirds }))).toEqual(
      told("run_rate", "0.116666666", "0.133333333", "0.166666666"),
    );
  });

  it("is what was counted where nothing can follow from time", () => {
    for (const aggregation of ["max", "min", "latest"] as const)
      expect(projectItem(item({ aggregation, counted: quantity("5") }))).toEqual(told("counted", "5", "5", "5"));
    expect(projectItem(item({ elapsedMs: 0, counted: quantity("5") }))).toEqual(told("counted", "5", "5", "5"));
    expect(projectItem(item({ aggregation: "unique_count", counted: quantity("5") }))).toEqual(
      told("run_rate", "5", "10", "15"),
    );
  });

  it("G4: is in order for any history, and the same for the same facts", () => {
    const amount = fc.bigInt({ min: -(10n ** 18n), max: 10n ** 30n }).map((scaled) => scaled as Quantity);
    const part = fc.integer({ min: 1, max: DAY_MS }).map((partMs) => ({ partMs, dayMs: DAY_MS }));
    const facts = fc.record({
      aggregation: fc.constantFrom("sum", "count", "unique_count", "max" as const),
      counted: amount,
      elapsedMs: fc.integer({ min: 0, max: 31 * DAY_MS }),
      remainingMs: fc.integer({ min: 0, max: 31 * DAY_MS }),
      days: fc.array(amount, { maxLength: 40 }),
      rest: fc.array(part, { maxLength: 35 }),
    }) as fc.Arbitrary<ItemSoFar>;
    fc.assert(
      fc.property(facts, (given) => {
        const { low, likely, high } = projectItem(given);
        expect(projectItem(given)).toEqual({ method: expect.any(String) as string, low, likely, high });
        // A negative number of different values cannot be counted; everything else keeps its order.
        if (given.aggregation === "unique_count" && given.counted < 0n) return;
        expect(low <= likely && likely <= high).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});
