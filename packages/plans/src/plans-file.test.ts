import { describe, expect, it } from "vitest";
import { parsePlansFile } from "./plans-file.ts";

/** The example of the design: docs/plans.md explains each field. */
const DESIGN = `schema: tallyhouse.plans/1
defaults: {currency: usd, interval: month, alerts: [80, 100, 120], latePolicy: carry_forward, allow: ["* /v1/**"], deny: ["* /v1/admin/**"]}
endpoints: # first match
  - {match: "GET /v1/health", cost: 0, units: {}}
  - {match: "POST /v1/ml/**", cost: 20, capability: ml, units: {api_calls: 1, ml_units: 10}}
  - {match: "* /**", capability: core} # cost 1, units {api_calls: 1}
bundles: {credits_1000: {meter: credits, units: "1000", price: {usd: "10"}, months: 12}}
plans:
  free: {price: "0", billing: none, limits: {minute: {limit: 10, burst: 5}, day: {limit: 500}}, allow: ["* /v1/basic/**"],
    items: {api_calls: {meter: api_calls, included: "1000", policy: block}}}
  pro: # monthly fee, and usage above 100,000
    price: "49"
    limits: &limits {minute: {limit: 100, burst: 20}, day: {limit: 20000}, perKey: {minute: {limit: 60}}}
    items:
      api_calls: {meter: api_calls, included: "100000", policy: overage, cap: "250000", price: {model: per_unit, unit: "0.002"}}
      ml_units: {meter: ml_units, included: "5000", policy: auto_upgrade, to: scale, cap: "20000"}
      traffic: {meter: bytes_out, policy: overage, price: {model: package, size: "1000000000", price: "0.09"}}
      credits: {meter: credits, included: "0", policy: block} # prepaid
    features: {projects: 3, sso: false}
  pro_jp: {currency: jpy, interval: year, price: "70000", limits: *limits,
    items: {api_calls: {meter: api_calls, policy: overage, price: {model: per_unit, unit: "0.3"}}}}
  scale:
    price: "199"
    limits: {minute: {limit: 600, kind: strict}, day: {limit: 500000}, countersDown: deny}
    items:
      api_calls: {meter: api_calls, included: "1000000", policy: overage, cap: "10000000",
        price: {model: graduated, tiers: [{upTo: "100000", unit: "0.001"}, {upTo: inf, unit: "0.0007"}]}}
      exports: {meter: exports, policy: overage, price: {model: volume, tiers: [{upTo: "10000", unit: "0.05"}, {upTo: inf, unit: "0.03"}]}}
      tokens_l: {meter: tokens, where: {model: l1}, included: "1000000", policy: overage, price: {model: per_unit, unit: "0.00003"}}
      ml_units: {meter: ml_units, included: "100000", policy: throttle, throttle: {limit: 20}}
  enterprise: {price: custom, limits: custom, items: custom, allow: ["* /**"], deny: [], features: {projects: unlimited, sso: true},
    support: {level: dedicated, responseHours: 1}, sla: {uptimePercent: "99.95", creditPercent: "10"}, dunning: {suspend: never}}
`;

/** `line field: rule` of every problem; nothing for a good file. */
function problemsOf(text: string): string[] {
  const reading = parsePlansFile(text);
  return reading.kind === "plans" ? [] : reading.problems.map(({ line, field, rule }) => `${line} ${field}: ${rule}`);
}

