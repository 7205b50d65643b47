import { HOUR_MS, MINUTE_MS } from "@tallyhouse/domain";
import { createMetrics } from "@tallyhouse/runtime";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { OutcomeId } from "./outcome.ts";
import { type Fault, startFaultyProxy, stripeError } from "./stripe/faulty-proxy.test-support.ts";
import { createStripeApi } from "./stripe/stripe-api.ts";
import { createMemoryPipeline, manualClock, startEmulator, startReporter, stripeTotals } from "./test-support.ts";
import { type Ledger, openLedger } from "./test-support/ports.ts";

let ledger: Ledger;
beforeAll(async () => {
  ledger = await openLedger();
});
afterAll(() => ledger.close());
beforeEach(() => ledger.reset());

const DUPLICATE = stripeError(400, {
  type: "invalid_request_error",
  message: "An event already exists with identifier th1_x.",
});
const FAILED = stripeError(500, { type: "api_error", message: "Something went wrong." });
const UNAUTHORISED = stripeError(401, { type: "invalid_request_error", message: "Invalid API Key provided." });
const REFUSED = stripeError(400, { type: "invalid_request_error", message: "No such customer: 'cus_x'" });
const LIMITED = stripeError(
  429,
  { type: "invalid_request_error", code: "rate_limit", message: "Too many requests." },
  { "stripe-rate-limited-reason": "endpoint-rate" },
);
const CONFLICT = stripeError(409, { type: "invalid_request_error", message: "A concurrent request holds the pair." });
const NO_ERROR_500 = { kind: "status" as const, status: 500, body: "{}" };
const HTML_400 = { kind: "status" as const, status: 400, body: "<html>bad gateway</html>" };
const RESET = { kind: "reset" as const };
const TRUNCATED = { kind: "truncated" as const };
const SILENCE = { kind: "silence" as const };

const before = (effect: Fault["effect"]): Fault => ({ when: "before", effect });
const after = (effect: Fault["effect"]): Fault => ({ when: "after", effect });

/** Runs one row through a script of faults until nothing is open; returns the outcomes it hit, in order of first hit. */
async function deliver(
  script: readonly (Fault | null)[],
): Promise<{ hits: OutcomeId[]; total: string; states: string[] }> {
  const clock = manualClock();
  const pipeline = createMemoryPipeline(clock);
  const emulator = await startEmulator(clock);
  const proxy = await startFaultyProxy(emulator.url);
  proxy.script.push(...script);
  const metrics = createMetrics();
  const stripe = (account: { secretKey: string }) =>
    createStripeApi({ ...account, apiUrl: proxy.url, connectionsMax: 4, attemptMs: 300 });
  const reporter = startReporter(
    { control: ledger.control, analytics: pipeline.analytics, clock, metrics, stripe },
    { STRIPE_API_URL: proxy.url },
  );
  await pipeline.activate("tokens");
  await pipeline.use([{ customer: "a", at: clock.now() - 3 * HOUR_MS, quantity: "42.5" }]);
  await pipeline.progress(clock.now());
  const hits: OutcomeId[] = [];
  // At most twelve rounds of six minutes: back-off, a stopped account and both readings of a proof fit well within.
  for (let round = 0; round < 12; round += 1) {
    await reporter.runOnce();
    const values = (await metrics.getSingleMetric("tallyhouse_reporter_sends_total")?.get())?.values ?? [];
    for (const { labels } of values) {
      const outcome = labels["outcome"] as OutcomeId;
      if (!hits.includes(outcome)) hits.push(outcome);
    }
    const [account] = reporter.status().accounts;
    if (account?.waitingBuckets?.due === 0 && Object.keys(account.unfinishedRows).length === 0) break;
    clock.advance(6 * MINUTE_MS);
  }
  const totals = await stripeTotals(emulator);
  const rows = await ledger.control.query<{ state: string }>("SELECT state FROM usage_report ORDER BY id");
  const truth = await emulator.truth();
  const counted = truth.events.filter((event) => event.fate === "counted").map((event) => event.identifier);
  expect(new Set(counted).size).toBe(counted.length);
  await reporter.close();
  await proxy.close();
  await emulator.close();
  return { hits, total: totals["th_tokens_v1 a"] ?? "0", states: rows.map((row) => row.state) };
}

