/** Running bills, projections and what-ifs, each figure worked out by hand. */
import { assert, DAY_MS, HOUR_MS, type MeterVersion, type Mode } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { instant, TestLog } from "@tallyhouse/usage/test-log";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LIVE_TOKEN, openTestConsole, STREAM, type TestConsole } from "./test-support.ts";

const NOON = instant("2026-11-20T12:00:00Z");
const METERS = `schema: tallyhouse.meters/1
meters:
  - {key: calls, eventType: llm.request, aggregation: sum, value: /v, dimensions: {model: /model}, from: 2000-01-01T00:00:00Z}
  - {key: peak, eventType: llm.request, aggregation: max, value: /v, from: 2000-01-01T00:00:00Z}
  - {key: users, eventType: llm.request, aggregation: unique_count, value: /user, from: 2000-01-01T00:00:00Z}
`;
const PRO_ITEMS = `
      calls_l: {meter: calls, where: {model: l1}, included: "100", policy: overage, cap: "500", price: {model: per_unit, unit: "0.5"}}
      calls_s: {meter: calls, where: {model: [s1, s2]}, policy: overage, price: {model: per_unit, unit: "0.01"}}
      peak: {meter: peak, policy: overage, price: {model: per_unit, unit: "2"}}
      users: {meter: users, policy: overage, price: {model: per_unit, unit: "1"}}`;
const fileOf = (plans: string): string => `schema: tallyhouse.plans/1
defaults: {currency: usd, interval: month}
plans:
${plans}`;
const plain = (key: string, fee: string, unit: string): string =>
  `  ${key}: {price: "${fee}", items: {calls: {meter: calls, policy: overage, price: {model: per_unit, unit: "${unit}"}}}}\n`;
const PLANS = fileOf(
  `  pro:
    price: "49"
    limits: {minute: {limit: 100, burst: 20}, day: {limit: 20000}}
    items:${PRO_ITEMS}
${plain("steady", "5", "0.1")}  yen: {price: "700", currency: jpy, items: {calls: {meter: calls, policy: overage, price: {model: per_unit, unit: "0.3"}}}}
`,
);

const METER_VERSIONS: readonly MeterVersion[] = [
  meterVersion({ meter: "calls", rule: { value: "/v", dimensions: { model: "/model" } } }),
  meterVersion({ meter: "peak", rule: { aggregation: "max", value: "/v" } }),
  meterVersion({ meter: "users", rule: { aggregation: "unique_count", value: "/user" } }),
];

interface Use {
  readonly at: string | number;
  readonly v: string;
  readonly model?: string;
  readonly user?: string;
  readonly customer?: string;
  readonly mode?: Mode;
}

/** acme's period begins at 09:30:07. */
const ACME: readonly Use[] = [
  { at: "2026-11-01T09:30:06.999Z", model: "l1", v: "1000", user: "before" },
  { at: "2026-11-01T09:30:07Z", model: "l1", v: "60.5", user: "a" },
  { at: "2026-11-01T09:31:00Z", model: "s1", v: "10", user: "b" },
  { at: "2026-11-05T12:00:00Z", model: "l1", v: "50", user: "a" },
  // The 6th in Kathmandu.
  { at: "2026-11-05T18:20:00Z", model: "s2", v: "5.25", user: "c" },
  { at: "2026-11-20T06:00:00Z", model: "l1", v: "1", user: "a" },
  { at: "2026-11-20T10:00:00Z", model: "of no item", v: "3", user: "b" },
  { at: "2026-11-10T00:00:00Z", model: "l1", v: "888", user: "mode", mode: "test" },
  { at: "2026-11-10T00:00:00Z", model: "l1", v: "999", user: "other", customer: "globex" },
];
const VOIDED: Use = { at: "2026-11-10T08:00:00Z", model: "l1", v: "777", user: "d" };

/** Units a day of the weeks before the 20th, the nearest first: at 06:00 each day, back to 23 October. */
const WEEKS = [10, 20, 10, 40];
const STEADY: readonly Use[] = WEEKS.flatMap((v, week) =>
  [1, 2, 3, 4, 5, 6, 7].map((day) => ({
    at: NOON - 6 * HOUR_MS - (7 * week + day) * DAY_MS,
    v: String(v),
    customer: "steady co",
  })),
);

