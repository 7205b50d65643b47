/** Seals over what the real aggregator stored: random usage, corrections, a meter activated late, restarts and merges, against a recount. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import {
  type Aggregation,
  type AnalyticsStore,
  type ControlFact,
  encodeControl,
  encodeUsageEvent,
  formatQuantity,
  type LogRecord,
  type MeterVersion,
  partitionOfEvent,
  recordKeyOf,
  type UsageEvent,
} from "@tallyhouse/domain";
import { openEmbeddedLog } from "@tallyhouse/eventlog";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { meterVersion, until, usageEvent } from "@tallyhouse/testkit";
import {
  readDefinitions,
  readSealedTotals,
  readUsageGroups,
  readVersionVector,
  sealDigest,
  UTC,
} from "@tallyhouse/usage";
import { afterAll, beforeAll, expect, test } from "vitest";

const MIGRATIONS = new URL("../../infra/clickhouse", import.meta.url).pathname;
const START_AT = Date.UTC(2026, 10, 20, 8, 59, 50);
const STREAM = { streamId: 1, partitionCount: 2, bookingWindowSeconds: 5, hashSeed: Buffer.from("0123456789abcdef") };
const KEY = { name: "test", secret: Buffer.from("signing key of this test") };
const CUSTOMERS = ["acme", "beta"];
const RULES: readonly Aggregation[] = ["sum", "count", "min", "max", "latest", "unique_count"];
const METERS = RULES.map((aggregation) =>
  meterVersion({
    meter: aggregation,
    rule: {
      aggregation,
      ...(aggregation === "count" ? {} : { value: aggregation === "unique_count" ? "/user" : "/v" }),
      dimensions: { region: "/region" },
    },
  }),
).map((version) => (version.rule.aggregation === "count" ? withoutValue(version) : version));

function withoutValue(version: MeterVersion): MeterVersion {
  const { value: _value, ...rule } = version.rule;
  return { ...version, rule };
}

/** One usage event that was sent, and what happened to it, by the clock of the log. */
interface Sent {
  readonly event: UsageEvent & { readonly occurredAt: number };
  readonly partition: number;
  readonly bookedAt: number;
  voidedAt: number;
}

const clock = { at: START_AT, now: () => clock.at };
const sent: Sent[] = [];
let folder: string;
let analytics: AnalyticsStore;
let closeAnalytics: () => Promise<void>;
let seed = 20_261_121;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-seals-"));
  const opened = await openClickHouse({ path: join(folder, "clickhouse") });
  analytics = opened.store;
  closeAnalytics = () => opened.close();
  await migrateClickHouse(analytics, MIGRATIONS);
});
afterAll(async () => {
  await closeAnalytics();
  await rm(folder, { recursive: true });
});

/** An integer in [0, below): the same ones in every run. */
function dice(below: number): number {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
}

async function start() {
  const opened = await openEmbeddedLog({ folder: join(folder, "log"), name: "log", partitionCount: 2, clock });
  const aggregator = buildAggregator(
    { ...AggregatorConfigSchema.parse({ FLUSH_INTERVAL_MS: 20 }), stream: STREAM, controlKeys: [KEY] },
    {
      ...{ log: opened.log, analytics, clock, random: () => 0.5 },
      ...{ logger: createLogger({ level: "silent", name: "test" }), metrics: createMetrics() },
    },
  );
  const stop = new AbortController();
  const ended = aggregator.run(stop.signal);
  return {
    append: (records: readonly LogRecord[]) => opened.log.append(records),
    untilStored: () =>
      until(
        async () => {
          const { partitions, isReady } = aggregator.status();
          const ends = await Promise.all([0, 1].map((partition) => opened.log.bounds(partition)));
          return (
            isReady && partitions.every(({ partition, storedOffset }) => storedOffset === ends[partition]?.endOffset)
          );
        },
        { timeoutMs: 30_000, what: "everything is stored" },
      ),
    async stop() {
      stop.abort();
      await ended;
      await opened.close();
    },
  };
}

type Running = Awaited<ReturnType<typeof start>>;

