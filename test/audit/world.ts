/** A small, finished deployment on the real engine with everything in it that the auditor judges, and hands that alter its tables. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import {
  type AnalyticsStore,
  type ControlFact,
  type ControlKey,
  DAY_MS,
  encodeControl,
  encodeUsageEvent,
  type LogRecord,
  type MeterVersion,
  partitionOfEvent,
  recordKeyOf,
  type StreamIdentity,
  type StreamPredecessor,
  type UsageEvent,
} from "@tallyhouse/domain";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { MemoryLog, meterVersion, until, usageEvent } from "@tallyhouse/testkit";
import { type AuditInput, type AuditReport, runAudit } from "@tallyhouse/console";

export const PARTITIONS = 3;
const MIGRATIONS = new URL("../../infra/clickhouse", import.meta.url).pathname;
const KEY: ControlKey = { name: "test", secret: Buffer.from("signing key of this test") };
const MINUTE_MS = 60_000;
/** Of a wait that ends in seconds: the suite runs at low priority beside others (.ci/run), so only a hang takes longer. */
export const HANG_MS = 240_000;

/** The stream of these tests, and what the auditor is told of it. */
export const STREAM = { streamId: 1, partitionCount: PARTITIONS, bookingWindowSeconds: 900, predecessors: [] };
const AUDITED = {
  horizonSeconds: 840 * 3_600,
  maxAgeSeconds: 816 * 3_600,
  maxAheadSeconds: 300,
};

/** Half an hour before a midnight of the past: the traffic crosses it. */
export const STARTED_AT = Math.floor(Date.now() / DAY_MS) * DAY_MS - 2 * DAY_MS - 30 * MINUTE_MS;

export interface World {
  readonly analytics: AnalyticsStore;
  readonly log: MemoryLog;
  readonly stream: Omit<StreamIdentity, "hashSeed" | "predecessors"> & {
    readonly predecessors: readonly StreamPredecessor[];
  };
  readonly clock: { at: number; now(): number };
  audit(options?: Pick<AuditInput, "checks" | "rowsPerSlice">): Promise<AuditReport>;
  /** Appends records as received at this instant; the partition is the record's own. The reader that is named hears of it. */
  append(receivedAt: number, records: readonly LogRecord[], reader?: MemoryLog): void;
  /** Runs an aggregator until everything in the log is stored, and stops it. */
  fold(): Promise<void>;
  close(): Promise<void>;
}

/** Fresh tables and an empty log. The clock is that of the records, or the machine's when `isLive`. */
export async function openWorld(options: { bookingWindowSeconds?: number; isLive?: boolean } = {}): Promise<World> {
  const { bookingWindowSeconds = 900, isLive = false } = options;
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-audit-"));
  const opened = await openClickHouse({ path: join(folder, "clickhouse") });
  await migrateClickHouse(opened.store, MIGRATIONS);
  const clock = { at: STARTED_AT, now: () => (isLive ? Date.now() : clock.at) };
  const close = async (): Promise<void> => {
    await opened.close();
    await rm(folder, { recursive: true });
  };
  return worldOf({ ...STREAM, bookingWindowSeconds }, { analytics: opened.store, clock, close });
}

/** A new, empty log whose stream goes on from the one of a world, in the same tables, which the older world closes. */
export function successorOf(before: World, partitionCount: number, isLost = false): World {
  const { streamId, predecessors } = before.stream;
  const stream = {
    ...before.stream,
    streamId: streamId + 1,
    partitionCount,
    predecessors: [...predecessors, { streamId, partitionCount: before.stream.partitionCount, isLost }],
  };
  return worldOf(stream, { analytics: before.analytics, clock: before.clock, close: () => Promise.resolve() });
}

