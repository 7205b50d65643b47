/** One hour of usage of many customers, ready to be reported: rollups as the fold leaves them, and a Stripe that accepts. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import {
  type AnalyticsStore,
  assert,
  type ControlStore,
  DAY_MS,
  floorTo,
  HOUR_MS,
  parseQuantity,
} from "@tallyhouse/domain";
import { migratePostgres, openControlStore } from "@tallyhouse/postgres";
import type { ReporterPorts } from "@tallyhouse/reporter";
import { meterVersion } from "@tallyhouse/testkit";

const INFRA = fileURLToPath(new URL("../../infra", import.meta.url));
export const REPORT_STREAM = { streamId: 1, partitionCount: 16, bookingWindowSeconds: 900 };
const MODE = "test";
/** As the reporter names an account behind STRIPE_API_URL. */
const ACCOUNT = "emulator";

type StripeApi = ReturnType<NonNullable<ReporterPorts["stripe"]>>;

/** Stores in which every pair of `customers` and `meters` has usage in one hour that has ended. */
export interface Hour {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly pairs: number;
  readonly nowAt: number;
  /** How what was sent, by event name, differs from what is stored; null: not at all. */
  differenceFrom(sent: ReadonlyMap<string, bigint>): Promise<string | null>;
  close(): Promise<void>;
}

/** Opens a fresh folder, or the servers of CLICKHOUSE_URL and POSTGRES_URL, which must be empty. */
export async function openHour(
  folder: string,
  size: { readonly customers: number; readonly meters: number; readonly seed: number },
): Promise<Hour> {
  const { CLICKHOUSE_URL: clickhouseUrl, POSTGRES_URL: postgresUrl } = process.env;
  const clickhouse = await openClickHouse(
    clickhouseUrl === undefined ? { path: join(folder, "clickhouse") } : { url: clickhouseUrl },
  );
  const postgres = await openControlStore(
    postgresUrl === undefined ? { path: join(folder, "postgres") } : { url: postgresUrl },
  );
  const { store: analytics } = clickhouse;
  await migrateClickHouse(analytics, join(INFRA, "clickhouse"));
  await migratePostgres(postgres.store, join(INFRA, "postgres"));
  const hourAt = floorTo(Date.UTC(2026, 9, 1), DAY_MS) + 10 * HOUR_MS;
  const nowAt = hourAt + 2 * HOUR_MS;
  const meters = Array.from({ length: size.meters }, (_, n) => meterVersion({ mode: MODE, meter: `meter_${n}` }));
  for (const version of meters) await storeMeter(analytics, { version, hourAt, ...size });
  const partitions = Array.from({ length: REPORT_STREAM.partitionCount }, (_, partition) => partition);
  await analytics.insert({
    table: "progress",
    columns: ["stream", "logPartition", "nextOffset", "logClock", "lastRecord", "counted", "writer", "storedAt"],
    rows: partitions.map((partition) => [1, partition, 1_000_000, nowAt, 0, 0, "bench", nowAt]),
  });
  await mapEverything(postgres.store, { meters: meters.map(({ meter }) => meter), customers: size.customers, nowAt });
  return {
    analytics,
    control: postgres.store,
    pairs: size.customers * size.meters,
    nowAt,
    async differenceFrom(sent) {
      const rows = await analytics.select<{ name: string; quantity: string }>(
        "SELECT concat('th_', meter, '_v1') AS name, toString(sum(sumQty)) AS quantity FROM usage GROUP BY name ORDER BY name",
      );
      const stored = rows.map(({ name, quantity }) => `${name} ${parseQuantity(quantity) ?? ""}`).join();
      const found = [...sent]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, quantity]) => `${name} ${quantity}`)
        .join();
      return stored === found ? null : `${stored} is stored, ${found} was sent`;
    },
    async close() {
      await clickhouse.close();
      await postgres.close();
    },
  };
}