let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
  const who = { reason: "test", actor: "kim" };
  for (const mode of ["live", "test"] as const) {
    assert(
      (await world.post("/admin/v1/meters/apply?wait=0s", { file: METERS }, mode)).status === 202,
      "meters are applied",
    );
    assert(
      (await world.post("/admin/v1/plans/apply", { file: PLANS, ...who }, mode)).status === 200,
      "plans are applied",
    );
  }
  await customer("acme", "Asia/Kathmandu", ["pro", "2026-11-01T09:30:07Z"]);
  await customer("steady co", "UTC", ["steady", "2026-10-01T00:00:00Z"]);
  await customer("fresh", "UTC", ["steady", "2026-11-16T00:00:00Z"]);
  await customer("nobody", "UTC", null);
  await customer("left", "UTC", ["steady", "2026-10-01T00:00:00Z"], [null, "2026-11-01T00:00:00Z"]);
  await customer("tokyo", "Asia/Tokyo", ["yen", "2026-11-01T00:00:00Z"]);
  const log = new TestLog(world.analytics, STREAM);
  for (const version of METER_VERSIONS) log.everywhere(0, { kind: "meter.activate", version });
  const all: Use[] = [
    ...ACME,
    VOIDED,
    ...STEADY,
    { at: NOON - 6 * HOUR_MS, v: "7", customer: "steady co" },
    { at: "2026-11-18T00:00:00Z", v: "45", customer: "fresh" },
    { at: "2026-10-31T23:59:59.999Z", v: "20", customer: "left" },
    { at: "2026-11-01T00:00:00Z", v: "30", customer: "left" },
    { at: "2026-11-02T00:00:00Z", v: "1001", customer: "tokyo" },
  ];
  const atOf = ({ at }: Use): number => (typeof at === "string" ? instant(at) : at);
  let voided = { partition: 0, target: 0 };
  for (const [index, use] of all.toSorted((a, b) => atOf(a) - atOf(b)).entries()) {
    const { mode = "live", customer: id = "acme", v, model, user = "u" } = use;
    const data = { v, user, ...(model === undefined ? {} : { model }) };
    const partition = index % STREAM.partitionCount;
    const usage = { mode, customer: id, occurredAt: atOf(use), data };
    const target = log.append(partition, atOf(use), { kind: "usage", usage });
    if (use === VOIDED) voided = { partition, target };
  }
  log.append(voided.partition, NOON - 1_000, { kind: "void", target: voided.target });
  log.everywhere(NOON, { kind: "tick" });
  await log.store();
  for (const version of METER_VERSIONS)
    for (const partition of log.partitions.keys()) await log.backfill(partition, version);
});
afterAll(() => world.close());

/** Written as the tables hold it: assignments by [plan, from]. */
async function customer(id: string, zone: string, ...plans: ([string | null, string] | null)[]): Promise<void> {
  await world.control.query(
    "INSERT INTO customer (mode, customer_id, name, zone, created_at, created_by) VALUES ('live', $1, 'A name', $2, now(), 'kim')",
    [id, zone],
  );
  for (const assigned of plans)
    if (assigned !== null)
      await world.control.query(
        `INSERT INTO customer_assignment (mode, customer_id, plan_key, effective_at, anchor_at, decided_at, actor, reason)
         VALUES ('live', $1, $2, $3::timestamptz, $3::timestamptz, now(), 'kim', 'test')`,
        [id, ...assigned],
      );
}

const QUERY = "/v1/usage/current-period?customer=acme";

/** Days of November up to the 20th; what is not named is 0. */
function november(
  meter: string,
  used: Readonly<Record<number, string>>,
): { date: string; meter: string; units: string }[] {
  return Array.from({ length: 20 }, (_, index) => ({
    date: `2026-11-${String(index + 1).padStart(2, "0")}`,
    meter,
    units: used[index + 1] ?? "0",
  }));
}

