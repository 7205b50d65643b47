import { DAY_MS, HOUR_MS, MINUTE_MS } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  activate,
  counted,
  FIRST_EVENT_OFFSET,
  LIVE_TOKEN,
  openTestConsole,
  progress,
  store,
  type TestConsole,
} from "./test-support.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const DAY = Date.UTC(2026, 10, 20);
const tokens = meterVersion({ meter: "input_tokens", rule: { dimensions: { region: "/region", model: "/model" } } });
const calls = meterVersion({
  meter: "calls",
  rule: { aggregation: "count", value: undefined, unit: "calls" } as never,
});
const smallest = meterVersion({ meter: "smallest", rule: { aggregation: "min" } });
const largest = meterVersion({ meter: "largest", rule: { aggregation: "max" } });
const newest = meterVersion({ meter: "newest", rule: { aggregation: "latest" } });
const meters = [tokens, calls, smallest, largest, newest];

let world: TestConsole;

beforeAll(async () => {
  world = await openTestConsole(NOON);
  for (const meter of meters) await activate(world.analytics, meter);
  const at = (ms: number, inputTokens: number | string, rest: object = {}): Parameters<typeof counted>[1] => ({
    occurredAt: DAY + ms,
    customer: "cus_hand",
    data: { inputTokens, region: "eu", model: "a", ...rest },
  });
  await store(
    world.analytics,
    [
      counted({ offset: 1 }, at(9 * HOUR_MS, "0.1")),
      counted({ offset: 2 }, at(9 * HOUR_MS + 1, "0.2")),
      counted({ offset: 3 }, at(9 * HOUR_MS + 14 * MINUTE_MS, 3, { model: "b" })),
      counted({ offset: 4 }, at(9 * HOUR_MS + 15 * MINUTE_MS, "12345678901234567890.123456789")),
      counted({ offset: 5 }, at(10 * HOUR_MS, -4, { model: "b", region: "us" })),
      counted({ offset: 6 }, { ...at(10 * HOUR_MS, 1_000), customer: "cus_other" }),
      counted({ offset: 7 }, { ...at(10 * HOUR_MS, 7), mode: "test" }),
    ],
    meters,
  );
  await progress(world.analytics, { logClockAt: NOON - 4_000, counted: 2 });
});
afterAll(() => world.close());

const usage = (query: string, mode: "live" | "test" = "live") => world.get(`/v1/usage?${query}`, mode);
const hand = (query: string) =>
  usage(`customer=cus_hand&meter=input_tokens&from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&${query}`);

