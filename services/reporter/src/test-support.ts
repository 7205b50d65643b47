import {
  type AnalyticsStore,
  floorTo,
  formatQuantity,
  HOUR_MS,
  type Mode,
  parseQuantity,
  windowStartOf,
} from "@tallyhouse/domain";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { startStripeEmulator, type StripeEmulator, type StripeEmulatorOptions } from "@tallyhouse/stripe-emulator";
import { buildReporter, type Reporter, type ReporterPorts } from "./app.ts";
import { type ReporterConfig, ReporterConfigSchema } from "./config.ts";

export const TEST_KEY = "sk_test_reporter";
export const LIVE_KEY = "sk_live_reporter";
const BOOKING_WINDOW_SECONDS = 900;
const PARTITION_COUNT = 2;

/** A clock that only the test moves. Starts at 2026-11-20T10:00:00Z. */
export function manualClock(startAt = Date.UTC(2026, 10, 20, 10)) {
  let nowAt = startAt;
  return {
    now: () => nowAt,
    advance(ms: number): void {
      nowAt += ms;
    },
  };
}
export type ManualClock = ReturnType<typeof manualClock>;

interface Use {
  readonly customer: string;
  readonly at: number;
  readonly quantity: string;
  readonly meter?: string;
  readonly mode?: Mode;
  readonly dims?: readonly string[];
}

/** What the aggregator would have written: rollups, progress, activations; and the totals as the test knows them. */
export interface Pipeline {
  activate(meter: string, rule?: { aggregation?: string; mode?: Mode; version?: number }): Promise<void>;
  use(uses: readonly Use[]): Promise<void>;
  /** Every partition has stored everything booked before the instant; `partitions` leaves the others without a row. */
  progress(clockAt: number, partitions?: number): Promise<void>;
}

const ROLLUP_COLUMNS = (
  "mode customer meter meterVersion windowStart dims stream logPartition lane bookedStart ver " +
  "counted voided sumQty minQty maxQty lastQty lastAt lastOffset"
).split(" ");

interface Rollup {
  readonly use: Required<Use>;
  readonly bookedAt: number;
  readonly windowAt: number;
  counted: bigint;
  sum: bigint;
}

/** Writes what the aggregator would have written: cumulative values per key, the highest `ver` wins. */
export function createPipeline(analytics: AnalyticsStore, clock: ManualClock): Pipeline {
  const rollups = new Map<string, Rollup>();
  const partitions = Array.from({ length: PARTITION_COUNT }, (_, partition) => partition);
  let offset = 1;
  return {
    async activate(meter, rule = {}) {
      const { aggregation = "sum", mode = "test", version = 1 } = rule;
      const body = JSON.stringify({ mode, meter, version, rule: { key: meter, aggregation } });
      offset += 1;
      await analytics.insert({
        table: "control_records",
        columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
        rows: partitions.map((partition) => [1, partition, offset, clock.now(), "meter.activate", "", body]),
      });
    },
    async use(uses) {
      const dirty = new Set(uses.map((use) => addUse(rollups, use, clock.now())));
      offset += 1;
      const rows = [...dirty].map(({ bookedAt, counted, sum: scaled, use, windowAt }) => {
        const sum = formatQuantity(scaled);
        const key = [
          use.mode,
          use.customer,
          use.meter,
          1,
          windowAt / 1_000,
          use.dims,
          1,
          0,
          0,
          bookedAt / 1_000,
          offset,
        ];
        return [...key, counted, 0, sum, sum, sum, sum, windowAt, 0];
      });
      await analytics.insert({ table: "rollup", columns: ROLLUP_COLUMNS, rows });
    },
    async progress(clockAt, count = PARTITION_COUNT) {
      offset += 1;
      await analytics.insert({
        table: "progress",
        columns: ["stream", "logPartition", "nextOffset", "logClock", "lastRecord", "counted", "writer", "storedAt"],
        rows: partitions.slice(0, count).map((partition) => [1, partition, offset, clockAt, 0, 0, "test", 0]),
      });
    },
  };
}

function addUse(rollups: Map<string, Rollup>, given: Use, nowAt: number): Rollup {
  const use = { meter: "tokens", mode: "test" as const, dims: [], ...given };
  const bookedAt = floorTo(nowAt, BOOKING_WINDOW_SECONDS * 1_000);
  const windowAt = windowStartOf(use.at);
  const key = JSON.stringify([use.mode, use.customer, use.meter, windowAt, use.dims, bookedAt]);
  const rollup = rollups.get(key) ?? { counted: 0n, sum: 0n, use, bookedAt, windowAt };
  rollups.set(key, rollup);
  rollup.counted += 1n;
  rollup.sum += parseQuantity(use.quantity) ?? 0n;
  return rollup;
}

