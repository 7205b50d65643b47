import { formatInstant, parseInstant } from "@tallyhouse/domain";
import { describe, expect, it } from "vitest";
import { addMonths, type Assignment, boundaryAfter, periodAt, periodsOf } from "./periods.ts";
import type { Interval, Plan, PlanVersion } from "./plan.ts";

const at = (text: string): number => {
  const instant = parseInstant(text.length === 10 ? `${text}T00:00:00Z` : text);
  if (instant === null) throw new Error(text);
  return instant;
};

function version(key: string, given: { version?: number; createdAt?: string; interval?: Interval } = {}): PlanVersion {
  const plan: Plan = {
    key,
    currency: "usd",
    interval: given.interval ?? "month",
    price: "49",
    billing: "stripe",
    alerts: [80],
    latePolicy: "carry_forward",
    allow: ["* /**"],
    deny: [],
    limits: {},
    items: {},
    features: {},
    support: null,
    sla: null,
    dunning: null,
  };
  const { version: number = 1, createdAt = "2020-01-01" } = given;
  return {
    mode: "live",
    key,
    version: number,
    digest: `${key}@${number}`,
    plan,
    meterVersions: {},
    createdAt: at(createdAt),
  };
}

const assignment = (plan: string | null, effective: string, anchor = effective): Assignment => ({
  plan,
  effectiveAt: at(effective),
  anchorAt: at(anchor),
});

/** `start/end plan@version+contract` of each period. */
function shown(history: Partial<Parameters<typeof periodsOf>[0]>, from: string, to: string): string[] {
  const whole = { assignments: [], versions: [], contracts: [], ...history };
  return periodsOf(whole, { startAt: at(from), endAt: at(to) }).map(({ startAt, endAt, version: rated, contract }) => {
    const name = `${rated.key}@${rated.version}${contract === null ? "" : `+${contract.version}`}`;
    return `${formatInstant(startAt).replace("T00:00:00Z", "")}/${formatInstant(endAt).replace("T00:00:00Z", "")} ${name}`;
  });
}

describe("addMonths", () => {
  it.each([
    ["2026-01-31", 1, "2026-02-28"],
    ["2026-01-31", 2, "2026-03-31"],
    ["2028-01-31", 1, "2028-02-29"],
    ["2026-01-31", 3, "2026-04-30"],
    ["2026-01-30", 13, "2027-02-28"],
    ["2026-03-31", -1, "2026-02-28"],
    ["2026-03-31", -13, "2025-02-28"],
    ["2028-02-29", 12, "2029-02-28"],
    ["2028-02-29", 48, "2032-02-29"],
    ["2096-02-29", 48, "2100-02-28"],
    ["2026-12-31", 1, "2027-01-31"],
    ["2026-11-30T12:34:56Z", 3, "2027-02-28T12:34:56Z"],
    ["2026-12-31T23:59:59.999Z", 2, "2027-02-28T23:59:59.999Z"],
    ["2026-05-15", 0, "2026-05-15"],
    // Before 1970 the epoch is negative.
    ["1969-12-31T06:00:00Z", 2, "1970-02-28T06:00:00Z"],
  ])("%s and %i months are %s", (anchor, months, expected) => {
    expect(formatInstant(addMonths(at(anchor), months))).toBe(formatInstant(at(expected)));
  });
});

