import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import {
  type AnalyticsStore,
  type ControlStore,
  floorTo,
  formatQuantity,
  type Mode,
  parseQuantity,
  windowStartOf,
} from "@tallyhouse/domain";
import { migratePostgres, openPglite } from "@tallyhouse/postgres";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { startStripeEmulator, type StripeEmulator, type StripeEmulatorOptions } from "@tallyhouse/stripe-emulator";
import { buildReporter, type Reporter, type ReporterPorts } from "./app.ts";
import { type ReporterConfig, ReporterConfigSchema } from "./config.ts";

export const TEST_KEY = "sk_test_reporter";
export const LIVE_KEY = "sk_live_reporter";
const BOOKING_WINDOW_SECONDS = 900;
const PARTITION_COUNT = 2;
const INFRA = join(import.meta.dirname, "../../../infra");

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

/** The real embedded stores, opened once per test file. */
export interface Stores {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  /** Empties every table the reporter reads or writes. */
  reset(): Promise<void>;
  close(): Promise<void>;
}

export async function openStores(): Promise<Stores> {
  const folder = await mkdtemp(join(tmpdir(), "reporter-"));
  const clickhouse = await openClickHouse({ path: join(folder, "clickhouse") });
  const postgres = await openPglite({ path: join(folder, "postgres") });
  await migrateClickHouse(clickhouse.store, join(INFRA, "clickhouse"));
  await migratePostgres(postgres.store, join(INFRA, "postgres"));
  return {
    analytics: clickhouse.store,
    control: postgres.store,
    async reset() {
      await postgres.store.execute(
        "TRUNCATE usage_report, report_due, reporter_state, stripe_meter_map, stripe_customer_map",
      );
      for (const table of ["rollup", "progress", "control_records"]) {
        await clickhouse.store.execute(`TRUNCATE TABLE ${table}`);
      }
    },
    async close() {
      await clickhouse.close();
      await postgres.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

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
