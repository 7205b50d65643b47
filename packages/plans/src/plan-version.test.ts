import { readFileSync } from "node:fs";
import { parseQuantity, ZERO_QUANTITY } from "@tallyhouse/domain";
import { rateBill } from "@tallyhouse/pricing";
import { describe, expect, it } from "vitest";
import { applyContract } from "./contract.ts";
import type { ContractVersion } from "./periods.ts";
import type { Plan, PlanVersion } from "./plan.ts";
import { differenceText, diffPlans, planDigest, ratedPlanOf } from "./plan-version.ts";
import { parsePlansFile } from "./plans-file.ts";

/** Plans of a file, by key. */
function plansOf(plans: string): Record<string, Plan> {
  const reading = parsePlansFile(`schema: tallyhouse.plans/1\ndefaults: {currency: usd}\nplans:\n${plans}`);
  if (reading.kind === "problems") throw new Error(JSON.stringify(reading.problems));
  return Object.fromEntries(reading.file.plans.map((plan) => [plan.key, plan]));
}
function planOf(plans: string): Plan {
  const [plan] = Object.values(plansOf(plans));
  if (plan === undefined) throw new Error("no plan");
  return plan;
}

const PRO = `  pro:
    price: "49"
    limits: {minute: {limit: 100, burst: 20}}
    items:
      calls: {meter: calls, included: "1000", cap: "5000", policy: overage, price: {model: per_unit, unit: "0.002"}}
      traffic: {meter: bytes, policy: overage, price: {model: package, size: "1000", price: "0.09"}}
`;
const CUSTOM = "  big: {price: custom, limits: custom, items: custom, features: {sso: true}}\n";

describe("planDigest", () => {
  const versions = { calls: 1, bytes: 2 };
  const digest = planDigest(planOf(PRO), versions);
  const changed = (from: string, to: string): string => planDigest(planOf(PRO.replace(from, to)), versions);

  it("is one for files that mean the same", () => {
    expect(digest).toMatch(/^[0-9a-f]{64}$/);
    expect(changed('"0.002"', '"0.0020"')).toBe(digest);
    expect(changed('    price: "49"\n', '    price: "49.00"\n    currency: usd\n    interval: month\n')).toBe(digest);
    expect(changed("included:", "where: {}, included:")).toBe(digest);
    expect(planDigest(planOf(PRO), { bytes: 2, calls: 1 })).toBe(digest);
    const where = (values: string): string => changed("{meter: calls,", `{meter: calls, where: {m: ${values}},`);
    expect(where("[b, a, b]")).toBe(where("[a, b]"));
    expect(where("[1]")).toBe(where('"1"'));
  });

  it("is another for whatever a bill, a limit or a page could tell apart", () => {
    const others = [
      changed('"49"', '"50"'),
      changed("0.002", "0.003"),
      changed('"1000", cap', '"1001", cap'),
      changed("5000", "5001"),
      changed("burst: 20", "burst: 21"),
      changed("    items", "    interval: year\n    items"),
      changed("calls: {meter", "call: {meter"),
      changed('price: "0.09"', 'price: "0.09", round: down'),
      changed("    items", "    features: {sso: true}\n    items"),
      planDigest(planOf(PRO), { calls: 2, bytes: 2 }),
      // The order of items is the order of a bill's lines.
      planDigest(planOf(PRO.replace(/( {6}calls.*\n)( {6}traffic.*\n)/, "$2$1")), versions),
    ];
    expect(new Set([digest, ...others]).size).toBe(others.length + 1);
  });
});

