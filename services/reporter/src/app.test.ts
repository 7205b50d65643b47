import { DAY_MS, HOUR_MS } from "@tallyhouse/domain";
import { createMetrics, systemClock } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { Stripe } from "stripe";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startFaultyProxy, stripeError } from "./stripe/faulty-proxy.test-support.ts";
import {
  createPipeline,
  LIVE_KEY,
  manualClock,
  startEmulator,
  startReporter,
  stripeTotals,
  TEST_KEY,
} from "./test-support.ts";
import { openStores, type Stores } from "./test-support/ports.ts";

let stores: Stores;
beforeAll(async () => {
  stores = await openStores();
});
afterAll(() => stores.close());
beforeEach(() => stores.reset());

describe("the reporter over the embedded stores and the emulator", () => {
  it("G5 reports what was counted, then every later change as a difference", async () => {
    const clock = manualClock();
    const pipeline = createPipeline(stores.analytics, clock);
    const emulator = await startEmulator(clock);
    const reporter = startReporter({ ...stores, clock }, { STRIPE_API_URL: emulator.url });
    const hour = clock.now() - 3 * HOUR_MS;
    await pipeline.activate("tokens");
    await pipeline.activate("requests", { aggregation: "count" });
    await pipeline.use([
      { customer: "a", at: hour, quantity: "10.5" },
      { customer: "a", at: hour + HOUR_MS, quantity: "7", dims: ["x"] },
      { customer: "a", at: hour + HOUR_MS, quantity: "0.000000001", dims: ["y"] },
      { customer: "b", at: hour, quantity: "3" },
      { customer: "b", at: hour, quantity: "1", meter: "requests" },
    ]);
    expect(await reporter.runOnce()).toEqual({ planned: 0, sent: 0, accepted: 0 });
    expect(reporter.status().watermarkAt).toBeNull();
    await pipeline.progress(clock.now());
    expect(await reporter.runOnce()).toEqual({ planned: 4, sent: 4, accepted: 4 });
    expect(await stripeTotals(emulator)).toEqual({
      "th_tokens_v1 a": "17.500000001",
      "th_tokens_v1 b": "3",
      "th_requests_v1 b": "1",
    });
    expect(await reporter.runOnce()).toEqual({ planned: 0, sent: 0, accepted: 0 });

    clock.advance(HOUR_MS);
    await pipeline.use([
      { customer: "a", at: hour, quantity: "-0.5" },
      { customer: "c", at: hour, quantity: "1234567890123456.123456789" },
    ]);
    await pipeline.progress(clock.now());
    expect(await reporter.runOnce()).toMatchObject({ planned: 4, accepted: 4 });
    expect(await stripeTotals(emulator)).toMatchObject({
      "th_tokens_v1 a": "17.000000001",
      "th_tokens_v1 c": "1234567890123456.123456789",
    });
    await reporter.close();
    await emulator.close();
  });

  it("G5 keeps modes apart, leaves out what it cannot report, and says so", async () => {
    const clock = manualClock();
    const pipeline = createPipeline(stores.analytics, clock);
    const emulator = await startEmulator(clock);
    const metrics = createMetrics();
    const at = clock.now() - 3 * HOUR_MS;
    await pipeline.activate("tokens");
    await pipeline.activate("tokens", { mode: "live" });
    await pipeline.activate("peak", { aggregation: "max" });
    await pipeline.use([
      { customer: "a", at, quantity: "1" },
      { customer: "a", at, quantity: "100", mode: "live" },
      { customer: "a", at, quantity: "7", meter: "peak" },
      { customer: "old", at: clock.now() - 36 * DAY_MS, quantity: "5" },
      { customer: "young", at: clock.now(), quantity: "5" },
    ]);
    await pipeline.progress(clock.now());
    const reporter = startReporter({ ...stores, clock, metrics }, { STRIPE_API_URL: emulator.url });
    expect(await reporter.runOnce()).toMatchObject({ planned: 1, accepted: 1 });
    expect(reporter.status()).toMatchObject({ isReady: true, modesWithoutKey: ["live"] });
    expect(reporter.status().accounts[0]?.waitingBuckets).toEqual({ due: 0, unmapped: 2, tooOld: 1 });
    const text = await metrics.metrics();
    expect(text).toContain('tallyhouse_reporter_unreported_meters{mode="test",reason="aggregation"} 1');
    expect(text).toContain('tallyhouse_reporter_unreported_meters{mode="live",reason="no_key"} 1');
    expect(text).toContain('tallyhouse_reporter_waiting_buckets{mode="test",kind="too_old"} 1');
    await reporter.close();

    // A key added later finds the mode's usage from its beginning.
    const both = startReporter(
      { ...stores, clock },
      { STRIPE_API_URL: emulator.url, STRIPE_LIVE_SECRET_KEY: LIVE_KEY },
    );
    expect(await both.runOnce()).toMatchObject({ planned: 1, accepted: 1 });
    const truth = await emulator.truth();
    expect(truth.totals.map(({ mode, sum }) => `${mode} ${sum}`).toSorted()).toEqual(["live 100", "test 1"]);
    await both.close();
    await emulator.close();
  });

  it("G5 a row whose first attempt is 23 hours old is read back before it is sent again", async () => {
    const clock = manualClock();
    const pipeline = createPipeline(stores.analytics, clock);
    // Stripe has forgotten every identifier by the time of the repeat: sending blindly would count twice.
    const emulator = await startEmulator(clock, { identifierMemory: "24h" });
    const proxy = await startFaultyProxy(emulator.url);
    proxy.script.push({
      when: "after",
      effect: stripeError(500, { type: "api_error", message: "Something went wrong." }),
    });
    const environment = { STRIPE_API_URL: proxy.url };
    await pipeline.activate("tokens");
    await pipeline.use([{ customer: "a", at: clock.now() - 3 * HOUR_MS, quantity: "9" }]);
    await pipeline.progress(clock.now());
    const first = startReporter({ ...stores, clock }, environment);
    expect(await first.runOnce()).toMatchObject({ planned: 1, accepted: 0 });
    await first.close();
    clock.advance(30 * HOUR_MS);
    const second = startReporter({ ...stores, clock }, environment);
    await second.runOnce();
    await second.runOnce();
    expect(await stripeTotals(emulator)).toEqual({ "th_tokens_v1 a": "9" });
    const [row] = await stores.control.query<{ state: string }>("SELECT state FROM usage_report");
    expect(row?.state).toBe("accepted");
    const counted = (await emulator.truth()).events.filter((event) => event.fate === "counted");
    expect(counted).toHaveLength(1);
    await second.close();
    await proxy.close();
    await emulator.close();
  });

  it("one refused pair does not hold up the others", async () => {
    const clock = manualClock();
    const pipeline = createPipeline(stores.analytics, clock);
    const emulator = await startEmulator(clock);
    const at = clock.now() - 3 * HOUR_MS;
    await pipeline.activate("tokens");
    await pipeline.use([{ customer: "gone", at, quantity: "1" }]);
    await pipeline.progress(clock.now());
    const reporter = startReporter({ ...stores, clock }, { STRIPE_API_URL: emulator.url });
    await reporter.runOnce();
    // Somebody deletes the customer at Stripe.
    const stripe = new Stripe(TEST_KEY, { ...emulator.stripeConfig, telemetry: false });
    const [gone] = (await emulator.truth()).customers;
    await stripe.customers.del(gone?.id ?? "");
    clock.advance(HOUR_MS);
    await pipeline.use([
      { customer: "gone", at: at + HOUR_MS, quantity: "1" },
      { customer: "fine", at, quantity: "2" },
    ]);
    await pipeline.progress(clock.now());
    expect(await reporter.runOnce()).toMatchObject({ planned: 2, sent: 2, accepted: 1 });
    await pipeline.use([{ customer: "gone", at, quantity: "1" }]);
    await pipeline.progress(clock.now() + 1);
    expect(await reporter.runOnce()).toMatchObject({ planned: 0, sent: 0 });
    expect(reporter.status().accounts[0]?.unfinishedRows).toEqual({ rejected_sync: 1 });
    expect(reporter.status().accounts[0]?.waitingBuckets).toMatchObject({ due: 2 });
    await reporter.close();
    await emulator.close();
  });

  it("runs until it is told to stop, and reports by itself", async () => {
    const clock = manualClock();
    const pipeline = createPipeline(stores.analytics, clock);
    const emulator = await startEmulator(clock);
    const reporter = startReporter(
      { ...stores, clock: systemClock },
      { STRIPE_API_URL: emulator.url, REPORT_INTERVAL_MS: "20" },
    );
    const stop = new AbortController();
    const done = reporter.run(stop.signal);
    await pipeline.activate("tokens");
    await pipeline.use([{ customer: "a", at: clock.now() - 3 * HOUR_MS, quantity: "4" }]);
    await pipeline.progress(clock.now());
    await until(async () => (await stripeTotals(emulator))["th_tokens_v1 a"] === "4");
    stop.abort();
    await done;
    await reporter.close();
    await emulator.close();
  });
});