/**
 * The same without ClickHouse, for tests that start hundreds of lives: knows the reporter's four questions by the table they
 * ask. The questions themselves run on the real engine in app.test.ts.
 */
export function createMemoryPipeline(clock: ManualClock): Pipeline & { readonly analytics: AnalyticsStore } {
  const rollups = new Map<string, Rollup>();
  const bodies: string[] = [];
  let logClock: number | null = null;
  const hourOf = (rollup: Rollup): number => floorTo(rollup.windowAt, HOUR_MS) / 1_000;
  const ofFeed = (params: Readonly<Record<string, unknown>>): Rollup[] =>
    [...rollups.values()].filter(({ use }) => use.mode === params["mode"] && use.meter === params["meter"]);
  const answer = (sql: string, params: Readonly<Record<string, unknown>>): object[] => {
    if (sql.includes("FROM progress"))
      return logClock === null ? [] : [{ partitions: PARTITION_COUNT, clock: logClock }];
    if (sql.includes("FROM control_records")) return bodies.map((body) => ({ body }));
    if (sql.includes("FROM rollup")) {
      const changed = ofFeed(params).filter((rollup) => rollup.bookedAt / 1_000 >= Number(params["since"]));
      return changed.map((rollup) => ({ customer: rollup.use.customer, hour: hourOf(rollup) }));
    }
    const sums = new Map<string, { customer: string; hour: number; sum: bigint }>();
    for (const rollup of ofFeed(params)) {
      const key = `${rollup.use.customer}/${hourOf(rollup)}`;
      const sum = (sums.get(key)?.sum ?? 0n) + rollup.sum;
      sums.set(key, { customer: rollup.use.customer, hour: hourOf(rollup), sum });
    }
    return [...sums.values()].map(({ customer, hour, sum }) => ({ customer, hour, quantity: formatQuantity(sum) }));
  };
  return {
    analytics: {
      insert: () => Promise.reject(new Error("the reporter does not write usage")),
      scan: () => Promise.reject(new Error("the reporter reads no millions of rows")),
      execute: () => Promise.reject(new Error("the reporter changes no table of the analytics store")),
      select: <Row>(sql: string, params: Readonly<Record<string, unknown>> = {}) =>
        Promise.resolve(answer(sql, params) as Row[]),
    },
    async activate(meter, rule = {}) {
      const { aggregation = "sum", mode = "test", version = 1 } = rule;
      bodies.push(JSON.stringify({ mode, meter, version, rule: { key: meter, aggregation } }));
    },
    async use(uses) {
      for (const use of uses) addUse(rollups, use, clock.now());
    },
    async progress(clockAt) {
      logClock = clockAt;
    },
  };
}

function testConfig(environment: Record<string, string> = {}): ReporterConfig {
  const parsed = ReporterConfigSchema.parse({
    STRIPE_TEST_SECRET_KEY: TEST_KEY,
    REPORT_AUTO_MAP: "true",
    SEND_RATE_PER_SECOND: "100000",
    CALL_RATE_PER_SECOND: "100000",
    STRIPE_API_URL: "http://127.0.0.1:1",
    ...environment,
  });
  const stream = { streamId: 1, partitionCount: PARTITION_COUNT, bookingWindowSeconds: BOOKING_WINDOW_SECONDS };
  return { ...parsed, stream };
}

/** A fresh reporter over the stores, as after a restart: nothing is carried over in memory. */
export function startReporter(
  ports: Pick<ReporterPorts, "analytics" | "control" | "clock"> & Partial<ReporterPorts>,
  environment: Record<string, string> = {},
): Reporter {
  return buildReporter(testConfig(environment), {
    random: () => 0.5,
    logger: createLogger({ level: "silent", name: "test" }),
    metrics: createMetrics(),
    ...ports,
  });
}

export function startEmulator(clock: ManualClock, options: StripeEmulatorOptions = {}): Promise<StripeEmulator> {
  return startStripeEmulator({ clock, limits: "off", seed: "reporter", ...options });
}

/** What Stripe counted, per event name and Tallyhouse customer. */
export async function stripeTotals(emulator: StripeEmulator): Promise<Record<string, string>> {
  const truth = await emulator.truth();
  const names = new Map(
    truth.customers.map((customer) => {
      const metadata = customer["metadata"] as Record<string, string>;
      return [customer.id, metadata["tallyhouse_customer"] ?? customer.id];
    }),
  );
  return Object.fromEntries(
    truth.totals.map((total) => [`${total.event_name} ${names.get(total.customer) ?? total.customer}`, total.sum]),
  );
}