describe("applyContract", () => {
  const pro = planOf(PRO);
  const big = planOf(CUSTOM);
  const contracted = (plan: Plan, overrides: Record<string, unknown>): unknown => {
    const reading = applyContract(plan, overrides);
    return reading.kind === "plan"
      ? reading.plan
      : reading.issues.map(({ path, rule }) => `${path.map(String).join(".")}: ${rule}`);
  };

  it("changes nothing when it says nothing", () => {
    for (const plan of Object.values(plansOf(PRO))) expect(contracted(plan, {})).toEqual(plan);
  });

  it("merges objects, replaces everything else, removes with null", () => {
    expect(
      contracted(pro, {
        price: "30.00",
        alerts: [50],
        items: {
          calls: { included: "2000" },
          traffic: null,
          seats: { meter: "seats", included: "5", policy: "block" },
        },
      }),
    ).toEqual({
      ...pro,
      price: "30",
      alerts: [50],
      items: {
        calls: { ...(pro.items === "custom" ? null : pro.items["calls"]), included: "2000" },
        seats: {
          meter: "seats",
          where: {},
          included: "5",
          policy: "block",
          cap: null,
          price: null,
          to: null,
          throttle: null,
        },
      },
    });
    expect(contracted(pro, { limits: { minute: { burst: null, limit: 700 } } })).toMatchObject({
      limits: { minute: { limit: 700 } },
    });
  });

  it("a price of another model is whole, one of the same may be a part", () => {
    const tiers = [{ upTo: "inf", unit: "1", flat: "0" }];
    expect(contracted(pro, { items: { calls: { price: { model: "graduated", tiers } } } })).toMatchObject({
      items: { calls: { price: { model: "graduated", tiers } } },
    });
    expect(contracted(pro, { items: { calls: { price: { unit: "0.001" } } } })).toMatchObject({
      items: { calls: { price: { model: "per_unit", unit: "0.001" } } },
    });
  });

  it("obeys every rule of a plan, all told at once", () => {
    expect(
      contracted(pro, {
        price: 30,
        colour: "red",
        currency: "xyz",
        items: { calls: { cap: "999" }, x: { price: {} } },
      }),
    ).toEqual([
      "currency: must be an ISO 4217 code in lower case that can be billed, such as usd",
      'price: must be decimal text in quotes, such as "49", or custom',
      "items.x.meter: must match [a-z][a-z0-9_]{0,62}",
      "items.x.policy: must be one of block, overage, throttle, auto_upgrade",
      "items.x.price.model: must be one of per_unit, package, graduated, volume",
      "colour: is not a known key",
      "items.calls.cap: is 999, less than the included 1000",
    ]);
  });

  it("keeps the meter of each item of the plan", () => {
    expect(contracted(pro, { items: { calls: { meter: "bytes", where: { zone: "a" } } } })).toEqual([
      'items.calls.meter: is "calls" in the plan; another meter is another item',
      'items.traffic.where: overlaps "calls": usage of one meter would count in both; narrow where so that they share none',
    ]);
  });

  it("leaves nothing custom", () => {
    const open = "is custom in the plan: the contract must set it";
    expect(contracted(big, {})).toEqual([`price: ${open}`, `limits: ${open}`, `items: ${open}`]);
    expect(contracted(big, { price: "5000", limits: {} })).toEqual([`items: ${open}`]);
    expect(contracted(big, { price: "5000", limits: {}, items: {} })).toMatchObject({
      price: "5000",
      limits: {},
      items: {},
      features: { sso: true },
    });
  });

  it("is judged beside the other plans and the endpoints where they are known", () => {
    const upgrade = { items: { calls: { policy: "auto_upgrade", to: "big", price: null } } };
    expect(contracted(pro, upgrade)).toMatchObject({ items: { calls: { to: "big" } } });
    expect(applyContract(pro, upgrade, { plans: [pro, big] })).toMatchObject({
      issues: [{ path: ["items", "calls", "to"], rule: '"big" has custom fields, which only a contract sets' }],
    });
    const endpoints = [{ match: "* /**", cost: 20, units: {} }];
    expect(applyContract(pro, { limits: { minute: { burst: 19 } } }, { endpoints })).toMatchObject({
      issues: [{ path: ["limits", "minute", "burst"] }],
    });
  });
});

describe("diffPlans", () => {
  const textOf = (before: unknown, after: unknown): string[] => diffPlans(before, after).map(differenceText);

  it("tells each field that is new, gone or changed", () => {
    const tiers = (ends: string): string => `price: {model: graduated, tiers: [${ends}]}`;
    const before = planOf(
      PRO.replace(/price: \{model: per_unit.*?\}/, tiers('{upTo: "5", unit: "2"}, {upTo: inf, unit: "1"}')),
    );
    const after = planOf(
      PRO.replace(
        /price: \{model: per_unit.*?\}/,
        tiers('{upTo: "5", unit: "3", flat: "1"}, {upTo: "9", unit: "2"}, {upTo: inf, unit: "1"}'),
      )
        .replace(/ {6}traffic.*\n/, '      seats: {meter: seats, included: "5", policy: block}\n')
        .replace(', cap: "5000"', "")
        .replace("burst: 20", "burst: 30"),
    );
    expect(textOf(before, before)).toEqual([]);
    expect(textOf(before, after)).toEqual([
      "~ limits.minute.burst: 20 → 30",
      "- items.calls.cap: 5000",
      "~ items.calls.price.tiers[0].unit: 2 → 3",
      "~ items.calls.price.tiers[0].flat: 0 → 1",
      "~ items.calls.price.tiers[1].upTo: inf → 9",
      "~ items.calls.price.tiers[1].unit: 1 → 2",
      '+ items.calls.price.tiers[2]: {"upTo":"inf","unit":"1","flat":"0"}',
      '- items.traffic: {"meter":"bytes","where":{},"included":null,"policy":"overage","cap":null,"price":{"model":"package","size":"1000","price":"0.09","round":"up"},"to":null,"throttle":null}',
      '+ items.seats: {"meter":"seats","where":{},"included":"5","policy":"block","cap":null,"price":null,"to":null,"throttle":null}',
    ]);
  });

  it("tells another order of items, which is an order of lines", () => {
    expect(textOf({ items: { a: 1, b: 2, c: 3 } }, { items: { c: 3, a: 1, d: 4 } })).toEqual([
      "- items.b: 2",
      "+ items.d: 4",
      '~ items (order): ["a","b","c"] → ["c","a","d"]',
    ]);
    expect(textOf({ features: { a: 1, b: 2 } }, { features: { b: 2, a: 1 } })).toEqual([]);
  });
});

