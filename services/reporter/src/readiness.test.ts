import { type AnalyticsStore, type ControlStore, TallyhouseError } from "@tallyhouse/domain";
import { createMetrics } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { readReadiness } from "./readiness.ts";
import { manualClock, startReporter } from "./test-support.ts";

test("G9 rounds that do nothing but fail make the reporter unready after 20 s, and the store is named at once", async () => {
  const clock = manualClock();
  const metrics = createMetrics();
  const answer = <Row>(): Promise<Row[]> =>
    Promise.reject(new TallyhouseError({ code: "STORE_UNAVAILABLE", action: "retry", message: "away" }));
  const analytics: AnalyticsStore = {
    insert: async () => void (await answer()),
    select: answer,
    scan: async () => void (await answer()),
    execute: async () => {},
  };
  const control: ControlStore = {
    query: () => Promise.resolve([]),
    transaction: (body) => body(control),
    execute: async () => {},
  };
  const reporter = startReporter({ analytics, control, clock, metrics }, { REPORT_INTERVAL_MS: "10" });
  const stop = new AbortController();
  const ran = reporter.run(stop.signal);
  await until(async () => (await metrics.metrics()).includes("tallyhouse_reporter_failed_rounds_total 1"));
  const ports = { analytics, control, clock };
  expect(await readReadiness(reporter, ports)).toMatchObject({
    isReady: false,
    parts: { reporter: "ok", analyticsStore: "unavailable", controlStore: "ok" },
  });
  clock.advance(20_000);
  expect((await readReadiness(reporter, ports)).parts).toMatchObject({ reporter: "no round succeeds" });
  stop.abort();
  await ran;
});
