import { HOUR_MS } from "@tallyhouse/domain";
import { Stripe } from "stripe";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { refusalOf } from "./map-meters.ts";
import { createStripeApi, type StripeApi } from "./stripe/stripe-api.ts";
import {
  createMemoryPipeline,
  manualClock,
  startEmulator,
  startReporter,
  stripeTotals,
  TEST_KEY,
} from "./test-support.ts";
import { type Ledger, openLedger } from "./test-support/ports.ts";

let ledger: Ledger;
beforeAll(async () => {
  ledger = await openLedger();
});
afterAll(() => ledger.close());
beforeEach(() => ledger.reset());

async function startWorld() {
  const clock = manualClock();
  const pipeline = createMemoryPipeline(clock);
  const emulator = await startEmulator(clock);
  await pipeline.activate("tokens");
  await pipeline.use([{ customer: "a", at: clock.now() - 3 * HOUR_MS, quantity: "4" }]);
  await pipeline.progress(clock.now());
  const stripe = new Stripe(TEST_KEY, { ...emulator.stripeConfig, telemetry: false });
  const environment = { STRIPE_API_URL: emulator.url };
  const ports = { clock, analytics: pipeline.analytics, control: ledger.control };
  return { clock, emulator, stripe, environment, ports };
}

describe("mapping to Stripe objects", () => {
  it("uses the meter that Stripe already has under our name", async () => {
    const { emulator, stripe, environment, ports } = await startWorld();
    const meter = await stripe.billing.meters.create({
      event_name: "th_tokens_v1",
      display_name: "made by an earlier life",
      default_aggregation: { formula: "sum" },
    });
    const reporter = startReporter(ports, environment);
    expect(await reporter.runOnce()).toMatchObject({ accepted: 1 });
    const rows = await ledger.control.query("SELECT stripe_meter_id FROM usage_report");
    expect(rows).toEqual([{ stripe_meter_id: meter.id }]);
    await reporter.close();
    await emulator.close();
  });

  it("refuses a meter whose formula would add up otherwise, and reports nothing to it", async () => {
    const { emulator, stripe, environment, ports } = await startWorld();
    await stripe.billing.meters.create({
      event_name: "th_tokens_v1",
      display_name: "last wins",
      default_aggregation: { formula: "last" },
    });
    const reporter = startReporter(ports, environment);
    expect(await reporter.runOnce()).toMatchObject({ planned: 0 });
    const rows = await ledger.control.query("SELECT state, refusal FROM stripe_meter_map");
    expect(rows).toEqual([{ state: "refused", refusal: "its formula is last, not sum" }]);
    await reporter.close();
    await emulator.close();
  });

  it("a stored 500 of an executed creation is not replayed for ever: the customer is found by its metadata", async () => {
    const { emulator, environment, ports } = await startWorld();
    let failures = 1;
    const stripe = (account: { secretKey: string }): StripeApi => {
      const api = createStripeApi({ ...account, apiUrl: emulator.url, connectionsMax: 2 });
      return {
        send: (event) => api.send(event),
        minuteTotal: (input) => api.minuteTotal(input),
        listMeters: () => api.listMeters(),
        createMeter: (input) => api.createMeter(input),
        listCustomersSince: (sinceAt) => api.listCustomersSince(sinceAt),
        close: () => api.close(),
        async createCustomer(input) {
          const created = await api.createCustomer(input);
          failures -= 1;
          return failures >= 0 ? { kind: "failed", message: "status 500" } : created;
        },
      };
    };
    const reporter = startReporter({ ...ports, stripe }, environment);
    expect(await reporter.runOnce()).toMatchObject({ planned: 0 });
    expect(await reporter.runOnce()).toMatchObject({ accepted: 1 });
    expect((await emulator.truth()).customers).toHaveLength(1);
    expect(await stripeTotals(emulator)).toEqual({ "th_tokens_v1 a": "4" });
    await reporter.close();
    await emulator.close();
  });

  it("a creation journalled a day ago looks for its customer before it creates one", async () => {
    const { clock, emulator, stripe, environment, ports } = await startWorld();
    const customer = await stripe.customers.create({
      metadata: { tallyhouse_managed: "true", tallyhouse_customer: "a" },
    });
    await ledger.control.query(
      `INSERT INTO stripe_customer_map (mode, stripe_account, customer_id, state, idempotency_key, key_created_at, created_at)
       VALUES ('test', 'emulator', 'a', 'creating', 'lost', $1::timestamptz, $1::timestamptz)`,
      [new Date(clock.now()).toISOString()],
    );
    clock.advance(23 * HOUR_MS);
    const reporter = startReporter(ports, environment);
    expect(await reporter.runOnce()).toMatchObject({ accepted: 1 });
    const rows = await ledger.control.query("SELECT stripe_customer_id FROM usage_report");
    expect(rows).toEqual([{ stripe_customer_id: customer.id }]);
    await reporter.close();
    await emulator.close();
  });

  it("names what is wrong with a meter", () => {
    const meter = {
      id: "mtr_1",
      eventName: "th_tokens_v1",
      isActive: true,
      formula: "sum",
      customerKey: "stripe_customer_id",
      valueKey: "value",
      hasTimeWindow: false,
    };
    expect(refusalOf(meter)).toBeNull();
    expect(refusalOf({ ...meter, isActive: false })).toBe("it is inactive");
    expect(refusalOf({ ...meter, formula: "count" })).toBe("its formula is count, not sum");
    expect(refusalOf({ ...meter, customerKey: "id" })).toBe("its customer key is id");
    expect(refusalOf({ ...meter, valueKey: "amount" })).toBe("its value key is amount");
    expect(refusalOf({ ...meter, hasTimeWindow: true })).toBe("it has an event time window");
  });
});
