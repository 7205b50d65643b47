import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Harness, startHarness, stripeError } from "./test-support.ts";

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(() => harness.close());

const sum = { default_aggregation: { formula: "sum" } } as const;

describe("meters", () => {
  it("default to the keys stripe_customer_id and value", async () => {
    const { stripe } = harness;
    const meter = await stripe.billing.meters.create({ display_name: "Tokens", event_name: "tokens", ...sum });
    expect(meter).toMatchObject({
      object: "billing.meter",
      customer_mapping: { event_payload_key: "stripe_customer_id", type: "by_id" },
      value_settings: { event_payload_key: "value" },
      default_aggregation: { formula: "sum" },
      event_time_window: null,
      livemode: false,
      status: "active",
      status_transitions: { deactivated_at: null },
    });
    expect(meter.id).toMatch(/^mtr_test_61/);
    expect(await stripe.billing.meters.retrieve(meter.id)).toEqual(meter);
  });

  it("take other keys and formulas", async () => {
    const meter = await harness.stripe.billing.meters.create({
      display_name: "d",
      event_name: "other_keys",
      default_aggregation: { formula: "last" },
      customer_mapping: { event_payload_key: "who", type: "by_id" },
      value_settings: { event_payload_key: "seats" },
    });
    expect(meter).toMatchObject({
      customer_mapping: { event_payload_key: "who" },
      value_settings: { event_payload_key: "seats" },
      default_aggregation: { formula: "last" },
    });
  });

  it("change only their display name", async () => {
    const { stripe, clock, request } = harness;
    const meter = await stripe.billing.meters.create({ display_name: "old", event_name: "renamed", ...sum });
    clock.advance(5_000);
    const renamed = await stripe.billing.meters.update(meter.id, { display_name: "new" });
    expect(renamed).toEqual({ ...meter, display_name: "new", updated: meter.updated + 5 });
    const refused = await request("POST", `/v1/billing/meters/${meter.id}`, { body: "event_name=x" });
    expect(refused).toMatchObject({ status: 400, body: { error: { code: "parameter_unknown", param: "event_name" } } });
  });

  it("share an event name only when at most one is active", async () => {
    const { stripe, clock } = harness;
    const first = await stripe.billing.meters.create({ display_name: "1", event_name: "shared", ...sum });
    const create = () => stripe.billing.meters.create({ display_name: "2", event_name: "shared", ...sum });
    expect(await stripeError(create())).toMatchObject({ statusCode: 400, rawType: "invalid_request_error" });
    const inactive = await stripe.billing.meters.deactivate(first.id);
    expect(inactive).toMatchObject({
      status: "inactive",
      status_transitions: { deactivated_at: Math.floor(clock.now() / 1_000) },
    });
    const second = await create();
    expect(await stripeError(stripe.billing.meters.reactivate(first.id))).toMatchObject({ statusCode: 400 });
    await stripe.billing.meters.deactivate(second.id);
    expect(await stripe.billing.meters.reactivate(first.id)).toMatchObject({
      status: "active",
      status_transitions: { deactivated_at: null },
    });
    expect(await stripeError(stripe.billing.meters.reactivate(first.id))).toMatchObject({ statusCode: 400 });
    expect(await stripeError(stripe.billing.meters.deactivate(second.id))).toMatchObject({ statusCode: 400 });
  });

  it("are listed newest first, by status", async () => {
    const own = await startHarness();
    const { stripe } = own;
    const a = await stripe.billing.meters.create({ display_name: "a", event_name: "a", ...sum });
    const b = await stripe.billing.meters.create({ display_name: "b", event_name: "b", ...sum });
    await stripe.billing.meters.deactivate(a.id);
    const ids = async (query: { status?: "active" | "inactive" }) =>
      (await stripe.billing.meters.list(query)).data.map((meter) => meter.id);
    expect(await ids({})).toEqual([b.id, a.id]);
    expect(await ids({ status: "active" })).toEqual([b.id]);
    expect(await ids({ status: "inactive" })).toEqual([a.id]);
    await own.close();
  });

  it("are 404 when unknown, in every operation", async () => {
    const { meters } = harness.stripe.billing;
    const span = { customer: "cus_none", start_time: 0, end_time: 60 };
    for (const call of [
      () => meters.retrieve("mtr_none"),
      () => meters.update("mtr_none", { display_name: "x" }),
      () => meters.deactivate("mtr_none"),
      () => meters.reactivate("mtr_none"),
      () => meters.listEventSummaries("mtr_none", span),
    ]) {
      expect(await stripeError(call())).toMatchObject({
        statusCode: 404,
        code: "resource_missing",
        message: "No such meter: 'mtr_none'",
      });
    }
  });

  it("answer 501 to pre-aggregated windows", async () => {
    const wanted = { display_name: "d", event_name: "windowed", event_time_window: "hour", ...sum } as const;
    expect(await stripeError(harness.stripe.billing.meters.create(wanted))).toMatchObject({ statusCode: 501 });
  });
});