describe("GET /v1/usage", () => {
  it("G4: sums exactly, where binary floats would not", async () => {
    const { status, body } = await hand("window=total");
    expect(status).toBe(200);
    expect(body).toEqual({
      customer: "cus_hand",
      meter: "input_tokens",
      version: 1,
      unit: "tokens",
      window: "total",
      tz: "UTC",
      asOf: "2026-11-20T11:59:56Z",
      data: [
        {
          start: "2026-11-20T00:00:00Z",
          end: "2026-11-21T00:00:00Z",
          group: {},
          // 0.1 + 0.2 + 3 + 12345678901234567890.123456789 - 4
          quantity: "12345678901234567889.423456789",
        },
      ],
    });
  });

  it("gives each 15 minutes and hour with usage, and leaves the others out", async () => {
    const quarters = await hand("window=15m");
    expect(quarters.body["data"]).toEqual([
      { start: "2026-11-20T09:00:00Z", end: "2026-11-20T09:15:00Z", group: {}, quantity: "3.3" },
      {
        start: "2026-11-20T09:15:00Z",
        end: "2026-11-20T09:30:00Z",
        group: {},
        quantity: "12345678901234567890.123456789",
      },
      { start: "2026-11-20T10:00:00Z", end: "2026-11-20T10:15:00Z", group: {}, quantity: "-4" },
    ]);
    const hours = await hand("window=hour");
    expect(hours.body["data"]).toEqual([
      {
        start: "2026-11-20T09:00:00Z",
        end: "2026-11-20T10:00:00Z",
        group: {},
        quantity: "12345678901234567893.423456789",
      },
      { start: "2026-11-20T10:00:00Z", end: "2026-11-20T11:00:00Z", group: {}, quantity: "-4" },
    ]);
  });

  it("groups by dimensions in the order asked for, not the declared one", async () => {
    const { body } = await hand("window=total&groupBy=model,region");
    const span = { start: "2026-11-20T00:00:00Z", end: "2026-11-21T00:00:00Z" };
    expect(body["data"]).toEqual([
      { ...span, group: { model: "a", region: "eu" }, quantity: "12345678901234567890.423456789" },
      { ...span, group: { model: "b", region: "eu" }, quantity: "3" },
      { ...span, group: { model: "b", region: "us" }, quantity: "-4" },
    ]);
  });

  it("answers count, min, max and latest by their own rules", async () => {
    const total = async (meter: string): Promise<unknown> => {
      const range = "from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z";
      const { body } = await usage(`customer=cus_hand&meter=${meter}&${range}`);
      return (body["data"] as { quantity: string }[]).map(({ quantity }) => quantity);
    };
    expect(await total("calls")).toEqual(["5"]);
    expect(await total("smallest")).toEqual(["-4"]);
    expect(await total("largest")).toEqual(["12345678901234567890.123456789"]);
    expect(await total("newest")).toEqual(["-4"]);
  });

  it("cuts a total at any millisecond", async () => {
    const cut = async (from: string, to: string): Promise<unknown> => {
      const { body } = await usage(
        `customer=cus_hand&meter=input_tokens&from=2026-11-20T${from}Z&to=2026-11-20T${to}Z`,
      );
      return (body["data"] as { quantity: string }[]).map(({ quantity }) => quantity);
    };
    expect(await cut("09:00:00", "09:00:00.001")).toEqual(["0.1"]);
    expect(await cut("09:00:00.001", "09:14:00")).toEqual(["0.2"]);
    expect(await cut("09:00:00.001", "09:14:00.001")).toEqual(["3.2"]);
    expect(await cut("09:14:00", "10:00:00")).toEqual(["12345678901234567893.123456789"]);
    expect(await cut("09:14:00", "10:00:00.001")).toEqual(["12345678901234567889.123456789"]);
    expect(await cut("09:16:00", "09:59:00")).toEqual(["0"]);
  });

  it("joins edges and windows by the aggregation, whichever holds the answer", async () => {
    const cut = async (meter: string, from: string, to: string): Promise<unknown> => {
      const { body } = await usage(`customer=cus_hand&meter=${meter}&from=2026-11-20T${from}Z&to=2026-11-20T${to}Z`);
      return (body["data"] as { quantity: string }[])[0]?.quantity;
    };
    // An edge before the windows, an edge behind them.
    expect(await cut("newest", "09:14:00", "09:30:00")).toBe("12345678901234567890.123456789");
    expect(await cut("newest", "09:14:00", "10:00:00.001")).toBe("-4");
    expect(await cut("smallest", "09:14:00", "09:30:00")).toBe("3");
    expect(await cut("smallest", "09:14:00", "10:00:00.001")).toBe("-4");
    expect(await cut("largest", "09:14:00", "10:00:00.001")).toBe("12345678901234567890.123456789");
    expect(await cut("calls", "09:14:00", "10:00:00.001")).toBe("3");
  });

  it("keeps apart the two hours that a clock set back shows, and knows days of 23 and 25 hours", async () => {
    const customer = "cus_clock";
    const times = ["2026-03-08T12:00:00Z", "2026-11-01T05:10:00Z", "2026-11-01T06:10:00Z", "2026-04-04T15:10:00Z"];
    const events = times.map((time, index) =>
      counted({ offset: 40 + index }, { occurredAt: Date.parse(time), customer }),
    );
    await store(world.analytics, events, [tokens]);
    const rows = async (window: string, tz: string, [from, to]: readonly [string, string]): Promise<string[]> => {
      const { body } = await usage(
        `customer=${customer}&meter=input_tokens&window=${window}&tz=${tz}&from=${from}&to=${to}`,
      );
      return (body["data"] as { start: string; end: string }[]).map(({ start, end }) => `${start} ${end}`);
    };
    const year = ["2026-01-01T00:00:00Z", "2026-12-01T00:00:00Z"] as const;
    expect(await rows("hour", "America/New_York", ["2026-11-01T00:00:00Z", year[1]])).toEqual([
      "2026-11-01T01:00:00-04:00 2026-11-01T01:00:00-05:00",
      "2026-11-01T01:00:00-05:00 2026-11-01T02:00:00-05:00",
    ]);
    expect(await rows("day", "America/New_York", year)).toEqual([
      "2026-03-08T00:00:00-05:00 2026-03-09T00:00:00-04:00",
      "2026-04-04T00:00:00-04:00 2026-04-05T00:00:00-04:00",
      "2026-11-01T00:00:00-04:00 2026-11-02T00:00:00-05:00",
    ]);
    // The clock goes back by half an hour at 02:00: what it then shows from 01:30 is an hour of 30 minutes.
    expect(await rows("hour", "Australia/Lord_Howe", ["2026-04-04T00:00:00Z", "2026-04-05T00:00:00Z"])).toEqual([
      "2026-04-05T01:30:00+10:30 2026-04-05T02:00:00+10:30",
    ]);
  });

  it("says 0 for a sum of nothing and nothing for the smallest of nothing", async () => {
    const span = "from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z";
    const sum = await usage(`customer=nobody&meter=input_tokens&${span}`);
    expect(sum.body["data"]).toEqual([
      { start: "2026-11-01T00:00:00Z", end: "2026-11-02T00:00:00Z", group: {}, quantity: "0" },
    ]);
    const min = await usage(`customer=nobody&meter=smallest&${span}`);
    expect(min.body["data"]).toEqual([]);
  });

  it("defaults to the 24 hours that end with the running window", async () => {
    const { body } = await usage("customer=cus_hand&meter=input_tokens");
    expect(body["data"]).toMatchObject([{ start: "2026-11-19T12:15:00Z", end: "2026-11-20T12:15:00Z" }]);
  });

  it("names every wrong parameter and its rule", async () => {
    const { status, body } = await usage("meter=&from=yesterday&window=week&colour=red");
    expect(status).toBe(400);
    expect(body["code"]).toBe("QUERY_INVALID");
    const fields = (body["problems"] as { field: string }[]).map(({ field }) => field);
    expect(fields.sort()).toEqual(["colour", "customer", "from", "meter", "window"]);
  });

  it.each([
    ["from=2026-11-20T00:00:01Z&window=hour", "from", /multiple of 15 minutes/],
    ["from=2026-11-21T00:00:00Z&to=2026-11-20T00:00:00Z", "from", /before to/],
    ["from=2025-01-01T00:00:00Z&to=2026-11-20T00:00:00Z", "from", /at most 400 days/],
    ["tz=Mars/Olympus", "tz", /IANA/],
    ["groupBy=model,color", "groupBy", /color; the meter declares region, model/],
    ["groupBy=a,b,c,d", "groupBy", /at most 3/],
    ["from=1965-01-01T00:00:00Z", "from", /1970/],
  ])("refuses %s", async (query, field, rule) => {
    const { status, body } = await usage(`customer=cus_hand&meter=input_tokens&${query}`);
    expect(status).toBe(400);
    expect(body["problems"]).toEqual([{ field, rule: expect.stringMatching(rule) as string }]);
  });

  it("refuses an answer of more rows than the limit", async () => {
    // 105 days of 96 windows are 10,080 rows: made of one usage event per window.
    const start = Date.UTC(2026, 0, 1);
    const many = Array.from({ length: 105 * 96 }, (_, index) =>
      counted({ offset: 10_000 + index }, { occurredAt: start + index * 15 * MINUTE_MS, customer: "cus_many" }),
    );
    await store(world.analytics, many, [tokens]);
    const ask = (to: number) =>
      usage(
        `customer=cus_many&meter=input_tokens&from=2026-01-01T00:00:00Z&to=${new Date(to).toISOString()}&window=15m`,
      );
    const refused = await ask(start + 105 * DAY_MS);
    expect(refused.status).toBe(400);
    expect(refused.body["detail"]).toMatch(/more than 10000 rows/);
    const answered = await ask(start + 104 * DAY_MS);
    expect((answered.body["data"] as unknown[]).length).toBe(104 * 96);
  });

  it("answers from the newest version that began, from a named one, and never from a sum of both", async () => {
    const first = meterVersion({ meter: "versioned" });
    const second = meterVersion({
      meter: "versioned",
      version: 2,
      rule: { value: "/twice", from: "2026-11-10T00:00:00Z" },
    });
    const third = meterVersion({ meter: "versioned", version: 3, rule: { from: "2027-01-01T00:00:00Z" } });
    for (const version of [first, second, third]) await activate(world.analytics, version);
    const event = { customer: "cus_versions", data: { inputTokens: 1, twice: 2 } };
    await store(
      world.analytics,
      [
        counted({ offset: 21 }, { ...event, occurredAt: DAY - 20 * DAY_MS }),
        counted({ offset: 22 }, { ...event, occurredAt: DAY }),
      ],
      [first, second, third],
    );
    const ask = async (query: string): Promise<unknown[]> => {
      const { body } = await usage(`customer=cus_versions&meter=versioned&${query}`);
      return [body["version"], (body["data"] as { quantity: string }[])[0]?.quantity];
    };
    const before = "from=2026-10-01T00:00:00Z&to=2026-11-10T00:00:00Z";
    const whole = "from=2026-10-01T00:00:00Z&to=2026-11-21T00:00:00Z";
    expect(await ask(before)).toEqual([1, "1"]);
    expect(await ask(whole)).toEqual([2, "2"]);
    expect(await ask(`${whole}&version=1`)).toEqual([1, "2"]);
    expect((await usage("customer=cus_versions&meter=versioned&version=4")).body["code"]).toBe("METER_UNKNOWN");
  });

  it("leaves out of an edge what stands before the activation in the log, as the fold did", async () => {
    const late = meterVersion({ meter: "late_meter" });
    await activate(world.analytics, late, FIRST_EVENT_OFFSET + 100);
    const at = { occurredAt: DAY + 1_000, customer: "cus_late" };
    // Every partition activates between the two: the fold saw the first usage event without the meter.
    await store(world.analytics, [counted({ offset: 99 }, { ...at, data: { inputTokens: 5 } })], []);
    await store(world.analytics, [counted({ offset: 101 }, { ...at, data: { inputTokens: 7 } })], [late]);
    const total = async (to: string): Promise<unknown> => {
      const { body } = await usage(`customer=cus_late&meter=late_meter&from=2026-11-20T00:00:00Z&to=${to}`);
      return (body["data"] as { quantity: string }[])[0]?.quantity;
    };
    expect(await total("2026-11-20T00:15:00Z")).toBe("7");
    expect(await total("2026-11-20T00:14:59Z")).toBe("7");
  });

  it("answers 404 for a meter that the mode does not have", async () => {
    const { status, body } = await usage("customer=cus_hand&meter=nope");
    expect([status, body["code"]]).toEqual([404, "METER_UNKNOWN"]);
    const inTest = await usage("customer=cus_hand&meter=input_tokens", "test");
    expect(inTest.status).toBe(404);
  });

  it("asks for a token, and says the same for every wrong one", async () => {
    const without = await world.app.inject({ url: "/v1/usage?customer=a&meter=b" });
    expect([without.statusCode, without.json<{ code: string }>().code]).toEqual([401, "AUTH_REQUIRED"]);
    const answers = await Promise.all(
      ["Bearer nope", "Basic abc", "Bearer svc_live_th_ffffffffffffffff"].map(async (authorization) => {
        const answer = await world.app.inject({ url: "/v1/usage?customer=a&meter=b", headers: { authorization } });
        return `${answer.statusCode} ${answer.payload}`;
      }),
    );
    expect(new Set(answers).size).toBe(1);
    expect(answers[0]).toMatch(/^401 .*AUTH_INVALID/);
    const byHeader = await world.app.inject({
      url: "/v1/usage?customer=cus_hand&meter=input_tokens",
      headers: { "x-api-key": LIVE_TOKEN },
    });
    expect(byHeader.statusCode).toBe(200);
  });
});

describe("GET /v1/usage/customers", () => {
  it("lists the largest first", async () => {
    const range = "from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z";
    const { body } = await world.get(`/v1/usage/customers?meter=input_tokens&${range}`);
    expect(body).toMatchObject({ meter: "input_tokens", unit: "tokens", asOf: "2026-11-20T11:59:56Z" });
    expect(body["data"]).toEqual([
      { customer: "cus_hand", quantity: "12345678901234567889.423456789" },
      { customer: "cus_other", quantity: "1000" },
    ]);
    const limited = await world.get(`/v1/usage/customers?meter=input_tokens&${range}&limit=1`);
    expect((limited.body["data"] as unknown[]).length).toBe(1);
  });

  it("refuses more customers than the limit", async () => {
    const { status } = await world.get("/v1/usage/customers?meter=input_tokens&limit=1001");
    expect(status).toBe(400);
  });
});
