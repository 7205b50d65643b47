import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Harness, startHarness, stripeError } from "./test-support.ts";

const HOUR = 3_600;
const DAY = 86_400;
/** 2026-11-09T00:00:00Z, the day before the harness's clock starts. */
const START = Date.UTC(2026, 10, 9) / 1_000;

type Formula = "sum" | "count" | "last";

let harness: Harness;
let customer: string;
beforeEach(async () => {
  harness = await startHarness();
  customer = (await harness.stripe.customers.create()).id;
});
afterEach(() => harness.close());

async function createMeter(formula: Formula): Promise<string> {
  const wanted = { display_name: formula, event_name: formula, default_aggregation: { formula } };
  return (await harness.stripe.billing.meters.create(wanted)).id;
}

async function send(formula: Formula, value: string, timestamp: number): Promise<void> {
  await harness.stripe.billing.meterEvents.create({
    event_name: formula,
    payload: { stripe_customer_id: customer, value },
    timestamp,
  });
}

async function summaries(
  meter: string,
  query: { start?: number; end?: number; window?: "hour" | "day"; limit?: number } = {},
) {
  const { start = START, end = START + DAY, window, limit } = query;
  const list = await harness.stripe.billing.meters.listEventSummaries(meter, {
    customer,
    start_time: start,
    end_time: end,
    ...(window === undefined ? {} : { value_grouping_window: window }),
    ...(limit === undefined ? {} : { limit }),
  });
  return list.data.map((row) => [(row.start_time - START) / 60, (row.end_time - START) / 60, row.aggregated_value]);
}