describe("the running period", () => {
  it("G4: is counted from its very second, by filters, without voids, and rated as the bill will be", async () => {
    const { status, body } = await world.get(QUERY);
    expect(status).toBe(200);
    const { dailyBreakdown, ...period } = body["currentPeriod"] as { dailyBreakdown: { meter: string }[] };
    expect({ ...body, currentPeriod: period }).toEqual({
      currentPeriod: {
        start: "2026-11-01T09:30:07Z",
        end: "2026-12-01T09:30:07Z",
        resetsAt: "2026-12-01T09:30:07Z",
        totalUnits: "111.5",
        // 49 + 11.5 × 0.5 + 15.25 × 0.01, which is 0.1525, + 60.5 × 2 + 3 users: a, b and c.
        estimatedCost: { amount: "178.90", currency: "usd" },
        estimatedCostCents: "17890",
        items: [
          {
            item: "calls_l",
            used: "111.5",
            reserved: "0",
            included: "100",
            cap: "500",
            percent: "111.5",
            level: "over",
            policy: "overage",
          },
          unlimited("calls_s", "15.25"),
          unlimited("peak", "60.5"),
          unlimited("users", "3"),
        ],
      },
      planLimits: { plan: "pro@1", minute: { limit: 100, burst: 20 }, day: { limit: 20_000 } },
      todayUnits: "1",
      asOf: "2026-11-20T12:00:00Z",
      degraded: false,
    });
    const daysOf = (meter: string): unknown => dailyBreakdown.filter((day) => day.meter === meter);
    expect(daysOf("calls")).toEqual(november("calls", { 1: "70.5", 5: "50", 6: "5.25", 20: "4" }));
    expect(daysOf("peak")).toEqual(november("peak", { 1: "60.5", 5: "50", 6: "5.25", 20: "3" }));
    expect(daysOf("users")).toEqual(november("users", { 1: "2", 5: "1", 6: "1", 20: "2" }));
    expect(dailyBreakdown).toHaveLength(60);
  });

  it("has the same answer under its other path, and days of the zone that is asked for", async () => {
    const alias = await world.get("/api/usage/current-period?customer=acme");
    expect(alias).toEqual(await world.get(QUERY));
    const utc = await world.get(`${QUERY}&tz=UTC`);
    const { dailyBreakdown } = utc.body["currentPeriod"] as { dailyBreakdown: unknown };
    expect(dailyBreakdown).toContainEqual({ date: "2026-11-05", meter: "calls", units: "55.25" });
  });

  it("rates a currency without minor units, once per line", async () => {
    const { body } = await world.get("/v1/usage/current-period?customer=tokyo");
    // 700 + 1001 × 0.3 = 700 + 300.3.
    expect(body["currentPeriod"]).toMatchObject({
      estimatedCost: { amount: "1000", currency: "jpy" },
      estimatedCostCents: "1000",
    });
  });

  it.each([
    ["customer=", 400, "QUERY_INVALID", /customer is required/],
    ["", 400, "QUERY_INVALID", /customer is required/],
    ["customer=a%00b", 400, "QUERY_INVALID", /customer must hold no control characters/],
    ["customer=acme&tz=Mars/Base", 400, "QUERY_INVALID", /tz must be an IANA time zone/],
    ["customer=acme&period=last", 400, "QUERY_INVALID", /period is not known/],
    ["customer=who", 404, "CUSTOMER_UNKNOWN", /mode live has no customer "who"/],
    ["customer=nobody", 409, "PLAN_MISSING", /is on no plan now/],
    ["customer=left", 409, "PLAN_MISSING", /is on no plan now/],
  ])("refuses ?%s with %i %s", async (...[query, status, code, detail]) => {
    for (const path of ["current-period", "projection"]) {
      const answer = await world.get(`/v1/usage/${path}?${query}`);
      expect([answer.status, answer.body["code"]]).toEqual([status, code]);
      expect(answer.body["detail"]).toMatch(detail);
    }
  });

  it("needs a token, and is 404 to another mode's", async () => {
    expect((await world.app.inject({ url: QUERY })).statusCode).toBe(401);
    expect((await world.get(QUERY, "test")).body["code"]).toBe("CUSTOMER_UNKNOWN");
  });
});

function unlimited(item: string, used: string): object {
  return { item, used, reserved: "0", included: null, cap: null, percent: null, level: "ok", policy: "overage" };
}