function newUsage(partition: number | null): Sent {
  const user = dice(5);
  for (let attempt = 0; ; attempt += 1) {
    const event = {
      ...usageEvent({ id: `${sent.length}-${attempt}`, customer: CUSTOMERS[dice(2)] ?? "acme" }),
      occurredAt: clock.at - dice(3) * dice(1_200_000),
      data: { v: `${dice(2_000) - 200}.5`, user: `user ${user}`, region: dice(2) === 0 ? "eu" : "us" },
    };
    const found = partitionOfEvent(event, 2);
    if (partition === null || found === partition)
      return { event, partition: found, bookedAt: clock.at, voidedAt: Number.POSITIVE_INFINITY };
  }
}

const factRecord = (partition: number, fact: ControlFact): LogRecord => encodeControl({ fact, partition, key: KEY });
const textOf = (event: UsageEvent): string => encodeUsageEvent(event, {}).toString("utf8");

async function activate(running: Running, versions: readonly MeterVersion[]): Promise<void> {
  for (const version of versions) {
    const { mode, meter, rule } = version;
    const fact: ControlFact = { kind: "meter.activate", mode, meter, version: 1, rule };
    await running.append([0, 1].map((partition) => factRecord(partition, fact)));
  }
}

async function send(running: Running, steps: number): Promise<void> {
  for (let step = 0; step < steps; step += 1) {
    clock.at += dice(2_000);
    const usage = newUsage(null);
    const { event, partition } = usage;
    sent.push(usage);
    await running.append([{ partition, key: recordKeyOf(event), value: encodeUsageEvent(event, {}), headers: {} }]);
  }
  await running.untilStored();
}

/** Voids and replaces usage events that count; what names them is where they are stored. */
async function correct(running: Running, corrections: number): Promise<void> {
  const rows = await analytics.select<{ id: string; offset: string }>(
    "SELECT id, toString(logOffset) AS offset FROM raw_events FINAL WHERE status = 'counted'",
  );
  const offsets = new Map(rows.map(({ id, offset }) => [id, Number(offset)]));
  for (let number = 0; number < corrections; number += 1) {
    clock.at += dice(2_000);
    const counting = sent.filter(({ voidedAt }) => voidedAt === Number.POSITIVE_INFINITY);
    const target = counting[dice(counting.length)];
    const offset = offsets.get(target?.event.id ?? "");
    // A replacement of a moment ago has no stored place yet.
    if (target === undefined || offset === undefined) continue;
    const named = { stream: STREAM.streamId, offset, event: textOf(target.event) };
    target.voidedAt = clock.at;
    if (dice(3) > 0) {
      await running.append([factRecord(target.partition, { kind: "void", ...named })]);
      continue;
    }
    const replacement = newUsage(target.partition);
    sent.push(replacement);
    const fact: ControlFact = { kind: "replace", ...named, replacement: textOf(replacement.event) };
    await running.append([factRecord(target.partition, fact)]);
  }
  await running.untilStored();
}

/** Moves both log clocks on, so that the cut is sealed. */
async function tickAt(running: Running, at: number): Promise<void> {
  clock.at = at;
  await running.append([0, 1].map((partition) => factRecord(partition, { kind: "tick" })));
  await running.untilStored();
}

function recount(question: {
  aggregation: Aggregation;
  customer: string;
  fromAt: number;
  toAt: number;
  cutAt: number;
}) {
  const { customer, fromAt, toAt, cutAt } = question;
  const groups = new Map<string, Sent[]>();
  for (const usage of sent) {
    const { event } = usage;
    const isInside = event.customer === customer && event.occurredAt >= fromAt && event.occurredAt < toAt;
    if (!isInside || usage.bookedAt >= cutAt || usage.voidedAt < cutAt) continue;
    const region = String(event.data["region"]);
    groups.set(region, [...(groups.get(region) ?? []), usage]);
  }
  return [...groups]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([region, all]) => [region, String(valueOf(question.aggregation, all))]);
}

