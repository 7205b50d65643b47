import { HOUR_MS } from "@tallyhouse/domain";
import { until } from "@tallyhouse/testkit";
import * as fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { ReporterPorts } from "./app.ts";
import { createStripeApi, type StripeApi } from "./stripe/stripe-api.ts";
import { createMemoryPipeline, manualClock, startEmulator, startReporter, stripeTotals } from "./test-support.ts";
import { type Ledger, openLedger } from "./test-support/ports.ts";

/** The process is gone: every later call of it fails too. */
class Crash extends Error {}
type Moment = "before" | "after";

/** Counts port calls and dies at one of them, before its effect or after it (effect done, answer lost). */
function dyingPorts(
  ports: Pick<ReporterPorts, "analytics" | "control"> & { apiUrl: string },
  death: { at: number; moment: Moment } | null,
) {
  const calls: string[] = [];
  let isDead = false;
  async function step<Result>(name: string, effect: () => Promise<Result>): Promise<Result> {
    if (isDead) throw new Crash(name);
    calls.push(name);
    const isLast = death !== null && calls.length === death.at;
    if (isLast && death.moment === "before") {
      isDead = true;
      throw new Crash(name);
    }
    const result = await effect();
    if (isLast) isDead = true;
    if (isDead) throw new Crash(name);
    return result;
  }
  const { analytics, control } = ports;
  const stripe = (account: { secretKey: string }): StripeApi => {
    const api = createStripeApi({ ...account, apiUrl: ports.apiUrl, connectionsMax: 8 });
    return {
      send: (event) => step("stripe.send", () => api.send(event)),
      minuteTotal: (input) => step("stripe.minuteTotal", () => api.minuteTotal(input)),
      listMeters: () => step("stripe.listMeters", () => api.listMeters()),
      createMeter: (input) => step("stripe.createMeter", () => api.createMeter(input)),
      createCustomer: (input) => step("stripe.createCustomer", () => api.createCustomer(input)),
      listCustomersSince: (sinceAt) => step("stripe.listCustomers", () => api.listCustomersSince(sinceAt)),
      close: () => api.close(),
    };
  };
  return {
    calls,
    isDead: () => isDead,
    stripe,
    analytics: {
      ...analytics,
      select: <Row>(sql: string, params?: Readonly<Record<string, unknown>>) =>
        step("analytics.select", () => analytics.select<Row>(sql, params)),
    },
    control: {
      ...control,
      query: <Row>(sql: string, params?: readonly unknown[]) =>
        step("control.query", () => control.query<Row>(sql, params)),
      transaction: <Result>(body: Parameters<typeof control.transaction<Result>>[0]) =>
        step("control.transaction", () => control.transaction(body)),
    },
  };
}

let ledger: Ledger;
beforeAll(async () => {
  ledger = await openLedger();
});
afterAll(() => ledger.close());
beforeEach(() => ledger.reset());

/** One life of the reporter. A planned death may come at any of its port calls. */
type Life = (death: { at: number; moment: Moment } | null) => Promise<void>;

/** A scenario in two waves, so that the second finds a ledger; `deaths` end the first lives of each. Returns what they hit. */
async function survive(deaths: readonly { at: number; moment: Moment }[]): Promise<string[]> {
  const clock = manualClock();
  const pipeline = createMemoryPipeline(clock);
  const emulator = await startEmulator(clock);
  const hits: string[] = [];
  const live: Life = async (death) => {
    const ports = dyingPorts({ analytics: pipeline.analytics, control: ledger.control, apiUrl: emulator.url }, death);
    const reporter = startReporter({ ...ports, clock }, { STRIPE_API_URL: emulator.url });
    try {
      await reporter.runOnce();
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      hits.push(ports.calls.at(-1) ?? "");
    }
    await reporter.close();
  };
  const settle = async (): Promise<void> => {
    for (const death of deaths) await live(death);
    // A row that failed waits up to a minute; every life begins without that memory.
    await until(async () => {
      await live(null);
      clock.advance(61_000);
      const [row] = await ledger.control.query<{ open: string }>(
        `SELECT ((SELECT count(*) FROM report_due) + (SELECT count(*) FROM usage_report
           WHERE state NOT IN ('accepted', 'void', 'expired')))::text AS open`,
      );
      return row?.open === "0";
    });
  };
  const hour = clock.now() - 4 * HOUR_MS;
  await pipeline.activate("tokens");
  await pipeline.use([
    { customer: "a", at: hour, quantity: "10" },
    { customer: "a", at: hour + HOUR_MS, quantity: "0.25" },
    { customer: "b", at: hour, quantity: "3" },
  ]);
  await pipeline.progress(clock.now());
  await settle();
  clock.advance(HOUR_MS);
  await pipeline.use([
    { customer: "a", at: hour, quantity: "-4" },
    { customer: "b", at: hour + HOUR_MS, quantity: "5" },
  ]);
  await pipeline.progress(clock.now());
  await settle();

  expect(await stripeTotals(emulator)).toEqual({ "th_tokens_v1 a": "6.25", "th_tokens_v1 b": "8" });
  const truth = await emulator.truth();
  const counted = truth.events.filter((event) => event.fate === "counted").map((event) => event.identifier);
  expect(new Set(counted).size).toBe(counted.length);
  expect(truth.customers).toHaveLength(2);
  expect(truth.meters).toHaveLength(1);
  const [sum] = await ledger.control.query<{ live: string }>(
    "SELECT sum(quantity)::text AS live FROM usage_report WHERE state = 'accepted'",
  );
  expect(Number(sum?.live)).toBe(14.25);
  await emulator.close();
  return hits;
}

describe("a process that dies at any port call", () => {
  it.each<Moment>(["before", "after"])("G2 G5 %s its effect: nothing is lost, nothing counts twice", async (moment) => {
    const hitsByCall = new Map<string, number>();
    for (let at = 1; ; at += 1) {
      await ledger.reset();
      const hits = await survive([{ at, moment }]);
      for (const name of hits) hitsByCall.set(name, (hitsByCall.get(name) ?? 0) + 1);
      if (hits.length === 0) break;
    }
    // A kind of call at which no life ended would leave this test blind to it.
    expect([...hitsByCall.keys()].toSorted()).toEqual([
      "analytics.select",
      "control.query",
      "control.transaction",
      "stripe.createCustomer",
      "stripe.createMeter",
      "stripe.listMeters",
      "stripe.send",
    ]);
  });

  it("G2 G5 several times in a row: nothing is lost, nothing counts twice", async () => {
    const death = fc.record({
      at: fc.integer({ min: 1, max: 30 }),
      moment: fc.constantFrom<Moment>("before", "after"),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(death, { minLength: 2, maxLength: 6 }), async (deaths) => {
        await ledger.reset();
        await survive(deaths);
      }),
      { numRuns: 20 },
    );
  });
});
