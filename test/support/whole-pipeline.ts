/** Every part but the gateway on embedded stores, in one process, with a clock that a test moves: for what takes hours. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { buildConsole, ConsoleConfigSchema } from "@tallyhouse/console";
import {
  type ControlKey,
  encodeUsageEvent,
  floorTo,
  HOUR_MS,
  partitionOfEvent,
  recordKeyOf,
  type UsageEvent,
} from "@tallyhouse/domain";
import { openEmbeddedLog } from "@tallyhouse/eventlog";
import { migratePostgres, openPglite } from "@tallyhouse/postgres";
import { buildReporter, ReporterConfigSchema } from "@tallyhouse/reporter";
import { type Clock, type Component, createLogger, createMetrics } from "@tallyhouse/runtime";
import { startStripeEmulator } from "@tallyhouse/stripe-emulator";
import { until, usageEvent } from "@tallyhouse/testkit";

const INFRA = new URL("../../infra/", import.meta.url).pathname;
const CONTROL_KEY: ControlKey = { name: "test", secret: Buffer.from("signing key of this test") };
const STREAM = {
  streamId: 1,
  partitionCount: 2,
  bookingWindowSeconds: 5,
  hashSeed: Buffer.from("0123456789abcdef"),
};
const WAIT_MS = 60_000;

/** A component that runs until it is told to stop; `ended` says what it died of, null for nothing. */
interface Running {
  readonly ended: Promise<unknown>;
  stop(): Promise<unknown>;
}

/** Runs a component as a process would. */
export function running(component: Component): Running {
  const stop = new AbortController();
  const ended = component.run(stop.signal).then(
    () => null,
    (error: unknown) => error,
  );
  return {
    ended,
    stop: () => {
      stop.abort();
      return ended;
    },
  };
}

export type Pipeline = Awaited<ReturnType<typeof startPipeline>>;

/**
 * Starts stores, log, aggregator, reporter and emulator, and a console that is not running: {@link running} starts its outbox and its
 * sweeper. The clock of the log is two days behind; `nextHour` moves it, and Stripe's clock is the machine's.
 */
