/** A console on real embedded stores, and a world that speaks to it as the aggregator would: used by tests alone. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import {
  type AnalyticsStore,
  type AnalyticsValue,
  type ControlStore,
  compileMeter,
  type EventLog,
  type LogRecord,
  type MeterVersion,
  type Mode,
  uniqueHashOf,
  type UsageEvent,
  windowStartOf,
} from "@tallyhouse/domain";
import { openMigratedPglite } from "@tallyhouse/postgres/test-template";
import { type Component, createLogger, createMetrics, type Registry } from "@tallyhouse/runtime";
import { usageEvent } from "@tallyhouse/testkit";
import type { FastifyInstance } from "fastify";
import { buildConsole, ConsoleConfigSchema } from "./app.ts";

export const LIVE_TOKEN = "svc_live_th_0123456789abcdef";
export const TEST_TOKEN = "svc_test_th_0123456789abcdef";
export const STREAM = { streamId: 1, partitionCount: 4, bookingWindowSeconds: 900 };
export const CONTROL_KEY = { name: "test", secret: Buffer.from("a signing key of tests") };
const INFRA = fileURLToPath(new URL("../../../infra", import.meta.url));

/** An event log that keeps what is appended, for the partition bounds and the outbox. */
export interface MemoryLog extends EventLog {
  readonly records: LogRecord[];
}

export function memoryLog(): MemoryLog {
  const records: LogRecord[] = [];
  return {
    name: "memory",
    partitionCount: STREAM.partitionCount,
    records,
    append(appended) {
      records.push(...appended);
      return Promise.resolve();
    },
    subscribe: () => Promise.reject(new Error("nobody reads this log")),
    seek: () => {},
    bounds: (partition) =>
      Promise.resolve({
        earliestOffset: 0,
        endOffset: records.filter((record) => record.partition === partition).length,
      }),
    commitAdvisory: () => Promise.resolve(),
  };
}

/** A clock that tests set. */
export interface TestClock {
  at: number;
  now(): number;
}

export interface TestConsole {
  readonly app: FastifyInstance;
  readonly outbox: Component;
  readonly sweeper: Component;
  readonly metrics: Registry;
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly log: MemoryLog;
  readonly clock: TestClock;
  /** GET as an operator of the mode; the answer parsed as JSON. */
  get(path: string, mode?: Mode): Promise<{ status: number; body: Record<string, unknown>; text: string }>;
  post(path: string, body: unknown, mode?: Mode): Promise<{ status: number; body: Record<string, unknown> }>;
  close(): Promise<void>;
}