function worldOf(
  stream: World["stream"],
  { analytics, clock, close }: Pick<World, "analytics" | "clock" | "close">,
): World {
  const log = new MemoryLog({ partitionCount: stream.partitionCount, clock, batchRecordsMax: 50 });
  const world: World = {
    analytics,
    log,
    stream,
    clock,
    audit: (auditOptions = {}) =>
      runAudit({ analytics, log }, { stream: { ...AUDITED, ...stream }, redirectWaitMs: 0, ...auditOptions }),
    append(receivedAt, records, reader = log) {
      clock.at = Math.max(clock.at, receivedAt);
      for (const record of records) reader.appendAt(receivedAt, record);
    },
    async fold() {
      const aggregator = runAggregator(world, analytics);
      await until(aggregator.isStored, { timeoutMs: HANG_MS, what: "everything is stored" });
      aggregator.stop();
      await aggregator.ended;
    },
    close,
  };
  return world;
}

/** An aggregator on a reader of its own; `stop` is not waited for. */
export function runAggregator(world: World, analytics: AnalyticsStore) {
  const reader = world.log.reader();
  const aggregator = buildAggregator(
    {
      ...AggregatorConfigSchema.parse({ FLUSH_INTERVAL_MS: 50 }),
      stream: { ...world.stream, hashSeed: Buffer.from("0123456789abcdef") },
      controlKeys: [KEY],
    },
    {
      log: reader,
      analytics,
      clock: world.clock,
      random: () => 0.5,
      logger: createLogger({ level: "silent", name: "test" }),
      metrics: createMetrics(),
    },
  );
  const stopper = new AbortController();
  const ended = aggregator.run(stopper.signal).finally(() => reader.close());
  return {
    ended,
    reader,
    isStored: (): boolean => {
      const { partitions, isReady } = aggregator.status();
      return (
        isReady && partitions.every(({ partition, storedOffset }) => storedOffset === reader.entries(partition).length)
      );
    },
    stop: () => stopper.abort(),
  };
}

/** The record of a usage event where it belongs, or in a wrong partition. */
export function recordOf(event: UsageEvent, partition = partitionOfEvent(event, PARTITIONS)): LogRecord {
  return { partition, key: recordKeyOf(event), value: encodeUsageEvent(event, {}), headers: {} };
}

/** One control record, or one for every partition. */
export function controlOf(fact: ControlFact, partition?: number, partitionCount = PARTITIONS): LogRecord[] {
  const partitions = partition === undefined ? Array.from({ length: partitionCount }, (_, n) => n) : [partition];
  return partitions.map((each) => encodeControl({ fact, partition: each, key: KEY }));
}

/** Names, nesting, a list's element, and a name of its own with everything that has a meaning elsewhere. */
export const dimensions = { model: "/model", where: "/at/region", first: "/tags/0", odd: "/a~1b.c'd~0" };

/** Every aggregation, with dimensions, conditions of each kind and a pointer of each kind. */
export const METERS: readonly MeterVersion[] = [
  meterVersion({ meter: "tokens", rule: { dimensions } }),
  meterVersion({ meter: "calls", rule: { aggregation: "count", value: undefined } }),
  meterVersion({ meter: "smallest", rule: { aggregation: "min", dimensions: { model: "/model" } } }),
  meterVersion({ meter: "largest", rule: { aggregation: "max" } }),
  meterVersion({ meter: "newest", rule: { aggregation: "latest", value: "/gauge" } }),
  meterVersion({
    meter: "users",
    rule: { aggregation: "unique_count", value: "/user", dimensions: { model: "/model" } },
  }),
  meterVersion({
    meter: "good_tokens",
    rule: {
      where: [
        { path: "/status", in: ["200", "206"] },
        { path: "/error", exists: false },
        { path: "/model", equals: "small" },
      ],
    },
  }),
];

const MODELS = [
  "small",
  "large",
  'it\'s \\ "odd"',
  "é".repeat(200),
  "\ud800 half",
  200,
  0.000_000_1,
  true,
  null,
  { no: 1 },
];
const VALUES = [7, "12.000000001", -3, 0.123_456_789_9, 4_194_303.999_999_9, "1e3", 8_007_199_254_740_993, "0.5"];