export async function startPipeline(options: { readonly horizonHours: number; readonly maxAgeHours: number }) {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-pipeline-"));
  const clickhouse = await openClickHouse({ path: join(folder, "clickhouse") });
  const postgres = await openPglite({ path: join(folder, "postgres") });
  await migrateClickHouse(clickhouse.store, `${INFRA}clickhouse`);
  await migratePostgres(postgres.store, `${INFRA}postgres`);
  const startedAt = performance.now();
  let base = floorTo(Date.now(), HOUR_MS) - 48 * HOUR_MS;
  // Half a day away: whatever the time of day, no nightly sweep comes before the one that a test asks for.
  const sweepHour = (Math.floor(base / HOUR_MS) + 12) % 24;
  const clock: Clock = { now: () => base + Math.floor(performance.now() - startedAt) };
  const opened = await openEmbeddedLog({
    folder: join(folder, "log"),
    name: "pipeline",
    partitionCount: STREAM.partitionCount,
    clock,
  });
  const emulator = await startStripeEmulator({ limits: "off" });
  const { log } = opened;
  const shared = {
    log,
    analytics: clickhouse.store,
    control: postgres.store,
    clock,
    random: () => 0.5,
    logger: createLogger({ level: "silent", name: "test" }),
  };
  const aggregator = buildAggregator(
    {
      ...AggregatorConfigSchema.parse({ FLUSH_INTERVAL_MS: 20 }),
      DEDUPE_HORIZON_HOURS: options.horizonHours,
      MAX_AGE_HOURS: options.maxAgeHours,
      // The clock jumps.
      FORWARD_CLOCK_MAX_SECONDS: 1_000_000,
      stream: STREAM,
      controlKeys: [CONTROL_KEY],
    },
    { ...shared, metrics: createMetrics() },
  );
  const reporter = buildReporter(
    {
      ...ReporterConfigSchema.parse({
        STRIPE_LIVE_SECRET_KEY: "sk_live_pipeline",
        STRIPE_API_URL: emulator.url,
        REPORT_AUTO_MAP: "true",
        REPORT_INTERVAL_MS: 100,
        REPORT_LATENESS_SECONDS: 0,
      }),
      stream: STREAM,
    },
    { ...shared, metrics: createMetrics() },
  );
  const parts = [running(aggregator), running(reporter)];

  /** A console on the given ports; the shared ones where none are given. */
  const openConsole = async (ports: Partial<Pick<typeof shared, "control" | "log">> = {}) => {
    const { app, outbox, sweeper } = await buildConsole(
      {
        ...ConsoleConfigSchema.parse({ CONSOLE_OUTBOX_POLL_MS: 10, CONSOLE_SWEEP_HOUR: sweepHour }),
        stream: STREAM,
        controlKey: CONTROL_KEY,
      },
      {
        ...shared,
        ...ports,
        metrics: createMetrics(),
        authenticator: { verify: () => Promise.resolve({ mode: "live" }) },
      },
    );
    const headers = { authorization: "Bearer operator" };
    return {
      outbox,
      sweeper,
      async get(url: string): Promise<Record<string, unknown>> {
        return (await app.inject({ url, headers })).json();
      },
      async post(url: string, payload: object): Promise<{ status: number; body: Record<string, unknown> }> {
        const answer = await app.inject({ method: "POST", url, headers, payload });
        return { status: answer.statusCode, body: answer.json() };
      },
      close: () => app.close(),
    };
  };

  return {
    ...shared,
    emulator,
    stream: STREAM,
    openConsole,
    /** Appends usage events as a producer would: `input_tokens` of llm.request, at an instant. */
    async send(events: readonly (Partial<UsageEvent> & { readonly occurredAt: number })[]): Promise<void> {
      await log.append(
        events.map((given) => {
          const event = usageEvent(given);
          const partition = partitionOfEvent(event, STREAM.partitionCount);
          return { partition, key: recordKeyOf(event), value: encodeUsageEvent(event, {}), headers: {} };
        }),
      );
    },
    /** Everything that is in the log is stored. */
    async untilStored(): Promise<void> {
      const ends = await Promise.all([0, 1].map((partition) => log.bounds(partition)));
      await until(
        () =>
          Promise.resolve(
            aggregator
              .status()
              .partitions.every(
                ({ partition, storedOffset }) => (storedOffset ?? 0) >= (ends[partition]?.endOffset ?? 0),
              ),
          ),
        { timeoutMs: WAIT_MS, what: "the log is stored" },
      );
    },
    /** Moves the clock to ten seconds after the next full hour: silent partitions tick, and the reporter may report the hour. */
    nextHour(): void {
      const now = clock.now();
      base += floorTo(now, HOUR_MS) + HOUR_MS + 10_000 - now;
    },
    /** The sum that Stripe's meter holds for the customer, all hours together. */
    async atStripe(customer: string, meter: string): Promise<string> {
      const [mapped] = await postgres.store.query<{ stripe_customer_id: string | null }>(
        "SELECT stripe_customer_id FROM stripe_customer_map WHERE customer_id = $1",
        [customer],
      );
      const { totals } = await emulator.truth();
      const total = totals.find(
        (each) => each.event_name === `th_${meter}_v1` && each.customer === mapped?.stripe_customer_id,
      );
      return total?.sum ?? "0";
    },
    /** What kept the parts from running; empty when nothing did. */
    async close(): Promise<unknown[]> {
      const errors = await Promise.all(parts.map((part) => part.stop()));
      await opened.close();
      await emulator.close();
      await postgres.close();
      await clickhouse.close();
      await rm(folder, { recursive: true, force: true });
      return errors.filter((error) => error !== null);
    },
  };
}
