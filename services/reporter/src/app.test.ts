import { HOUR_MS } from "@tallyhouse/domain";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  createPipeline,
  manualClock,
  openStores,
  startEmulator,
  startReporter,
  type Stores,
  stripeTotals,
} from "./test-support.ts";

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
});