/** The n-th usage event: texts, numbers and nesting of many kinds. */
export function nthEvent(n: number, occurredAt: number): UsageEvent {
  const data = {
    inputTokens: VALUES[n % VALUES.length],
    model: MODELS[n % MODELS.length],
    gauge: (n * 7) % 13,
    user: `user-${n % 5}`,
    status: n % 3 === 0 ? 206 : 500,
    at: n % 4 === 0 ? null : { region: `eu.${n % 2}` },
    tags: n % 2 === 0 ? [`tag-${n % 3}`, 5] : { 0: "a name" },
    "a/b.c'd~": n % 6 === 0 ? 1e21 : `${n % 2}`,
    ...(n % 7 === 0 ? { error: "timeout" } : {}),
  };
  return usageEvent({ id: `evt-${n}`, customer: `cus_${n % 4}`, occurredAt, data });
}

/** The activation of a meter in every partition. */
export function activate(version: MeterVersion): LogRecord[] {
  return controlOf({ kind: "meter.activate", ...version });
}

/** Between two usage events. */
const STEP_MS = 15_000;

/** Traffic of every fate around a midnight. */
export function sendTraffic(world: World, events: number): void {
  for (let n = 0; n < events; n += 1) {
    const at = STARTED_AT + n * STEP_MS;
    const event = nthEvent(n, at - (n % 11) * 7 * MINUTE_MS);
    world.append(at, [recordOf(event)]);
    if (n % 20 === 0) world.append(at, [recordOf(event)]);
    if (n % 25 === 0) world.append(at, [recordOf({ ...event, data: { inputTokens: 999 } })]);
    if (n % 30 === 0) world.append(at, [recordOf(nthEvent(1_000 + n, at - 40 * DAY_MS))]);
    if (n % 40 === 0) world.append(at, [recordOf(nthEvent(2_000 + n, at + DAY_MS))]);
    if (n % 45 === 0) world.append(at, [recordOf(nthEvent(4_000 + n, Date.UTC(2300, 0, 1)))]);
    if (n % 50 === 0) world.append(at, [recordOf({ ...event, id: `bad-${n}`, data: { inputTokens: "x" } })]);
    const foreign = nthEvent(3_000 + n, at);
    if (n % 30 === 0) world.append(at, [recordOf(foreign, (partitionOfEvent(foreign, PARTITIONS) + 1) % PARTITIONS)]);
  }
}

/** Takes back, or replaces, the n-th usage event where it was counted. */
export async function correct(world: World, n: number, replacement: UsageEvent | null): Promise<void> {
  const event = nthEvent(n, STARTED_AT + n * STEP_MS - (n % 11) * 7 * MINUTE_MS);
  const [row] = await world.analytics.select<{ partition: string; offset: string }>(
    "SELECT toString(logPartition) AS partition, toString(min(logOffset)) AS offset FROM raw_events WHERE id = {id:String} AND status = 'counted' GROUP BY logPartition",
    { id: event.id },
  );
  if (row === undefined) throw new Error(`${event.id} is not counted`);
  const target = { offset: Number(row.offset), event: encodeUsageEvent(event, {}).toString("utf8") };
  const fact =
    replacement === null
      ? ({ kind: "void", ...target } as const)
      : ({ kind: "replace", ...target, replacement: encodeUsageEvent(replacement, {}).toString("utf8") } as const);
  world.append(STARTED_AT + 3 * 60 * MINUTE_MS + n * 1_000, controlOf(fact, Number(row.partition)));
}

/** A replacement of the n-th usage event that belongs to the same partition. */
export function replacementOf(n: number): UsageEvent {
  const original = nthEvent(n, STARTED_AT + n * STEP_MS - (n % 11) * 7 * MINUTE_MS);
  const wanted = partitionOfEvent(original, PARTITIONS);
  for (let turn = 0; ; turn += 1) {
    const event = { ...nthEvent(n + 1, original.occurredAt ?? 0), customer: original.customer, id: `new-${n}-${turn}` };
    if (partitionOfEvent(event, PARTITIONS) === wanted) return event;
  }
}