describe("event summaries", () => {
  it("ungrouped are one row, from start inclusive to end exclusive, also without events", async () => {
    const meter = await createMeter("sum");
    expect(await summaries(meter)).toEqual([[0, 1_440, 0]]);
    await send("sum", "1", START - 1);
    await send("sum", "2", START);
    await send("sum", "4", START + DAY - 1);
    await send("sum", "8", START + DAY);
    expect(await summaries(meter)).toEqual([[0, 1_440, 6]]);
    expect(await summaries(meter, { start: START + DAY - 60, end: START + DAY + 60 })).toEqual([[1_439, 1_441, 12]]);
  });

  it("add signed decimals exactly, below zero too", async () => {
    const meter = await createMeter("sum");
    for (const value of ["0.1", "0.2", "-0.3"]) await send("sum", value, START);
    expect(await summaries(meter)).toEqual([[0, 1_440, 0]]);
    for (const value of ["-5", "0.000000000000001"]) await send("sum", value, START);
    expect(await summaries(meter)).toEqual([[0, 1_440, -4.999999999999999]]);
  });

  it("count events whatever their values", async () => {
    const meter = await createMeter("count");
    for (const value of ["10", "-3", "0.5"]) await send("count", value, START + HOUR);
    expect(await summaries(meter)).toEqual([[0, 1_440, 3]]);
  });

  it("take the value of the latest timestamp, of equal ones the last received, and 0 where there is none", async () => {
    const meter = await createMeter("last");
    await send("last", "7", START + 2 * HOUR);
    await send("last", "5", START + HOUR);
    expect(await summaries(meter)).toEqual([[0, 1_440, 7]]);
    await send("last", "6", START + 2 * HOUR);
    expect(await summaries(meter)).toEqual([[0, 1_440, 6]]);
    expect(await summaries(meter, { start: START + DAY, end: START + 2 * DAY })).toEqual([[1_440, 2_880, 0]]);
  });

  it("grouped by hour or UTC day show only windows with events, newest first", async () => {
    const meter = await createMeter("sum");
    await send("sum", "1", START + HOUR - 1);
    await send("sum", "2", START + HOUR);
    await send("sum", "4", START + 5 * HOUR);
    expect(await summaries(meter, { window: "hour" })).toEqual([
      [300, 360, 4],
      [60, 120, 2],
      [0, 60, 1],
    ]);
    expect(await summaries(meter, { window: "day", end: START + 2 * DAY })).toEqual([[0, 1_440, 7]]);
  });

  it("page by 10, at most 100, and the auto-pager reads them all", async () => {
    const meter = await createMeter("sum");
    const hours = 12;
    for (let hour = 0; hour < hours; hour += 1) await send("sum", String(hour), START + hour * HOUR);
    expect(await summaries(meter, { window: "hour" })).toHaveLength(10);
    expect(await summaries(meter, { window: "hour", limit: 100 })).toHaveLength(hours);
    const query = {
      customer,
      start_time: START,
      end_time: START + DAY,
      value_grouping_window: "hour",
      limit: 5,
    } as const;
    const values: number[] = [];
    for await (const row of harness.stripe.billing.meters.listEventSummaries(meter, query))
      values.push(row.aggregated_value);
    expect(values).toEqual(Array.from({ length: hours }, (_, at) => hours - 1 - at));
  });

  it("leave out what was refused, and other customers", async () => {
    const meter = await createMeter("sum");
    const own = customer;
    customer = (await harness.stripe.customers.create()).id;
    await send("sum", "1", START);
    customer = own;
    expect(await stripeError(send("sum", "1e3", START))).toMatchObject({ statusCode: 400 });
    expect(await summaries(meter)).toEqual([[0, 1_440, 0]]);
  });

  it("can be read of an inactive meter", async () => {
    const meter = await createMeter("sum");
    await send("sum", "3", START);
    await harness.stripe.billing.meters.deactivate(meter);
    expect(await summaries(meter)).toEqual([[0, 1_440, 3]]);
  });

  it.each([
    [{ start_time: START + 1 }, "start_time"],
    [{ end_time: START + DAY - 30 }, "end_time"],
    [{ start_time: START + 60, value_grouping_window: "hour" as const }, "start_time"],
    [{ start_time: START + HOUR, value_grouping_window: "day" as const }, "start_time"],
    [{ end_time: START }, "start_time"],
    [{ customer: "cus_none" }, "customer"],
    [{ start_time: -60 }, "start_time"],
  ])("refuse %j", async (change, param) => {
    const meter = await createMeter("sum");
    const query = { customer, start_time: START, end_time: START + DAY, ...change };
    expect(await stripeError(harness.stripe.billing.meters.listEventSummaries(meter, query))).toMatchObject({
      statusCode: 400,
      param,
    });
  });

  it("show an event only after the configured lag", async () => {
    await harness.close();
    harness = await startHarness({ summaryLagMs: 5_000 });
    customer = (await harness.stripe.customers.create()).id;
    const meter = await createMeter("sum");
    await send("sum", "3", START);
    harness.clock.advance(4_999);
    expect(await summaries(meter)).toEqual([[0, 1_440, 0]]);
    harness.clock.advance(1);
    expect(await summaries(meter)).toEqual([[0, 1_440, 3]]);
    expect((await harness.emulator.truth()).totals).toMatchObject([{ sum: "3", count: 1 }]);
  });

  it("by hour add up to the ungrouped one, for any events", async () => {
    const meter = await createMeter("sum");
    const event = fc.record({
      cents: fc.integer({ min: -10_000, max: 10_000 }),
      at: fc.integer({ min: 0, max: DAY - 1 }),
    });
    let expected = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(event, { minLength: 1, maxLength: 8 }), async (events) => {
        for (const { cents, at } of events) await send("sum", String(cents), START + at);
        expected += events.reduce((sum, { cents }) => sum + cents, 0);
        const total = (rows: (number | undefined)[][]) => rows.reduce((sum, row) => sum + (row[2] ?? 0), 0);
        expect(total(await summaries(meter))).toBe(expected);
        expect(total(await summaries(meter, { window: "hour", limit: 100 }))).toBe(expected);
      }),
      { numRuns: 20 },
    );
  });
});