/** Each script must hit exactly these outcomes; all but the refused row end accepted with the exact total. */
const CELLS: Record<string, { script: (Fault | null)[]; hits: OutcomeId[] }> = {
  "O01 answered": { script: [], hits: ["O01"] },
  "O02 duplicate after a 500 that had been executed": { script: [after(FAILED)], hits: ["O08", "O02"] },
  "O03 duplicate of an event nobody remembers sending, not counted": {
    script: [before(DUPLICATE)],
    hits: ["O03", "O01"],
  },
  "O03 duplicate of an event nobody remembers sending, counted": { script: [after(DUPLICATE)], hits: ["O03"] },
  "O03 duplicate again after the proof of absence": {
    script: [before(DUPLICATE), before(DUPLICATE)],
    hits: ["O03", "O01"],
  },
  "O05 unauthorised, not executed": { script: [before(UNAUTHORISED)], hits: ["O05", "O01"] },
  "O05 unauthorised, executed": { script: [after(UNAUTHORISED)], hits: ["O05", "O03"] },
  "O05 unauthorised after a doubt": { script: [after(FAILED), before(UNAUTHORISED)], hits: ["O08", "O05", "O02"] },
  "O06 limiter, not executed": { script: [before(LIMITED)], hits: ["O06", "O01"] },
  "O06 limiter, executed": { script: [after(LIMITED)], hits: ["O06", "O01"] },
  "O06 conflict, not executed": { script: [before(CONFLICT)], hits: ["O06", "O01"] },
  "O07 limiter after a doubt, not executed": { script: [before(FAILED), before(LIMITED)], hits: ["O08", "O07", "O01"] },
  "O07 limiter after a doubt, executed": { script: [after(FAILED), before(LIMITED)], hits: ["O08", "O07", "O02"] },
  "O07 limiter behind a reset that the client repeated by itself": {
    script: [after(RESET), before(LIMITED)],
    hits: ["O07", "O01"],
  },
  "O08 stored 500, not executed": { script: [before(FAILED)], hits: ["O08", "O01"] },
  "O08 500 without an error document": { script: [before(NO_ERROR_500)], hits: ["O08", "O01"] },
  "O09 two resets, not executed": { script: [before(RESET), before(RESET)], hits: ["O09", "O01"] },
  "O09 two resets, executed": { script: [after(RESET), after(RESET)], hits: ["O09", "O01"] },
  "O09 truncated body, executed": { script: [after(TRUNCATED)], hits: ["O09", "O01"] },
  "O09 silence, not executed": { script: [before(SILENCE)], hits: ["O09", "O01"] },
  "O09 silence, executed": { script: [after(SILENCE)], hits: ["O09", "O01"] },
  "O09 a 400 that cannot be read, executed": { script: [after(HTML_400)], hits: ["O09", "O01"] },
};

describe("one meter event under every answer of Stripe", () => {
  it.each(Object.entries(CELLS))("G2 G5 %s", async (_name, { script, hits }) => {
    const result = await deliver(script);
    expect(result.hits).toEqual(hits);
    expect(result.total).toBe("42.5");
    expect(result.states.filter((state) => state !== "void")).toEqual(["accepted"]);
  });

  it("O04 a refusal blocks its pair and is not repeated", async () => {
    const result = await deliver([before(REFUSED)]);
    expect(result).toEqual({ hits: ["O04"], total: "0", states: ["rejected_sync"] });
  });

  it("G5 a row called a duplicate but absent twice over gives its quantity to a new minute", async () => {
    const result = await deliver([before(DUPLICATE), before(DUPLICATE)]);
    expect(result.states).toEqual(["void", "accepted"]);
    expect(result.total).toBe("42.5");
  });

  it("covers O01 to O09", () => {
    const covered = new Set(Object.values(CELLS).flatMap((cell) => cell.hits));
    expect([...covered, "O04"].toSorted()).toEqual(["O01", "O02", "O03", "O04", "O05", "O06", "O07", "O08", "O09"]);
  });
});
