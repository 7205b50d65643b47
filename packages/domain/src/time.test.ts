import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ceilTo, DAY_MS, floorTo, formatInstant, parseInstant, utcMonthOf, WINDOW_MS, windowStartOf } from "./time.ts";

const FIRST = Date.parse("0100-01-01T00:00:00Z");
const LAST = Date.parse("9999-12-31T23:59:59.999Z");
const instant = fc.integer({ min: FIRST, max: LAST });

describe("parseInstant", () => {
  test("reads what formatInstant writes, and agrees with the language's own reader", () => {
    fc.assert(
      fc.property(instant, (at) => {
        expect(parseInstant(formatInstant(at))).toBe(at);
        expect(parseInstant(new Date(at).toISOString())).toBe(at);
      }),
    );
  });

  test("reads the plain form as it reads the same instant written with an offset, and refuses the same", () => {
    const digits = (length: number): fc.Arbitrary<string> =>
      fc.string({ unit: fc.constantFrom(..."0 1 2 3 4 5 6 7 8 9".split(" ")), minLength: length, maxLength: length });
    const near = fc
      .tuple(
        fc.constantFrom("19", "20", "21", "22"),
        digits(2),
        digits(2),
        digits(2),
        digits(2),
        digits(2),
        digits(2),
        digits(3),
      )
      .map(([c, y, mo, d, h, mi, s, ms]) => ({ whole: `${c}${y}-${mo}-${d}T${h}:${mi}:${s}`, ms }));
    fc.assert(
      fc.property(near, fc.nat(23), fc.constantFrom("x", "-", "2", " "), ({ whole, ms }, at, character) => {
        for (const text of [whole, `${whole}.${ms}`, whole.slice(0, at) + character + whole.slice(at + 1)]) {
          expect(parseInstant(`${text}Z`)).toBe(parseInstant(`${text}+00:00`));
        }
      }),
      { numRuns: 3_000 },
    );
    expect(parseInstant("2024-02-29T00:00:00Z")).toBe(Date.UTC(2024, 1, 29));
    expect(parseInstant("2023-02-29T00:00:00Z")).toBeNull();
  });

  test("whatever it accepts, formatInstant writes so that it reads the same", () => {
    const text = fc
      .tuple(
        instant,
        fc.constantFrom("Z", "z", "+00:00", "-00:00", "+23:59", "-23:59", "+05:45"),
        fc.stringMatching(/^(\.\d{1,25})?$/),
      )
      .map(([at, zone, fraction]) => new Date(at).toISOString().replace(/\.\d{3}Z$/, fraction + zone));
    fc.assert(
      fc.property(text, (input) => {
        const at = parseInstant(input);
        const isRefusedAtTheEdge = at === null && /^(0100-01-01|9999-12-31)/.test(input);
        expect(isRefusedAtTheEdge || (at !== null && parseInstant(formatInstant(at)) === at)).toBe(true);
      }),
    );
  });

  test("digits finer than a millisecond are cut, before and after 1970", () => {
    expect(parseInstant("2023-11-16T18:59:59.9993170Z")).toBe(Date.UTC(2023, 10, 16, 18, 59, 59, 999));
    expect(parseInstant("1969-12-31T23:59:59.9999999999999999999999999Z")).toBe(-1);
    expect(parseInstant("1969-12-31T23:59:59.0009Z")).toBe(-1_000);
    expect(parseInstant("2026-11-20T10:00:00.5Z")).toBe(Date.UTC(2026, 10, 20, 10, 0, 0, 500));
  });

  test("offsets move the instant the right way", () => {
    expect(parseInstant("2026-11-20T10:00:00+05:30")).toBe(Date.UTC(2026, 10, 20, 4, 30));
    expect(parseInstant("2026-11-20t10:00:00-08:00")).toBe(Date.UTC(2026, 10, 20, 18));
  });

  test.each([
    "2026-02-29T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2026-11-20T24:00:00Z",
    "2026-11-20T10:60:00Z",
    "2026-12-31T23:59:60Z",
    "2026-11-20T10:00:00+24:00",
    "2026-11-20T10:00:00+01:60",
    "2026-11-20T10:00:00",
    "2026-11-20 10:00:00Z",
    "2026-11-20T10:00Z",
    "2026-11-20T10:00:00.Z",
    "2026-11-20T10:00:00+0100",
    "20261120T100000Z",
    "+012026-11-20T10:00:00Z",
    "2026-11-20T10:00:00Z ",
    "1763632800",
    "0050-01-01T00:00:00Z",
    "9999-12-31T23:59:59-00:01",
    "0100-01-01T00:00:00+00:01",
    "",
  ])("refuses %s", (text) => {
    expect(parseInstant(text)).toBeNull();
  });

  test("leap days are real in leap years only", () => {
    expect(parseInstant("2024-02-29T00:00:00Z")).not.toBeNull();
    expect(parseInstant("2000-02-29T00:00:00Z")).not.toBeNull();
    expect(parseInstant("2100-02-29T00:00:00Z")).toBeNull();
  });
});

test("windows and days are half-open, negative instants included", () => {
  fc.assert(
    fc.property(instant, fc.constantFrom(1_000, WINDOW_MS, DAY_MS), (at, stepMs) => {
      const floor = floorTo(at, stepMs);
      const ceiling = ceilTo(at, stepMs);
      expect(floor <= at && at < floor + stepMs && ceiling - stepMs < at && at <= ceiling).toBe(true);
      expect(Math.abs(floor % stepMs) + Math.abs(ceiling % stepMs)).toBe(0);
    }),
  );
  expect(windowStartOf(-1)).toBe(-WINDOW_MS);
  expect(windowStartOf(WINDOW_MS)).toBe(WINDOW_MS);
  expect(windowStartOf(WINDOW_MS - 1)).toBe(0);
});

test("a UTC month holds its instant and ends where the next begins", () => {
  fc.assert(
    fc.property(instant, (at) => {
      const month = utcMonthOf(at);
      expect(month.startAt <= at && at < month.endAt).toBe(true);
      expect(utcMonthOf(month.startAt)).toEqual(month);
      expect(utcMonthOf(month.endAt).startAt).toBe(month.endAt);
      expect(new Date(month.startAt).toISOString()).toMatch(/-01T00:00:00.000Z$/);
    }),
  );
});