describe("the projection", () => {
  it("repeats each of the last weeks once there are two: the least, the mean and the most of them", async () => {
    const { status, body } = await world.get("/v1/usage/projection?customer=steady%20co");
    expect(status).toBe(200);
    // 267 so far: 5 × 10, 7 × 20, 7 × 10 and 7. To come: half of today and ten days, at 10, 20, 10 or 40 a day.
    expect(body).toEqual({
      estimate: true,
      period: { start: "2026-11-01T00:00:00Z", end: "2026-12-01T00:00:00Z" },
      plan: "steady@1",
      currency: "usd",
      low: { amount: "42.20", amountMinor: "4220" },
      likely: { amount: "52.70", amountMinor: "5270" },
      high: { amount: "73.70", amountMinor: "7370" },
      lines: [
        { key: "fee", meter: null, method: "fee", used: "1", ...sides("1", "5.00", "1", "5.00", "1", "5.00") },
        {
          key: "calls",
          meter: "calls",
          method: "weekdays",
          used: "267",
          ...sides("372", "37.20", "477", "47.70", "687", "68.70"),
        },
      ],
      asOf: "2026-11-20T12:00:00Z",
    });
  });

  it("goes on at the run rate before that: half and twice the rest are the range", async () => {
    const { body } = await world.get("/v1/usage/projection?customer=fresh");
    // 45 in 4.5 of 30 days: 255 to come; 127.5 of them are cut to whole units, as only those were counted.
    expect((body["lines"] as unknown[])[1]).toEqual({
      key: "calls",
      meter: "calls",
      method: "run_rate",
      used: "45",
      ...sides("172", "17.20", "300", "30.00", "555", "55.50"),
    });
  });

  it("leaves a maximum as it is, and takes the run rate of different values as the most", async () => {
    const { body } = await world.get("/v1/usage/projection?customer=acme");
    const methods = (body["lines"] as { key: string; method: string; low: { quantity: string } }[]).map(
      ({ key, method, low }) => [key, method, low.quantity],
    );
    expect(methods).toEqual([
      ["fee", "fee", "1"],
      ["calls_l", "weekdays", expect.any(String)],
      ["calls_s", "weekdays", expect.any(String)],
      ["peak", "counted", "60.5"],
      ["users", "run_rate", "3"],
    ]);
  });
});

function sides(...[lowQ, low, likelyQ, likely, highQ, high]: string[]): object {
  return {
    low: { quantity: lowQ, amount: low },
    likely: { quantity: likelyQ, amount: likely },
    high: { quantity: highQ, amount: high },
  };
}

