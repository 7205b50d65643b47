import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Harness, startHarness, stripeError } from "./test-support.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

let harness: Harness;
let customer: string;
let meter: string;
beforeEach(async () => {
  harness = await startHarness();
  const { stripe } = harness;
  customer = (await stripe.customers.create({ name: "c" })).id;
  meter = await createMeter("tokens", "sum");
});
afterEach(() => harness.close());

async function createMeter(eventName: string, formula: "sum" | "count" | "last"): Promise<string> {
  const created = await harness.stripe.billing.meters.create({
    display_name: eventName,
    event_name: eventName,
    default_aggregation: { formula },
  });
  return created.id;
}

function send(value: string, rest: { identifier?: string; timestamp?: number; event_name?: string } = {}) {
  const payload = { stripe_customer_id: customer, value };
  return harness.stripe.billing.meterEvents.create({ event_name: "tokens", payload, ...rest });
}

function nowSeconds(): number {
  return Math.floor(harness.clock.now() / 1_000);
}

async function fates(): Promise<(string | null)[]> {
  return (await harness.emulator.truth()).events.map((event) => event.code ?? event.fate);
}

describe("meter events", () => {
  it("are received with what was sent", async () => {
    const payload = { stripe_customer_id: customer, value: "12.5", region: "eu" };
    const timestamp = nowSeconds() - 60;
    const sent = { event_name: "tokens", payload, identifier: "id-1", timestamp };
    expect(await harness.stripe.billing.meterEvents.create(sent)).toEqual({
      object: "billing.meter_event",
      created: nowSeconds(),
      livemode: false,
      ...sent,
    });
    expect((await harness.emulator.truth()).events).toEqual([
      {
        mode: "test",
        identifier: "id-1",
        event_name: "tokens",
        meter,
        customer,
        value: "12.5",
        timestamp,
        received_at: harness.clock.now(),
        fate: "counted",
        code: null,
      },
    ]);
  });

  it("get an identifier and the present time when they name none", async () => {
    const first = await send("1");
    const second = await send("1");
    expect(first.identifier).toMatch(/^mevt_[0-9A-Za-z]{24}$/);
    expect(second.identifier).not.toBe(first.identifier);
    expect(first.timestamp).toBe(nowSeconds());
  });

  it("with a known identifier are refused as documented: 400 and no code", async () => {
    await send("1", { identifier: "same" });
    const error = await stripeError(send("2", { identifier: "same", timestamp: nowSeconds() - 5 * 86_400 }));
    expect(error).toMatchObject({
      statusCode: 400,
      rawType: "invalid_request_error",
      message: "An event already exists with identifier same.",
    });
    expect(error.code).toBeUndefined();
    expect(await fates()).toEqual(["counted", "duplicate"]);
  });

  it("hold their identifier for 24 h after receipt, to the millisecond, and then not", async () => {
    await send("1", { identifier: "same" });
    harness.clock.advance(DAY_MS);
    expect(await stripeError(send("1", { identifier: "same" }))).toMatchObject({ statusCode: 400 });
    harness.clock.advance(1);
    await send("1", { identifier: "same" });
    harness.clock.advance(DAY_MS);
    expect(await stripeError(send("1", { identifier: "same" }))).toMatchObject({ statusCode: 400 });
  });

  it("hold their identifier for ever with identifierMemory: forever", async () => {
    const own = await startHarness({ identifierMemory: "forever" });
    const who = (await own.stripe.customers.create()).id;
    await own.stripe.billing.meters.create({
      display_name: "d",
      event_name: "e",
      default_aggregation: { formula: "sum" },
    });
    const event = { event_name: "e", payload: { stripe_customer_id: who, value: "1" }, identifier: "same" };
    await own.stripe.billing.meterEvents.create(event);
    own.clock.advance(400 * DAY_MS);
    expect(await stripeError(own.stripe.billing.meterEvents.create(event))).toMatchObject({ statusCode: 400 });
    await own.close();
  });

  it("that were refused hold their identifier too", async () => {
    expect(await stripeError(send("x", { identifier: "same" }))).toMatchObject({ statusCode: 400 });
    const error = await stripeError(send("1", { identifier: "same" }));
    expect(error.message).toBe("An event already exists with identifier same.");
  });

  it("need an active meter", async () => {
    const message = "Invalid event_name: none. No active meter found with this event name.";
    expect(await stripeError(send("1", { event_name: "none" }))).toMatchObject({ statusCode: 400, message });
    await harness.stripe.billing.meters.deactivate(meter);
    expect((await stripeError(send("1"))).message).toBe(message.replace("none", "tokens"));
    expect(await fates()).toEqual(["no_meter", "archived_meter"]);
  });

  it("need a customer that exists and is not deleted", async () => {
    const deleted = (await harness.stripe.customers.create()).id;
    await harness.stripe.customers.del(deleted);
    for (const who of ["cus_none", deleted]) {
      const payload = { stripe_customer_id: who, value: "1" };
      expect(
        await stripeError(harness.stripe.billing.meterEvents.create({ event_name: "tokens", payload })),
      ).toMatchObject({
        statusCode: 400,
        code: "resource_missing",
        message: `No such customer: '${who}'`,
        param: "payload[stripe_customer_id]",
      });
    }
    const payload = { value: "1" };
    const error = await stripeError(harness.stripe.billing.meterEvents.create({ event_name: "tokens", payload }));
    expect(error.statusCode).toBe(400);
    expect(await fates()).toEqual([
      "meter_event_customer_not_found",
      "meter_event_customer_not_found",
      "meter_event_no_customer_defined",
    ]);
  });

  it.each(["1e3", "1e-7", "+1", "01", "1.", ".5", "1,000", " 1", "NaN", "Infinity", "0x10", `0.${"0".repeat(120)}1`])(
    "refuse %j as a value",
    async (value) => {
      expect(await stripeError(send(value))).toMatchObject({ statusCode: 400, param: "payload[value]" });
      expect(await fates()).toEqual(["meter_event_invalid_value"]);
    },
  );

  it.each(["0", "-0", "-5", "0.1", "999999999999999", "-99999999999999.9", "0.000000000000000123456789012345"])(
    "take %j as a value",
    async (value) => {
      await send(value);
      expect(await fates()).toEqual(["counted"]);
    },
  );

  it.each(["1000000000000000", "1234567890.1234567", "-1.000000000000001"])(
    "take no more than 15 significant digits: %s",
    async (value) => {
      expect((await stripeError(send(value))).message).toBe(
        `The value in the event payload can have at most 15 digits. Received ${value}.`,
      );
      expect(await fates()).toEqual(["meter_event_value_too_many_digits"]);
    },
  );

  it("need a value, except for a meter that counts", async () => {
    await createMeter("calls", "count");
    const create = (eventName: string, payload: Record<string, string>) =>
      harness.stripe.billing.meterEvents.create({ event_name: eventName, payload });
    const bare = { stripe_customer_id: customer };
    expect(await stripeError(create("tokens", bare))).toMatchObject({ statusCode: 400 });
    expect(await stripeError(create("tokens", { ...bare, value: "" }))).toMatchObject({ statusCode: 400 });
    await create("calls", bare);
    expect(await fates()).toEqual(["meter_event_value_not_found", "meter_event_value_not_found", "counted"]);
  });

  it("reach 35 days back and 5 minutes ahead, to the second", async () => {
    const { clock } = harness;
    clock.advance(1_000 - (clock.now() % 1_000)); // a whole second, so that both bounds are whole too
    const now = nowSeconds();
    await send("1", { timestamp: now - 35 * 86_400 });
    await send("1", { timestamp: now + 300 });
    expect((await stripeError(send("1", { timestamp: now - 35 * 86_400 - 1 }))).message).toBe(
      "Timestamp must be no more than 35 days in the past.",
    );
    expect(await stripeError(send("1", { timestamp: now + 301 }))).toMatchObject({
      statusCode: 400,
      param: "timestamp",
    });
    expect(await fates()).toEqual(["counted", "counted", "timestamp_too_far_in_past", "timestamp_in_future"]);
  });

  it.each([
    ["event_name=tokens", { code: "parameter_missing", param: "payload" }],
    ["payload[value]=1", { code: "parameter_missing", param: "event_name" }],
    ["event_name=tokens&payload[a][b]=1", { param: "payload[a]" }],
    ["event_name=tokens&payload=1", { param: "payload" }],
    ["event_name=tokens&payload[value]=1&timestamp=1.5", { code: "parameter_invalid_integer", param: "timestamp" }],
    [`event_name=tokens&payload[value]=1&identifier=${"i".repeat(101)}`, { param: "identifier" }],
    ["event_name=tokens&payload[value]=1&customer=x", { code: "parameter_unknown", param: "customer" }],
  ])("with wrong parameters are not even received: %s", async (body, error) => {
    const answer = await harness.request("POST", "/v1/billing/meter_events", { body });
    expect(answer).toMatchObject({ status: 400, body: { error } });
    expect(await fates()).toEqual([]);
  });

  it("of the two modes share nothing", async () => {
    const { live, stripe } = harness;
    await live.billing.meters.create({
      display_name: "d",
      event_name: "tokens",
      default_aggregation: { formula: "sum" },
    });
    const error = await stripeError(
      live.billing.meterEvents.create({ event_name: "tokens", payload: { stripe_customer_id: customer, value: "1" } }),
    );
    expect(error).toMatchObject({ code: "resource_missing" });
    const twin = await live.customers.create();
    expect(twin.livemode).toBe(true);
    const payload = { stripe_customer_id: twin.id, value: "1" };
    await send("1", { identifier: "same" });
    expect(await live.billing.meterEvents.create({ event_name: "tokens", payload, identifier: "same" })).toMatchObject({
      livemode: true,
    });
    expect(await stripeError(stripe.customers.retrieve(twin.id))).toMatchObject({ statusCode: 404 });
  });
});