describe("periodsOf", () => {
  const versions = [version("pro"), version("scale"), version("pro_jp", { interval: "year" })];

  it("counts every month from the anchor, so that the 31st comes back", () => {
    expect(shown({ assignments: [assignment("pro", "2026-01-31")], versions }, "2026-01-01", "2026-05-01")).toEqual([
      "2026-01-31/2026-02-28 pro@1",
      "2026-02-28/2026-03-31 pro@1",
      "2026-03-31/2026-04-30 pro@1",
      "2026-04-30/2026-05-31 pro@1",
    ]);
  });

  it("counts years from 29 February", () => {
    expect(shown({ assignments: [assignment("pro_jp", "2028-02-29")], versions }, "2028-01-01", "2032-03-01")).toEqual([
      "2028-02-29/2029-02-28 pro_jp@1",
      "2029-02-28/2030-02-28 pro_jp@1",
      "2030-02-28/2031-02-28 pro_jp@1",
      "2031-02-28/2032-02-29 pro_jp@1",
      "2032-02-29/2033-02-28 pro_jp@1",
    ]);
  });

  it("keeps the second of the day over the year's end", () => {
    const assignments = [assignment("pro", "2026-11-30T12:34:56Z")];
    expect(shown({ assignments, versions }, "2026-12-31", "2027-03-01")).toEqual([
      "2026-12-30T12:34:56Z/2027-01-30T12:34:56Z pro@1",
      "2027-01-30T12:34:56Z/2027-02-28T12:34:56Z pro@1",
      "2027-02-28T12:34:56Z/2027-03-30T12:34:56Z pro@1",
    ]);
  });

  it("meets a half-open span: a period that ends where it begins, or begins where it ends, is outside", () => {
    const assignments = [assignment("pro", "2026-01-01")];
    expect(shown({ assignments, versions }, "2026-02-01", "2026-03-01")).toEqual(["2026-02-01/2026-03-01 pro@1"]);
    expect(shown({ assignments, versions }, "2026-02-01", "2026-02-01")).toEqual([]);
  });

  it("has no period where there is no plan, and begins anew for a customer who comes back", () => {
    const assignments = [
      assignment("pro", "2026-01-10"),
      assignment(null, "2026-02-10"),
      assignment("scale", "2026-04-05T06:00:00Z"),
    ];
    expect(shown({ assignments, versions }, "2026-01-01", "2026-05-06")).toEqual([
      "2026-01-10/2026-02-10 pro@1",
      "2026-04-05T06:00:00Z/2026-05-05T06:00:00Z scale@1",
      "2026-05-05T06:00:00Z/2026-06-05T06:00:00Z scale@1",
    ]);
    const history = { assignments, versions, contracts: [] };
    expect(periodAt(history, at("2026-03-01"))).toBeNull();
    expect(periodAt(history, at("2026-02-10"))).toBeNull();
    expect(periodAt(history, at("2026-02-10") - 1)?.version.key).toBe("pro");
    expect(boundaryAfter(history, at("2026-03-01"))).toBeNull();
  });

  it("keeps the boundaries when the plan changes with the same anchor", () => {
    const assignments = [assignment("pro", "2026-01-31"), assignment("scale", "2026-03-31", "2026-01-31")];
    expect(shown({ assignments, versions }, "2026-02-28", "2026-05-01")).toEqual([
      "2026-02-28/2026-03-31 pro@1",
      "2026-03-31/2026-04-30 scale@1",
      "2026-04-30/2026-05-31 scale@1",
    ]);
  });

  it("ends a period where an assignment begins in the midst of it, and says so", () => {
    const assignments = [assignment("pro", "2026-01-01"), assignment("scale", "2026-01-20T08:00:00Z")];
    const periods = periodsOf({ assignments, versions, contracts: [] }, { startAt: 0, endAt: at("2026-02-21") });
    expect(periods.map(({ isCutShort }) => isCutShort)).toEqual([true, false, false]);
    expect(shown({ assignments, versions }, "2026-01-01", "2026-02-21")).toEqual([
      "2026-01-01/2026-01-20T08:00:00Z pro@1",
      "2026-01-20T08:00:00Z/2026-02-20T08:00:00Z scale@1",
      "2026-02-20T08:00:00Z/2026-03-20T08:00:00Z scale@1",
    ]);
  });

  it("rates a period by the newest version made before it began, or by the first", () => {
    const made = [
      version("pro", { version: 1, createdAt: "2026-01-20" }),
      version("pro", { version: 2, createdAt: "2026-01-25" }),
      version("pro", { version: 3, createdAt: "2026-03-10" }),
      version("pro", { version: 4, createdAt: "2026-04-11" }),
    ];
    expect(
      shown({ assignments: [assignment("pro", "2026-01-10")], versions: made }, "2026-01-10", "2026-05-09"),
    ).toEqual([
      // It had begun before there was any.
      "2026-01-10/2026-02-10 pro@1",
      "2026-02-10/2026-03-10 pro@2",
      // Made at the very instant.
      "2026-03-10/2026-04-10 pro@3",
      "2026-04-10/2026-05-10 pro@3",
    ]);
  });

  it("counts anew from the boundary at which a version changes the interval", () => {
    const made = [
      version("pro", { version: 1, createdAt: "2026-01-01" }),
      version("pro", { version: 2, createdAt: "2026-02-01", interval: "year" }),
      version("pro", { version: 3, createdAt: "2027-01-01", interval: "month" }),
    ];
    expect(
      shown({ assignments: [assignment("pro", "2026-01-31")], versions: made }, "2026-01-31", "2027-05-01"),
    ).toEqual([
      "2026-01-31/2026-02-28 pro@1",
      "2026-02-28/2027-02-28 pro@2",
      "2027-02-28/2027-03-28 pro@3",
      "2027-03-28/2027-04-28 pro@3",
      "2027-04-28/2027-05-28 pro@3",
    ]);
  });

  it("counts anew, too, where an assignment meant to keep an anchor meets another interval by then", () => {
    const assignments = [assignment("pro", "2026-01-31"), assignment("pro_jp", "2026-02-28", "2026-01-31")];
    expect(shown({ assignments, versions }, "2026-02-01", "2027-03-01")).toEqual([
      "2026-01-31/2026-02-28 pro@1",
      "2026-02-28/2027-02-28 pro_jp@1",
      "2027-02-28/2028-02-28 pro_jp@1",
    ]);
  });

  it("lays the contract of its plan over the periods that begin at or after it", () => {
    const contract = (number: number, effective: string, given: { price: string; plan?: string }) => ({
      version: number,
      plan: given.plan ?? "pro",
      overrides: { price: given.price },
      meterVersions: {},
      effectiveAt: at(effective),
      createdAt: at("2026-01-01"),
    });
    const history = {
      assignments: [assignment("pro", "2026-01-01")],
      versions,
      contracts: [
        contract(1, "2026-02-01", { price: "40" }),
        contract(2, "2026-02-15", { price: "30" }),
        contract(3, "2026-03-01", { price: "20" }),
        contract(4, "2026-03-01", { price: "10" }),
        contract(5, "2026-01-01", { price: "0", plan: "scale" }),
      ],
    };
    expect(shown(history, "2026-01-01", "2026-05-01")).toEqual([
      "2026-01-01/2026-02-01 pro@1",
      "2026-02-01/2026-03-01 pro@1+1",
      "2026-03-01/2026-04-01 pro@1+4",
      "2026-04-01/2026-05-01 pro@1+4",
    ]);
    expect(periodAt(history, at("2026-03-05"))?.plan).toMatchObject({ key: "pro", price: "10", currency: "usd" });
    expect(periodAt(history, at("2026-01-05"))?.plan.price).toBe("49");
  });

  it("refuses a plan without a version", () => {
    expect(() =>
      shown({ assignments: [assignment("gone", "2026-01-01")], versions }, "2026-01-01", "2026-02-01"),
    ).toThrow("plan gone has no version");
  });
});

describe("boundaryAfter", () => {
  it("is the end of the running period, with its count", () => {
    const history = {
      assignments: [assignment("pro", "2026-01-31T12:34:56Z")],
      versions: [version("pro")],
      contracts: [],
    };
    const anchorAt = at("2026-01-31T12:34:56Z");
    const first = at("2026-02-28T12:34:56Z");
    expect(boundaryAfter(history, anchorAt)).toEqual({ at: first, anchorAt, interval: "month" });
    expect(boundaryAfter(history, first - 1)?.at).toBe(first);
    expect(boundaryAfter(history, first)?.at).toBe(at("2026-03-31T12:34:56Z"));
    expect(boundaryAfter(history, anchorAt - 1)).toBeNull();
  });
});
