import { describe, expect, it } from "vitest";
import { type Verdict, verdictOf } from "./verify.ts";

const UNIT = 10n ** 9n;
const base = { value: 5n * UNIT, others: 0n, step: "check" as const, wasAbsentBefore: false, isTooOld: false };

describe("what a reading of the row's minute proves", () => {
  it.each<[string, Partial<Parameters<typeof verdictOf>[0]>, Verdict]>([
    ["the value", { reading: 5 }, "accepted"],
    ["the value, after it was absent", { reading: 5, wasAbsentBefore: true }, "accepted"],
    ["nothing", { reading: 0 }, "absent_once"],
    ["nothing twice", { reading: 0, wasAbsentBefore: true }, "resend"],
    ["nothing twice, too old to repeat", { reading: 0, wasAbsentBefore: true, isTooOld: true }, "expired"],
    ["nothing twice, of a repeated duplicate", { reading: 0, wasAbsentBefore: true, step: "recheck" }, "void"],
    ["something else", { reading: 10 }, "quarantined"],
    ["a shared minute with it", { reading: 3, value: 5n * UNIT, others: -2n * UNIT }, "accepted"],
    ["a shared minute without it", { reading: -2, value: 5n * UNIT, others: -2n * UNIT }, "absent_once"],
    ["a shared minute that adds up to zero", { reading: 0, value: 5n * UNIT, others: -5n * UNIT }, "accepted"],
    ["a fraction that no double holds", { reading: 0.1 + 0.2, value: (3n * UNIT) / 10n }, "accepted"],
  ])("%s", (_name, given, verdict) => {
    expect(verdictOf({ ...base, reading: 0, ...given })).toBe(verdict);
  });
});
