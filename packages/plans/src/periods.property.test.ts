/** Periods tile the time with a plan, and nothing that is decided later moves one that has begun. */
import { assert, DAY_MS } from "@tallyhouse/domain";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type BillingHistory, boundaryAfter, type BillingPeriod, periodsOf } from "./periods.ts";
import type { Interval, Plan, PlanVersion } from "./plan.ts";

const EPOCH = Date.UTC(2024, 0, 1);
const HORIZON = Date.UTC(2031, 0, 1);
const ALL = { startAt: 0, endAt: HORIZON };

const interval = fc.constantFrom<Interval>("month", "year");
/** Any second of three years, month ends and 29 February more often than chance has them. */
const instant = fc.oneof(
  fc.integer({ min: 0, max: 3 * 366 * 86_400 }).map((seconds) => EPOCH + seconds * 1_000),
  fc
    .tuple(fc.integer({ min: 0, max: 35 }), fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 86_399 }))
    .map(([month, daysBefore, second]) => Date.UTC(2024, month + 1, 1) - (daysBefore + 1) * DAY_MS + second * 1_000),
);
const versionsOf = (key: string) =>
  fc.array(fc.record({ createdAt: instant, interval }), { minLength: 1, maxLength: 3 }).map((made) =>
    made
      .toSorted((a, b) => a.createdAt - b.createdAt)
      .map(({ createdAt, interval: each }, index): PlanVersion => {
        const plan = { key, interval: each, price: String(index) } as unknown as Plan;
        return { mode: "live", key, version: index + 1, digest: `${index}`, plan, meterVersions: {}, createdAt };
      }),
  );
const decision = fc.record({
  plan: fc.constantFrom("a", "b", null),
  waitMs: fc.integer({ min: 0, max: 400 * DAY_MS }),
});

/** Decides as set-plan does: a change takes effect at the first boundary after it, and keeps the count while the interval is the same. */
function decided(history: BillingHistory, plan: string | null, at: number): BillingHistory {
  const boundary = boundaryAfter(history, at);
  const effectiveAt = boundary?.at ?? at;
  const before = history.assignments.filter((each) => each.effectiveAt < effectiveAt);
  return { ...history, assignments: [...before, { plan, effectiveAt, anchorAt: boundary?.anchorAt ?? effectiveAt }] };
}

const scenario = fc.record({
  a: versionsOf("a"),
  b: versionsOf("b"),
  first: instant,
  decisions: fc.array(decision, { maxLength: 6 }),
});

function assertTiles(history: BillingHistory, periods: readonly BillingPeriod[]): void {
  const gaps = new Set(history.assignments.filter(({ plan }) => plan === null).map(({ effectiveAt }) => effectiveAt));
  for (const [index, { startAt, endAt }] of periods.entries()) {
    expect(endAt).toBeGreaterThan(startAt);
    const next = periods[index + 1];
    if (next === undefined) expect(endAt >= HORIZON || gaps.has(endAt)).toBe(true);
    else if (next.startAt !== endAt) expect(next.startAt > endAt && gaps.has(endAt)).toBe(true);
  }
}

test("periods tile from the first assignment, and later decisions and versions leave what has begun", () => {
  fc.assert(
    fc.property(scenario, ({ a, b, first, decisions }) => {
      let history: BillingHistory = {
        assignments: [{ plan: "a", effectiveAt: first, anchorAt: first }],
        versions: [...a, ...b],
        contracts: [],
      };
      let at = first;
      for (const { plan, waitMs } of decisions) {
        at += waitMs;
        const before = periodsOf(history, ALL).filter(({ startAt }) => startAt <= at);
        history = decided(history, plan, at);
        expect(periodsOf(history, ALL).slice(0, before.length)).toEqual(before);
        const last = history.versions.findLast(({ key }) => key === "a");
        assert(last !== undefined, "plan a has versions");
        const later = { ...last, version: last.version + 1, createdAt: Math.max(at, last.createdAt) + 1 };
        const withLater = { ...history, versions: [...history.versions, later] };
        expect(periodsOf(withLater, ALL).slice(0, before.length)).toEqual(before);
      }
      const periods = periodsOf(history, ALL);
      expect(periods[0]?.startAt).toBe(first);
      assertTiles(history, periods);
    }),
    { numRuns: 150 },
  );
});

test("a span finds what a look at all of time finds", () => {
  fc.assert(
    fc.property(scenario, instant, fc.integer({ min: 1, max: 500 * DAY_MS }), ({ a, b, first }, startAt, length) => {
      const history = {
        assignments: [{ plan: "a", effectiveAt: first, anchorAt: first }],
        versions: [...a, ...b],
        contracts: [],
      };
      const span = { startAt, endAt: startAt + length };
      expect(periodsOf(history, span)).toEqual(
        periodsOf(history, ALL).filter((each) => each.startAt < span.endAt && each.endAt > span.startAt),
      );
    }),
    { numRuns: 100 },
  );
});

test("monthly periods of one stay keep to the anchor's day, or to the month's last", () => {
  fc.assert(
    fc.property(instant, (first) => {
      const plan = { key: "a", interval: "month" } as unknown as Plan;
      const version: PlanVersion = {
        mode: "live",
        key: "a",
        version: 1,
        digest: "",
        plan,
        meterVersions: {},
        createdAt: 0,
      };
      const history = {
        assignments: [{ plan: "a", effectiveAt: first, anchorAt: first }],
        versions: [version],
        contracts: [],
      };
      for (const { startAt } of periodsOf(history, ALL)) {
        const date = new Date(startAt);
        const monthDays = new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 0)).getUTCDate();
        expect(date.getUTCDate()).toBe(Math.min(new Date(first).getUTCDate(), monthDays));
        expect(startAt % DAY_MS).toBe(first % DAY_MS);
      }
    }),
    { numRuns: 100 },
  );
});