describe("the example of the design", () => {
  const reading = parsePlansFile(DESIGN);
  if (reading.kind === "problems") throw new Error(JSON.stringify(reading.problems));
  const { plans, endpoints, bundles } = reading.file;
  const planOf = (key: string) => plans.find((plan) => plan.key === key);

  it("is read whole, with defaults filled in", () => {
    expect(plans.map(({ key }) => key)).toEqual(["free", "pro", "pro_jp", "scale", "enterprise"]);
    expect(planOf("pro")).toMatchObject({
      currency: "usd",
      interval: "month",
      price: "49",
      billing: "stripe",
      alerts: [80, 100, 120],
      latePolicy: "carry_forward",
      allow: ["* /v1/**"],
      deny: ["* /v1/admin/**"],
      features: { projects: 3, sso: false },
      support: null,
      sla: null,
      dunning: null,
    });
    expect(planOf("pro")?.items).toMatchObject({
      api_calls: { meter: "api_calls", where: {}, included: "100000", policy: "overage", cap: "250000", to: null },
      traffic: { included: null, cap: null, price: { model: "package", size: "1000000000", round: "up" } },
      ml_units: { price: null, to: "scale", throttle: null },
    });
    expect(Object.keys(planOf("scale")?.items ?? {})).toEqual(["api_calls", "exports", "tokens_l", "ml_units"]);
    expect(planOf("scale")?.items).toMatchObject({
      api_calls: { price: { tiers: [{ upTo: "100000", unit: "0.001", flat: "0" }, { upTo: "inf" }] } },
      tokens_l: { where: { model: ["l1"] } },
    });
    expect(planOf("enterprise")).toMatchObject({ price: "custom", limits: "custom", items: "custom", deny: [] });
  });

  it("resolves aliases", () => {
    expect(planOf("pro_jp")).toMatchObject({ currency: "jpy", interval: "year" });
    expect(planOf("pro_jp")?.limits).toEqual(planOf("pro")?.limits);
  });

  it("keeps endpoints in their order, and bundles", () => {
    expect(endpoints).toEqual([
      { match: "GET /v1/health", cost: 0, units: {} },
      { match: "POST /v1/ml/**", cost: 20, capability: "ml", units: { api_calls: 1, ml_units: 10 } },
      { match: "* /**", cost: 1, capability: "core", units: { api_calls: 1 } },
    ]);
    expect(bundles).toEqual({ credits_1000: { meter: "credits", units: "1000", price: { usd: "10" }, months: 12 } });
  });
});