/** Four windows of each customer, in one of the partitions each. */
async function storeMeter(
  analytics: AnalyticsStore,
  input: { version: ReturnType<typeof meterVersion>; hourAt: number; customers: number; seed: number },
): Promise<void> {
  const { version, hourAt, customers, seed } = input;
  const { meter } = version;
  const quantity = `toDecimal128(1 + cityHash64(${seed}, number) % 4000, 9)`;
  const partitions = Array.from({ length: REPORT_STREAM.partitionCount }, (_, partition) => partition);
  const [, numberText = "0"] = meter.split("_");
  await analytics.insert({
    table: "control_records",
    columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
    rows: partitions.map((partition) => [
      1,
      partition,
      Number(numberText),
      hourAt,
      "meter.activate",
      "",
      JSON.stringify(version),
    ]),
  });
  await analytics.insert({
    table: "backfills",
    columns: ["stream", "logPartition", "mode", "meter", "meterVersion", "ver"],
    rows: partitions.map((partition) => [1, partition, MODE, meter, 1, 0]),
  });
  await analytics.execute(`INSERT INTO rollup (mode, customer, meter, meterVersion, windowStart, dims, stream, logPartition, lane, bookedStart,
      ver, counted, voided, sumQty, minQty, maxQty, lastQty, lastAt, lastOffset)
    SELECT '${MODE}', concat('cus_', leftPad(toString(intDiv(number, 4)), 6, '0')), '${meter}', 1,
      toDateTime(${hourAt / 1_000} + (number % 4) * 900, 'UTC') AS windowStart, [], 1, number % 16, 0, windowStart, number + 2,
      1, 0, ${quantity}, ${quantity}, ${quantity}, ${quantity}, toDateTime64(windowStart, 3, 'UTC'), number + 1
    FROM numbers(${customers * 4})`);
}

/** Customers and meters as the mapping leaves them, once Stripe knows them. */
async function mapEverything(
  control: ControlStore,
  input: { meters: readonly string[]; customers: number; nowAt: number },
): Promise<void> {
  const now = new Date(input.nowAt).toISOString();
  await control.query(
    `INSERT INTO stripe_customer_map (mode, stripe_account, customer_id, stripe_customer_id, state, idempotency_key, key_created_at, created_at)
     SELECT $1, $2, 'cus_' || lpad(n::text, 6, '0'), 'cus_Stripe' || n, 'active', 'key-' || n, $3::timestamptz, $3::timestamptz
     FROM generate_series(0, $4::int - 1) AS n`,
    [MODE, ACCOUNT, now, input.customers],
  );
  for (const meter of input.meters) {
    await control.query(
      `INSERT INTO stripe_meter_map (mode, stripe_account, feed_id, meter, meter_version, event_name, stripe_meter_id, state, idempotency_key, created_at)
       VALUES ($1, $2, $3, $4, 1, $5, $6, 'active', $7, $8::timestamptz)`,
      [MODE, ACCOUNT, `${meter}_v1`, meter, `th_${meter}_v1`, `mtr_${meter}`, `key-${meter}`, now],
    );
  }
}

/** Accepts every meter event in the next turn, and adds up what it was sent. */
export function acceptingStripe(): {
  readonly api: StripeApi;
  onFirstCall(listener: () => void): void;
  quantities(): ReadonlyMap<string, bigint>;
} {
  const quantities = new Map<string, bigint>();
  let first: (() => void) | null = null;
  const unexpected = (): Promise<never> => Promise.reject(new Error("everything is mapped and nothing is in doubt"));
  return {
    api: {
      async send({ eventName, value }) {
        first?.();
        first = null;
        const quantity = parseQuantity(value);
        assert(quantity !== null, `a quantity: ${value}`);
        quantities.set(eventName, (quantities.get(eventName) ?? 0n) + quantity);
        return {
          kind: "accepted",
          networkAttempts: 1,
          requestId: "req_bench",
          errorCode: null,
          errorMessage: null,
          isLimiter: false,
        };
      },
      minuteTotal: unexpected,
      listMeters: unexpected,
      createMeter: unexpected,
      createCustomer: unexpected,
      listCustomersSince: unexpected,
      close: () => undefined,
    },
    onFirstCall(listener) {
      first = listener;
    },
    quantities: () => quantities,
  };
}