describe("ratedPlanOf", () => {
  const version = (plan: Plan, meterVersions: Record<string, number>): PlanVersion => ({
    mode: "live",
    key: plan.key,
    version: 3,
    digest: planDigest(plan, meterVersions),
    plan,
    meterVersions,
    createdAt: 0,
  });
  const contract = (overrides: object, meterVersions: Record<string, number>): ContractVersion => ({
    version: 2,
    plan: "pro",
    overrides: overrides as Record<string, unknown>,
    meterVersions,
    effectiveAt: 0,
    createdAt: 0,
  });

  it("names the version and freezes its meters", () => {
    expect(ratedPlanOf(version(planOf(PRO), { calls: 4, bytes: 1 }), null)).toEqual({
      plan: "pro@3",
      currency: "usd",
      fee: "49",
      items: [
        {
          key: "calls",
          meter: "calls",
          meterVersion: 4,
          where: {},
          included: "1000",
          price: { model: "per_unit", unit: "0.002" },
        },
        {
          key: "traffic",
          meter: "bytes",
          meterVersion: 1,
          where: {},
          included: null,
          price: { model: "package", size: "1000", price: "0.09", round: "up" },
        },
      ],
    });
  });

  it("takes the plan's meter versions before the contract's own", () => {
    const seats = { meter: "seats", included: "5", policy: "block" };
    const overrides = { price: "40", items: { seats } };
    const rated = ratedPlanOf(
      version(planOf(PRO), { calls: 4, bytes: 1 }),
      contract(overrides, { calls: 3, bytes: 1, seats: 7 }),
    );
    expect(rated).toMatchObject({ plan: "pro@3+2", fee: "40" });
    expect(rated.items.map(({ key, meterVersion }) => `${key} ${meterVersion}`)).toEqual([
      "calls 4",
      "traffic 1",
      "seats 7",
    ]);
  });

  it("never rates what is still custom, or a contract that does not fit", () => {
    expect(() => ratedPlanOf(version(planOf(CUSTOM), {}), null)).toThrow("big is rated without its contract");
    const broken = contract({ items: { calls: { cap: "1" } } }, {});
    expect(() => ratedPlanOf(version(planOf(PRO), { calls: 1, bytes: 1 }), broken)).toThrow(
      "contract 2 does not fit pro@3: items.calls.cap is 1, less than the included 1000",
    );
  });
});

describe("the plans of examples/plans.yaml", () => {
  const reading = parsePlansFile(readFileSync(new URL("../../../examples/plans.yaml", import.meta.url), "utf8"));
  if (reading.kind === "problems") throw new Error(JSON.stringify(reading.problems));
  const total = (key: string, totals: Record<string, string>): string => {
    const plan = reading.file.plans.find((each) => each.key === key);
    if (plan === undefined || plan.items === "custom") throw new Error(`no plan ${key} to rate`);
    const meterVersions = Object.fromEntries(Object.values(plan.items).map(({ meter }) => [meter, 1]));
    const version = { mode: "live", key, version: 1, digest: "", plan, meterVersions, createdAt: 0 } as const;
    const quantities = Object.entries(totals).map(([item, text]) => {
      return { item, quantity: parseQuantity(text) ?? ZERO_QUANTITY };
    });
    return rateBill(ratedPlanOf(version, null), quantities, { startAt: 0, endAt: 1 }).total;
  };

  it.each([
    ["free", { requests: "1000" }, "0.00"],
    ["starter", { requests: "20000" }, "9.90"],
    // 1,000,000 × 0.00000015 + 2,000,000 × 0.000003
    ["pay_as_you_go", { small: "1000000", large: "2000000" }, "6.15"],
    // 49 + 10,000,000 × 0.0000025 + 5 + 5,000,000 × 0.000002 + 100,000 × 0.00001
    ["team", { requests: "999999", input: "20000000", output: "1100000" }, "90.00"],
    // 199 + 1,000,001 × 0.0003 + 1 begun package at 2 + 1 full package at 8
    ["volume", { requests: "1000001", input: "1", output: "1999999" }, "509.00"],
    ["prepaid", { input: "0" }, "0.00"],
    // 70000 + 5 × 0.3, half a yen rounded up
    ["team_jp", { requests: "5" }, "70002"],
    // 15.125 + 1 × 0.0005, half a fils rounded up
    ["team_kw", { requests: "100001" }, "15.126"],
  ])("%s with %j is %s", (key, totals, expected) => {
    expect(total(key, totals)).toBe(expected);
  });
});