/** Each line with a mistake ends with the problems that are expected of it; the file is made of the rest. */
const MISTAKES = `
colour: red                                            # colour: is not a known key
defaults: {currency: usd, latePolicy: forgive}         # defaults.latePolicy: must be one of carry_forward, invoice_item, credit_note, write_off
endpoints:
  - {match: "GET /v1/search", cost: 1}
  - {match: "/v1/search"}                              # endpoints[1].match: must be METHOD and path such as "GET /v1/search", with * for one segment and ** for the rest
  - {match: "POST /v1/ml/**", cost: 20}
  - {match: "POST /v1/big", cost: -1}                  # endpoints[3].cost: must not be negative
bundles:
  credits: {meter: credits, units: "0", price: {usd: "1.005"}, months: 12}   # bundles.credits.units: must be at least 1 # bundles.credits.price.usd: has more decimals than usd, which has 2
plans:
  Pro: {price: "1"}                                    # plans.Pro: must match [a-z][a-z0-9_]{0,62}
  money:
    price: 49                                          # plans.money.price: must be decimal text in quotes, such as "49", or custom
    currency: xyz                                      # plans.money.currency: must be an ISO 4217 code in lower case that can be billed, such as usd
    interval: week                                     # plans.money.interval: must be month or year
    billing: paypal                                    # plans.money.billing: must be stripe or none
    alerts: [100, 80]                                  # plans.money.alerts: must rise
    dunning: {suspend: sometimes}                      # plans.money.dunning.suspend: must be never or after_grace
    sla: {uptimePercent: "199", creditPercent: "10"}   # plans.money.sla.uptimePercent: must be a percentage such as "99.95"
    features: {sso: maybe}                             # plans.money.features.sso: must be true, false, a whole number or unlimited
    colour: red                                        # plans.money.colour: is not a known key
  yen: {currency: jpy, price: "70000.5"}               # plans.yen.price: has more decimals than jpy, which has 0
  nothing: {}                                          # plans.nothing.price: must be decimal text in quotes, such as "49", or custom
  limits:
    price: "1"
    limits:
      minute:
        limit: 100
        burst: 10                                      # plans.limits.limits.minute.burst: is 10, and an allowed endpoint costs more: "POST /v1/ml/**" costs 20
      perKey:
        minute:
          limit: 4000000000000                         # plans.limits.limits.perKey.minute.limit: burst 400000000000 × 60,000 must be below 2^53
      day: {limit: 0.5}                                # plans.limits.limits.day.limit: must be a whole number
  strict:
    price: "1"
    limits: {minute: {limit: 4294967296, kind: strict}}   # plans.strict.limits.minute.limit: of a strict limit must be below 2^32
  items:
    price: "1"
    items:
      fee: {meter: a, included: "1", policy: block}                                # plans.items.items.fee: no item is called fee: that is the line of the plan's price
      capped: {meter: b, included: "10", cap: "9", policy: overage, price: {model: per_unit, unit: "1"}}   # plans.items.items.capped.cap: is 9, less than the included 10
      unpriced: {meter: c, policy: overage}                                        # plans.items.items.unpriced.price: is required for the policy overage
      open: {meter: d, policy: block}                                              # plans.items.items.open.included: is required for the policy block
      charged: {meter: e, included: "1", policy: block, price: {model: per_unit, unit: "1"}}              # plans.items.items.charged.price: is not for the policy block, which never charges
      slowed: {meter: f, included: "1", policy: throttle, throttle: {limit: 1}, cap: "2", price: {model: per_unit, unit: "1"}}   # plans.items.items.slowed.price: is not for the policy throttle, which never charges # plans.items.items.slowed.cap: is not for the policy throttle: it has none
      unslowed: {meter: g, included: "1", policy: throttle}                        # plans.items.items.unslowed.throttle: is required for the policy throttle
      nowhere: {meter: h, included: "1", policy: auto_upgrade}                     # plans.items.items.nowhere.to: is required for the policy auto_upgrade
      unknown: {meter: i, included: "1", policy: auto_upgrade, to: moon}           # plans.items.items.unknown.to: there is no plan "moon"
      circle: {meter: j, included: "1", policy: auto_upgrade, to: items}           # plans.items.items.circle.to: is this plan itself
      abroad: {meter: k, included: "5", policy: auto_upgrade, to: euro}            # plans.items.items.abroad.to: "euro" is in eur, this plan in usd # plans.items.items.abroad.to: "euro" includes 4, less than the 5 of this plan
      falling:
        meter: l
        policy: overage
        price:
          model: graduated
          tiers:
            - {upTo: "10", unit: "1"}
            - {upTo: "10", unit: "1"}                                              # plans.items.items.falling.price.tiers[1].upTo: is 10, not above the 10 before it: tiers rise
            - {upTo: "20", unit: "1"}                                              # plans.items.items.falling.price.tiers[2].upTo: the last tier is up to inf
      early:
        meter: m
        policy: overage
        price:
          model: volume
          tiers:
            - {upTo: inf, unit: "1"}                                               # plans.items.items.early.price.tiers[0].upTo: is inf before the last tier
            - {upTo: "1.5", unit: "1"}                                             # plans.items.items.early.price.tiers[1].upTo: must be a whole number such as "100000": fractions need a smaller unit
      fine: {meter: n, policy: overage, price: {model: per_unit, unit: "0.0000000000001"}}   # plans.items.items.fine.price.unit: has over 12 decimals
      signed: {meter: o, policy: overage, price: {model: per_unit, unit: "-1"}}    # plans.items.items.signed.price.unit: must be decimal text such as "0.002": no sign, exponent or leading zeros
      whole: {meter: p, included: "1.5", policy: block}                            # plans.items.items.whole.included: must be a whole number such as "100000": fractions need a smaller unit
      huge: {meter: q, included: "9007199254740992", policy: block}                # plans.items.items.huge.included: must be below 2^53
      volume: {meter: r, included: "1", policy: overage, price: {model: volume, tiers: [{upTo: inf, unit: "1"}]}}   # plans.items.items.volume.included: is not for a volume price: once exceeded, the included units would be charged too
      package: {meter: s, included: "1", policy: overage, price: {model: package, size: "10", price: "1"}}          # plans.items.items.package.included: is not for a package price: once exceeded, the included units would be charged too
      odd: {meter: t, policy: overage, price: {model: surge, unit: "1"}}           # plans.items.items.odd.price.model: must be one of per_unit, package, graduated, volume
      halved: {meter: u, policy: overage, price: {model: package, size: "0", price: "1", round: half}}   # plans.items.items.halved.price.size: must be at least 1 # plans.items.items.halved.price.round: must be up or down
      policy: {meter: v, policy: surge}                                            # plans.items.items.policy.policy: must be one of block, overage, throttle, auto_upgrade
      first: {meter: w, where: {model: [a, b]}, included: "1", policy: block}
      second: {meter: w, where: {model: [b, a]}, included: "1", policy: block}     # plans.items.items.second.meter: counts the same usage as "first": two items of one meter need different where
      third: {meter: w, where: {model: a, region: eu}, included: "1", policy: block}   # plans.items.items.third.where: overlaps "first": usage of one meter would count in both; narrow where so that they share none
      fourth: {meter: w, where: {model: c}, included: "1", policy: block}
      stray: {meter: x, included: "1", policy: block, to: euro, throttle: {limit: 1}}   # plans.items.items.stray.to: is only for the policy auto_upgrade # plans.items.items.stray.throttle: is only for the policy throttle
  euro: {currency: eur, price: "1", items: {abroad: {meter: k, included: "4", policy: block}}}
`.trim();