/** Opens stores in a fresh folder, applies all migrations and builds the console on them. */
export async function openTestConsole(now: number): Promise<TestConsole> {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-console-"));
  const clickhouse = await openClickHouse({ path: join(folder, "clickhouse") });
  const postgres = await openMigratedPglite(join(folder, "postgres"), join(INFRA, "postgres"));
  await migrateClickHouse(clickhouse.store, join(INFRA, "clickhouse"));
  const log = memoryLog();
  const clock: TestClock = { at: now, now: () => clock.at };
  const modes = new Map<string, Mode>([
    [LIVE_TOKEN, "live"],
    [TEST_TOKEN, "test"],
  ]);
  const metrics = createMetrics();
  const { app, outbox, sweeper } = await buildConsole(
    { ...ConsoleConfigSchema.parse({ CONSOLE_OUTBOX_POLL_MS: 10 }), stream: STREAM, controlKey: CONTROL_KEY },
    {
      analytics: clickhouse.store,
      control: postgres.store,
      log,
      authenticator: {
        verify(token) {
          const mode = modes.get(token);
          return Promise.resolve(mode === undefined ? null : { mode });
        },
      },
      clock,
      logger: createLogger({ level: "silent", name: "console" }),
      metrics,
    },
  );
  const headersOf = (mode: Mode): Record<string, string> => ({
    authorization: `Bearer ${mode === "live" ? LIVE_TOKEN : TEST_TOKEN}`,
  });
  return {
    app,
    outbox,
    sweeper,
    metrics,
    analytics: clickhouse.store,
    control: postgres.store,
    log,
    clock,
    async get(path, mode = "live") {
      const answer = await app.inject({ url: path, headers: headersOf(mode) });
      return { status: answer.statusCode, body: answer.json(), text: answer.payload };
    },
    async post(path, body, mode = "live") {
      const answer = await app.inject({ method: "POST", url: path, headers: headersOf(mode), payload: body as object });
      return { status: answer.statusCode, body: answer.json() };
    },
    async close() {
      await app.close();
      await postgres.close();
      await clickhouse.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** One usage event where and when the log holds it. */
export interface Counted {
  readonly partition: number;
  readonly offset: number;
  readonly event: UsageEvent & { readonly occurredAt: number };
}

/** Activations stand below it in every partition, usage events from it on. */
export const FIRST_EVENT_OFFSET = 1_000;

/** A counted usage event of the default type; `data` decides what meters see. Offsets count from {@link FIRST_EVENT_OFFSET}. */
export function counted(
  place: { readonly partition?: number; readonly offset: number },
  event: Partial<UsageEvent> & { readonly occurredAt: number },
): Counted {
  const { partition = place.offset % STREAM.partitionCount } = place;
  const offset = FIRST_EVENT_OFFSET + place.offset;
  return {
    partition,
    offset,
    event: { ...usageEvent({ id: `evt-${offset}`, ...event }), occurredAt: event.occurredAt },
  };
}

/**
 * Stores activations in every partition, at the next offset that no other activation has, with nothing in front of them left to count;
 * or at the given offset, with the usage in front of it not counted yet.
 */
export async function activate(analytics: AnalyticsStore, version: MeterVersion, offset?: number): Promise<void> {
  const { mode, meter, rule } = version;
  const [known] = await analytics.select<{ records: string }>(
    `SELECT toString(uniqExact(logOffset)) AS records FROM control_records WHERE logOffset < ${FIRST_EVENT_OFFSET}`,
  );
  const body = JSON.stringify({ mode, meter, version: version.version, rule });
  await insert(
    analytics,
    "control_records",
    partitions().map((logPartition) => ({
      stream: STREAM.streamId,
      logPartition,
      logOffset: offset ?? Number(known?.records ?? 0),
      bookedAt: 0,
      kind: "meter.activate",
      target: "",
      body,
    })),
  );
  if (offset !== undefined) return;
  await insert(
    analytics,
    "backfills",
    partitions().map((logPartition) => ({
      stream: STREAM.streamId,
      logPartition,
      mode,
      meter,
      meterVersion: version.version,
      ver: 0,
    })),
  );
}

/**
 * Stores raw rows and rollup rows as a fold of these usage events would, quantities by the domain's rule: one rollup row per usage
 * event, each in a booking window of its own, so that a sum has something to join; and an older version of each, which must not count.
 */
export async function store(
  analytics: AnalyticsStore,
  events: readonly Counted[],
  meters: readonly MeterVersion[],
): Promise<void> {
  await insert(analytics, "raw_events", events.map(rawRowOf));
  const contributions = meters.flatMap((version) => {
    const compiled = compileMeter(version);
    return events.flatMap((entry) => {
      const { event } = entry;
      if (event.mode !== version.mode || event.type !== version.rule.eventType) return [];
      const contribution = compiled.contributionOf(event);
      if (contribution.kind !== "quantity" || event.occurredAt < compiled.fromAt) return [];
      return [{ row: rollupRowOf(entry, version, contribution), text: contribution.uniqueText }];
    });
  });
  const rows = contributions.map(({ row }) => row);
  await insert(
    analytics,
    "rollup",
    rows.map((row) => ({ ...row, ver: 0, counted: 3, sumQty: "77777", minQty: "-77777", maxQty: "77777" })),
  );
  await insert(analytics, "rollup", rows);
  await insert(
    analytics,
    "rollup_uniq",
    contributions.flatMap(({ row, text }) => (text === null ? [] : [uniqueRowOf(row, text)])),
  );
}

function uniqueRowOf(row: ReturnType<typeof rollupRowOf>, text: string): Record<string, AnalyticsValue> {
  const { mode, customer, meter, meterVersion, windowStart, dims, bookedStart } = row;
  return {
    mode,
    customer,
    meter,
    meterVersion,
    windowStart,
    dims,
    bookedStart,
    valueHash: uniqueHashOf(text).toString(),
  };
}

/** Stores one raw row; what is not given is that of a record without a usage event. */
export async function rawRow(
  analytics: AnalyticsStore,
  given: { readonly partition: number; readonly offset: number } & Readonly<Record<string, AnalyticsValue>>,
): Promise<void> {
  const { partition, offset, ...rest } = given;
  const none = { mode: "none", customer: "", source: "", id: "", type: "", occurredAt: 0, receivedAt: 0, decidedAt: 0 };
  const place = { stream: STREAM.streamId, logPartition: partition, logOffset: offset };
  await insert(analytics, "raw_events", [{ ...place, ...none, payloadHash: 0, ...rest }]);
}

/** The raw row of a counted usage event. */
export function rawRowOf({ partition, offset, event }: Counted): Record<string, AnalyticsValue> {
  return {
    stream: STREAM.streamId,
    logPartition: partition,
    logOffset: offset,
    mode: event.mode,
    customer: event.customer,
    source: event.source,
    id: event.id,
    type: event.type,
    occurredAt: event.occurredAt,
    receivedAt: event.occurredAt,
    bookedAt: event.occurredAt,
    decidedAt: 0,
    status: "counted",
    reason: "",
    payloadHash: 0,
    payload: JSON.stringify(event.data),
  };
}

function rollupRowOf(
  { partition, offset, event }: Counted,
  version: MeterVersion,
  contribution: { readonly quantity: bigint; readonly dims: readonly string[] },
) {
  const quantity = decimalOf(contribution.quantity);
  return {
    mode: event.mode,
    customer: event.customer,
    meter: version.meter,
    meterVersion: version.version,
    windowStart: windowStartOf(event.occurredAt) / 1_000,
    dims: contribution.dims,
    stream: STREAM.streamId,
    logPartition: partition,
    lane: 0,
    // Another one for each usage event, and booked as soon as it occurred.
    bookedStart: windowStartOf(event.occurredAt) / 1_000 + offset,
    ver: offset + 1,
    counted: 1,
    voided: 0,
    sumQty: quantity,
    minQty: quantity,
    maxQty: quantity,
    lastQty: quantity,
    lastAt: event.occurredAt,
    lastOffset: offset,
  };
}

/** Stores how far every partition is. */
export async function progress(
  analytics: AnalyticsStore,
  input: {
    readonly logClockAt: number;
    readonly nextOffset?: number;
    readonly counted?: number;
    readonly partitions?: readonly number[];
    readonly streamId?: number;
  },
): Promise<void> {
  const { logClockAt, nextOffset = 0, counted: countedEvents = 0, streamId = STREAM.streamId } = input;
  await insert(
    analytics,
    "progress",
    (input.partitions ?? partitions()).map((logPartition) => ({
      stream: streamId,
      logPartition,
      nextOffset,
      logClock: logClockAt,
      lastRecord: 0,
      counted: countedEvents,
      writer: "test",
      storedAt: 0,
    })),
  );
}

async function insert(
  analytics: AnalyticsStore,
  table: string,
  rows: readonly Readonly<Record<string, AnalyticsValue>>[],
): Promise<void> {
  const [first] = rows;
  if (first === undefined) return;
  await analytics.insert({ table, columns: Object.keys(first), rows: rows.map((row) => Object.values(row)) });
}

function partitions(): number[] {
  return Array.from({ length: STREAM.partitionCount }, (_, partition) => partition);
}

/** The scaled integer as plain decimal text, by string surgery alone. */
function decimalOf(scaled: bigint): string {
  const sign = scaled < 0n ? "-" : "";
  const digits = (scaled < 0n ? -scaled : scaled).toString().padStart(10, "0");
  return `${sign}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}