describe("a what-if", () => {
  const SPAN = { from: "2026-10-01T00:00:00Z", to: "2026-12-01T00:00:00Z" };
  const run = async (body: object): Promise<{ status: number; text: string; lines: Record<string, unknown>[] }> => {
    const answer = await world.app.inject({
      method: "POST",
      url: "/admin/v1/simulate",
      headers: { authorization: `Bearer ${LIVE_TOKEN}` },
      payload: body,
    });
    const { payload: text, statusCode: status } = answer;
    return {
      status,
      text,
      lines:
        status === 200
          ? text
              .trim()
              .split("\n")
              .map((line) => JSON.parse(line) as Record<string, unknown>)
          : [],
    };
  };
  const rowsOf = (lines: Record<string, unknown>[]): unknown[] =>
    lines.flatMap((line) => (line["kind"] === "customers" ? (line["customers"] as unknown[]) : []));

  it("rates every period that begins in the span again, twice with equal bytes", async () => {
    const body = { file: fileOf(plain("steady", "6", "0.05")), ...SPAN };
    const { status, text, lines } = await run(body);
    expect(status).toBe(200);
    expect((await run(body)).text).toBe(text);
    const row = (customer: string, [plan, periods]: [string, number], [before, after, change]: string[]): object => {
      const currency = plan === "yen" ? "jpy" : "usd";
      return { customer, currency, plans: [plan], plansAfter: [plan], periods, before, after, change };
    };
    expect(rowsOf(lines)).toEqual([
      row("acme", ["pro", 1], ["178.90", "178.90", "0.00"]),
      // 5 + 4.50, and 6 + 2.25.
      row("fresh", ["steady", 1], ["9.50", "8.25", "-1.25"]),
      // October alone: 5 + 2, and 6 + 1. What was used from the very end of its plan on is not in it.
      row("left", ["steady", 1], ["7.00", "7.00", "0.00"]),
      // October 7 × 40 + 2 × 10 = 300: 35, and 21; November 267: 31.70, and 19.35.
      row("steady co", ["steady", 2], ["66.70", "40.35", "-26.35"]),
      row("tokyo", ["yen", 1], ["1000", "1000", "0"]),
    ]);
    const summary = lines.find(({ kind }) => kind === "summary") as { currencies: Record<string, unknown>[] };
    expect(summary.currencies.map(({ currency }) => currency)).toEqual(["jpy", "usd"]);
    expect(summary.currencies[1]).toMatchObject({
      customers: 4,
      periods: 5,
      before: "262.10",
      after: "234.50",
      change: "-27.60",
      more: 0,
      less: 2,
      same: 2,
      plans: [
        { plan: "pro", planAfter: "pro", periods: 1, before: "178.90", after: "178.90", change: "0.00" },
        { plan: "steady", planAfter: "steady", periods: 4, before: "83.20", after: "55.60", change: "-27.60" },
      ],
      largestIncreases: [],
      largestDecreases: [
        { customer: "steady co", before: "66.70", after: "40.35", change: "-26.35" },
        { customer: "fresh", before: "9.50", after: "8.25", change: "-1.25" },
      ],
    });
    expect(lines.at(-1)).toEqual({ kind: "end" });
  });

  it("moves customers to another plan, and leaves out what cannot be compared, with the reason", async () => {
    const file = fileOf(
      `${plain("flat", "20", "0")}  yen: {price: "7", items: {}}\n  pro: {price: "49", interval: year, items: {}}\n`,
    );
    const { lines } = await run({ file, ...SPAN, from: "2026-11-01T00:00:00Z", map: { steady: "flat" } });
    expect(rowsOf(lines)).toMatchObject([
      { customer: "fresh", plans: ["steady"], plansAfter: ["flat"], before: "9.50", after: "20.00", change: "10.50" },
      { customer: "steady co", periods: 1, before: "31.70", after: "20.00", change: "-11.70" },
    ]);
    expect(lines.flatMap((line) => (line["kind"] === "skipped" ? (line["periods"] as unknown[]) : []))).toEqual([
      { customer: "acme", start: "2026-11-01T09:30:07Z", plan: "pro", planAfter: "pro", reason: "interval" },
      { customer: "tokyo", start: "2026-11-01T00:00:00Z", plan: "yen", planAfter: "yen", reason: "currency" },
    ]);
    expect(lines.at(-2)).toMatchObject({ kind: "summary", skippedPeriods: 2 });
  });

  it.each([
    [{}, "BODY_INVALID", "/file"],
    [{ from: "soon" }, "BODY_INVALID", "/from"],
    [{ from: SPAN.to, to: SPAN.from }, "BODY_INVALID", "/from"],
    [{ from: "2020-01-01T00:00:00Z" }, "BODY_INVALID", "/from"],
    [{ map: { gone: "steady" } }, "BODY_INVALID", "/map/gone"],
    [{ map: { pro: "gone" } }, "BODY_INVALID", "/map/pro"],
    [{ file: fileOf("  pro: {price: nothing, items: {}}\n") }, "PLANS_INVALID", "plans.pro.price"],
    [
      { file: fileOf(plain("pro", "1", "1").replace("meter: calls", "meter: lost")) },
      "PLANS_INVALID",
      "plans.pro.items.calls.meter",
    ],
  ])("refuses %j", async (wrong, code, field) => {
    const body =
      "file" in wrong || Object.keys(wrong).length > 0
        ? { file: fileOf(plain("steady", "6", "0.05")), ...SPAN, ...wrong }
        : SPAN;
    const { status, text } = await run(body);
    const problem = JSON.parse(text) as { code: string; problems: { field: string }[] };
    expect([status, problem.code]).toEqual([400, code]);
    expect(problem.problems.map((one) => one.field)).toContain(field);
  });

  it("runs once at a time", async () => {
    const body = { file: fileOf(plain("steady", "6", "0.05")), ...SPAN };
    const answers = await Promise.all([run(body), run(body)]);
    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 503]);
    expect((await run(body)).status).toBe(200);
  });
});