describe("a file with every kind of mistake", () => {
  it("is told all of them in one run, each with its line and field", () => {
    const rows = `schema: tallyhouse.plans/1\n${MISTAKES}`.split("\n");
    const expected = rows.flatMap((row, index) =>
      row
        .split(/ # (?=[\w.[\]]+: )/)
        .slice(1)
        .map((problem) => `${index + 1} ${problem.trim()}`),
    );
    const file = rows.map((row) => row.replace(/ +# [\w.[\]]+: .*$/, "")).join("\n");
    expect(problemsOf(file).toSorted()).toEqual(expected.toSorted());
    expect(new Set(expected.map((problem) => problem.split(": ").slice(1).join(": "))).size).toBeGreaterThan(40);
    // In the order of the file.
    const lines = problemsOf(file).map((problem) => Number(problem.split(" ")[0]));
    expect(lines).toEqual(lines.toSorted((a, b) => a - b));
  });
});

describe("what is no plans file", () => {
  it.each([
    ["empty", "", "1 : "],
    ["a list", "- 1", "1 : "],
    ["another schema", "schema: tallyhouse.plans/2\nplans: {}", "1 schema: must be tallyhouse.plans/1"],
    ["no plans", "schema: tallyhouse.plans/1", "1 plans: "],
    ["broken YAML", "schema: x\n  plans: [", "1 : "],
    ["a key twice", "schema: tallyhouse.plans/1\nplans: {}\nplans: {}", "3 : Map keys must be unique"],
    ["a name of objects", "schema: tallyhouse.plans/1\nplans:\n  __proto__: {}", "3 __proto__: is not a known key"],
    ["plans as a list", "schema: tallyhouse.plans/1\nplans: []", "2 plans: "],
  ])("%s", (_name, text, expected) => {
    expect(problemsOf(text)[0]).toContain(expected);
  });
});

describe("rules at their edges", () => {
  const plan = (fields: string, more = ""): string =>
    `schema: tallyhouse.plans/1\ndefaults: {currency: usd}\n${more}plans:\n  pro: {price: "1", ${fields}}\n`;
  const item = (fields: string): string => plan(`items: {i: {meter: m, ${fields}}}`);
  const perUnit = (unit: string): string => item(`policy: overage, price: {model: per_unit, unit: "${unit}"}`);

  it.each([
    ["cap equals included", item(`included: "5", cap: "5", policy: overage, price: {model: per_unit, unit: "1"}`)],
    ["twelve decimals", perUnit("0.000000000001")],
    ["zeros behind twelve decimals", perUnit("0.00000000000100")],
    ["twelve digits", perUnit("999999999999.9")],
    [
      "nothing included with a package",
      item(`included: "0", policy: overage, price: {model: package, size: "2", price: "1"}`),
    ],
    ["one unit below 2^53", item(`included: "9007199254740991", policy: block`)],
    ["a strict limit below 2^32", plan("limits: {minute: {limit: 4294967295, kind: strict}}")],
    ["nineteen priced items", plan(`items: {${items(19)}}`)],
    ["a currency in the plan alone", `schema: tallyhouse.plans/1\nplans: {pro: {price: "1.234", currency: kwd}}\n`],
  ])("%s is allowed", (_name, text) => {
    expect(problemsOf(text)).toEqual([]);
  });

  function items(count: number): string {
    return Array.from(
      { length: count },
      (_, i) => `i${i}: {meter: m${i}, policy: overage, price: {model: per_unit, unit: "1"}}`,
    ).join(", ");
  }

  it.each([
    [
      "a number that no double holds",
      item(`where: {a: 9007199254740993}, included: "1", policy: block`),
      "2^53 and more",
    ],
    ["a long value", item(`where: {a: [${"é".repeat(129)}]}, included: "1", policy: block`), "has over 256 bytes"],
    ["thirteen digits", perUnit("1000000000000"), "has over 12 digits"],
    ["a leading zero", perUnit("01"), "must be decimal text"],
    ["an exponent", perUnit("1e3"), "must be decimal text"],
    ["a long row of digits", item(`included: "${"9".repeat(4_000)}", policy: block`), "must be below 2^53"],
    ["twenty priced items", plan(`items: {${items(20)}}`), "has 20 items with a price"],
    [
      "no currency at all",
      `schema: tallyhouse.plans/1\nplans: {pro: {price: "1"}}\n`,
      "is required here or in defaults",
    ],
    [
      "a burst beside strict",
      plan("limits: {minute: {limit: 5, burst: 5, kind: strict}}"),
      "is not for a strict limit",
    ],
    [
      "an upgrade to a custom plan",
      plan(`items: {i: {meter: m, included: "1", policy: auto_upgrade, to: big}}`) + "  big: {price: custom}\n",
      "has custom fields",
    ],
    [
      "an upgrade to a plan without the item",
      plan(`items: {i: {meter: m, included: "1", policy: auto_upgrade, to: big}}`) + `  big: {price: "2"}\n`,
      "has no item of this meter",
    ],
  ])("%s is refused", (_name, text, rule) => {
    const problems = problemsOf(text);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(rule);
  });

  /** The burst of a plan whose requests meet these endpoints. */
  const burst = (endpoints: string, more: string): string[] =>
    problemsOf(plan(`limits: {minute: {limit: 100, burst: 10}}, ${more}`, `endpoints: [${endpoints}]\n`));
  const DEAR = `{match: "POST /v1/ml/**", cost: 11}`;

  it.each([
    ["denied", DEAR, `deny: ["* /v1/ml/**"]`],
    ["not allowed", DEAR, `allow: ["* /v1/basic/**", "GET /v1/ml/**"]`],
    ["behind an earlier entry", `{match: "* /v1/**"}, ${DEAR}`, `deny: []`],
    ["as dear as the burst", `{match: "POST /v1/ml/**", cost: 10}`, `deny: []`],
  ])("an endpoint may be dear when it is %s", (_name, endpoints, more) => {
    expect(burst(endpoints, more)).toEqual([]);
  });

  it.each([
    ["allowed by a narrower pattern", DEAR, `allow: ["POST /v1/ml/rank"]`],
    ["allowed by a wider one, in part", DEAR, `allow: ["* /v1/*/rank"]`],
    ["denied in part", DEAR, `deny: ["* /v1/ml/rank"]`],
    ["in part behind an earlier entry", `{match: "POST /v1/ml/rank"}, ${DEAR}`, `deny: []`],
  ])("an endpoint is too dear when it is %s", (_name, endpoints, more) => {
    expect(burst(endpoints, more)).toEqual([
      expect.stringContaining('is 10, and an allowed endpoint costs more: "POST /v1/ml/**" costs 11'),
    ]);
  });

  it("a burst that is not given fits the dearest endpoint", () => {
    const text = plan("limits: {minute: {limit: 100}}", `endpoints: [{match: "* /**", cost: 5000}]\n`);
    expect(problemsOf(text)).toEqual([]);
  });
});