function valueOf(aggregation: Aggregation, all: readonly Sent[]): number {
  const values = all.map(({ event }) => Number(event.data["v"]));
  switch (aggregation) {
    case "sum":
      return values.reduce((a, b) => a + b, 0);
    case "count":
      return all.length;
    case "min":
      return Math.min(...values);
    case "max":
      return Math.max(...values);
    case "unique_count":
      return new Set(all.map(({ event }) => event.data["user"])).size;
    case "latest": {
      // No two share an instant in this run, which the test asserts.
      const newest = all.reduce((a, b) => (b.event.occurredAt > a.event.occurredAt ? b : a));
      return Number(newest.event.data["v"]);
    }
  }
}

/** Every meter and customer at the cut, over a period that cuts windows on both sides; each is held against the recount. */
async function sealAll(cutAt: number): Promise<string> {
  const totals = [];
  for (const { meter, rule } of METERS) {
    for (const customer of CUSTOMERS) {
      const period = { fromAt: START_AT - 3_000_001, toAt: START_AT + 100_003 };
      const reading = await readSealedTotals(analytics, STREAM, {
        ...{ mode: "live", customer, meter, version: 1, groupBy: ["region"], cutAt, ...period },
      });
      if (reading.kind !== "totals") throw new Error(`${meter}: ${reading.kind}`);
      const found = reading.totals.groups.map(({ group, quantity }) => [...group, formatQuantity(quantity)]);
      expect(found, `${meter} ${customer} ${cutAt}`).toEqual(
        recount({ aggregation: rule.aggregation, customer, cutAt, ...period }),
      );
      totals.push(reading.totals);
    }
  }
  return sealDigest(totals);
}

test("G3: a seal over the aggregator's tables is the recount as known then, and stays it", async () => {
  let running = await start();
  await activate(running, METERS.slice(0, 3));
  await send(running, 60);
  await correct(running, 15);
  await activate(running, METERS.slice(3));
  await send(running, 30);
  await correct(running, 10);
  const cutAt = Math.ceil((clock.at + 1) / 5_000) * 5_000;
  await tickAt(running, cutAt);
  // The backfill of the later meters runs beside the fold.
  await until(
    async () =>
      (await readDefinitions(analytics, STREAM, { mode: "live" })).every(({ pendingAts }) => pendingAts.length === 0),
    {
      ...{ timeoutMs: 30_000, what: "the backfills are stored" },
    },
  );
  expect(new Set(sent.map(({ event }) => event.occurredAt)).size).toBe(sent.length);
  const digest = await sealAll(cutAt);
  const vector = await readVersionVector(analytics, STREAM, cutAt);

  await running.stop();
  running = await start();
  await send(running, 40);
  await correct(running, 25);
  for (const table of ["raw_events", "rollup", "rollup_uniq", "control_records"])
    await analytics.execute(`OPTIMIZE TABLE ${table} FINAL`);
  const laterAt = Math.ceil((clock.at + 1) / 5_000) * 5_000;
  await tickAt(running, laterAt);
  expect(await sealAll(cutAt)).toBe(digest);
  expect(await readVersionVector(analytics, STREAM, cutAt)).toEqual(vector);
  expect(await sealAll(laterAt)).not.toBe(digest);
  await expectNowEqualsSeal(laterAt);
  await running.stop();
}, 180_000);

/** What is asked now is what the last cut says, by the hour too. */
async function expectNowEqualsSeal(cutAt: number): Promise<void> {
  for (const definition of await readDefinitions(analytics, STREAM, { mode: "live" })) {
    for (const window of ["total", "hour"] as const) {
      const range = { fromAt: Date.UTC(2026, 10, 20, 7), toAt: Date.UTC(2026, 10, 20, 11) };
      const ask = async (at: number | null) =>
        readUsageGroups(analytics, {
          ...{ mode: "live", customer: null, definition, groupBy: ["region"], window, zone: UTC, ...range },
          ...{ cutAt: at, watermarkAt: null, rowsMax: 100, eventsMax: 10_000 },
        });
      expect(await ask(null)).toEqual(await ask(cutAt));
    }
  }
}
