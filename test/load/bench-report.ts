/**
 * `npm run bench:report -- --pairs N --customers N --seed S`: planning and sending of N (customer, meter) pairs with usage in one hour.
 * A reporter on the real stores: ClickHouse in the process or at CLICKHOUSE_URL, PostgreSQL in the process or at POSTGRES_URL. Customers
 * and meters are mapped already; Stripe is a function that accepts, so sending is the ledger's part of it. Planning ends with the
 * first call of Stripe: every row is committed by then. The last line is one JSON object with every figure.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { assert } from "@tallyhouse/domain";
import { buildReporter, ReporterConfigSchema, type ReporterPorts } from "@tallyhouse/reporter";
import { acceptingStripe, openHour, REPORT_STREAM } from "./stored-hour.ts";
import { numberOptions } from "./month-options.ts";
import { printFigures } from "./options.ts";
import { watchControl } from "./watch-control.ts";

const METERS = 2;
const { pairs, seed } = numberOptions({ pairs: 100_000, seed: 1 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-report-"));
try {
  const hour = await openHour(folder, { customers: Math.ceil(pairs / METERS), meters: METERS, seed });
  try {
    const stripe = acceptingStripe();
    const control = watchControl(hour.control);
    const config = ReporterConfigSchema.parse({
      STRIPE_TEST_SECRET_KEY: "sk_test_bench",
      STRIPE_API_URL: "http://127.0.0.1:1",
      SEND_RATE_PER_SECOND: "100000",
      CALL_RATE_PER_SECOND: "100000",
    });
    const ports: ReporterPorts = {
      analytics: hour.analytics,
      control: control.store,
      clock: { now: () => hour.nowAt },
      random: () => 0.5,
      logger: createLogger({ level: "error", name: "bench" }),
      metrics: createMetrics(),
      stripe: () => stripe.api,
    };
    const reporter = buildReporter({ ...config, stream: REPORT_STREAM }, ports);
    const cpuBefore = process.cpuUsage();
    const startedAt = performance.now();
    const planned = { seconds: 0, cpuMs: 0 };
    const cpuMs = (): number => {
      const { user, system } = process.cpuUsage(cpuBefore);
      return (user + system) / 1_000;
    };
    stripe.onFirstCall(() => {
      planned.seconds = (performance.now() - startedAt) / 1_000;
      planned.cpuMs = cpuMs();
      process.stderr.write(`planning\n${control.report()}`);
    });
    const round = await reporter.runOnce();
    const seconds = (performance.now() - startedAt) / 1_000;
    const allCpuMs = cpuMs();
    process.stderr.write(`sending\n${control.report()}`);
    const again = await reporter.runOnce();
    assert(
      round.planned === hour.pairs && round.accepted === hour.pairs,
      `every pair is reported: ${JSON.stringify(round)}`,
    );
    assert(again.planned === 0 && again.sent === 0, "a second round finds nothing to do");
    const difference = await hour.differenceFrom(stripe.quantities());
    assert(difference === null, `what was sent is what was stored: ${difference ?? ""}`);
    const perRow = (ms: number): number => Number(((ms * 1_000) / hour.pairs).toFixed(1));
    printFigures({
      bench: "report",
      seed,
      pairs: hour.pairs,
      planSeconds: Number(planned.seconds.toFixed(2)),
      planPairsPerSecond: Math.round(hour.pairs / planned.seconds),
      planCpuMicrosecondsPerPair: perRow(planned.cpuMs),
      sendSeconds: Number((seconds - planned.seconds).toFixed(2)),
      sendsPerSecond: Math.round(hour.pairs / (seconds - planned.seconds)),
      sendCpuMicrosecondsPerPair: perRow(allCpuMs - planned.cpuMs),
      rssMegabytes: Math.round(process.memoryUsage.rss() / 1e6),
      cores: cpus().length,
    });
    await reporter.close();
  } finally {
    await hour.close();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
