/** Faults to build into a copy of the sources, one at a time; each must break a guarantee that a judge names. */
import type { Edit } from "./source-copy.ts";
import type { Suite } from "./workers.ts";

/** Who must notice: seeded schedules, or tests that put the very case (where the engine or a setting is the subject). */
type Judge =
  | { readonly kind: "simulation"; readonly suite: Suite }
  | { readonly kind: "tests"; readonly workspace: string; readonly file: string };

/** A fault, in the words of the design's list. */
export interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
  readonly judge: Judge;
}

const AGGREGATOR = "services/aggregator/src";
const SCHEMA = "infra/clickhouse/0001-usage.sql";
const SIMULATION: Judge = { kind: "simulation", suite: "aggregator" };
const REPORTER_SIMULATION: Judge = { kind: "simulation", suite: "reporter" };
const ENGINE: Judge = { kind: "tests", workspace: "services/aggregator", file: "src/engine.test.ts" };

/** One replacement. */
function edit(file: string, find: string, replace: string): Edit {
  return { file, find, replace };
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: "no skip rule",
    edits: [edit(`${AGGREGATOR}/rollup-book.ts`, "return offset < tally.base;", "return offset < 0 * tally.base;")],
    judge: SIMULATION,
  },
  {
    name: "progress before acknowledgements",
    edits: [
      edit(
        `${AGGREGATOR}/flush.ts`,
        "  await Promise.all(effects);\n",
        "  const acknowledged = Promise.all(effects);\n  acknowledged.catch(() => {});\n",
      ),
      edit(
        `${AGGREGATOR}/flush.ts`,
        "  await forever(() => store.recordProgress(progress));\n",
        "  await forever(() => store.recordProgress(progress));\n  await acknowledged;\n",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "keys loaded from the next booking window",
    edits: [
      edit(
        `${AGGREGATOR}/open.ts`,
        "bookedFrom: bookedStartOf(stored.logClockAt, stream) })",
        "bookedFrom: bookedStartOf(stored.logClockAt, stream) + stream.bookingWindowSeconds })",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "index loaded without logOffset < C",
    edits: [
      edit(
        `${AGGREGATOR}/open.ts`,
        "query: { partition, belowOffset: nextOffset, bookedFrom }",
        "query: { partition, belowOffset: Number.MAX_SAFE_INTEGER, bookedFrom }",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "seal at max, not min, clock",
    edits: [
      edit(
        "packages/usage/src/watermark.ts",
        "toUnixTimestamp64Milli(min(logClock))",
        "toUnixTimestamp64Milli(max(logClock))",
      ),
    ],
    judge: { kind: "tests", workspace: "services/reporter", file: "src/watermark.test.ts" },
  },
  {
    name: "identities not awaited",
    edits: [
      edit(
        `${AGGREGATOR}/flush.ts`,
        "effects.push(forever(() => store.insertRows(table, rows)));",
        'effects.push(table === "identities" ? Promise.resolve(void forever(() => store.insertRows(table, rows)).catch(() => {})) : forever(() => store.insertRows(table, rows)));',
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "H < MAX_AGE + MAX_AHEAD",
    edits: [
      edit(
        `${AGGREGATOR}/aggregator.ts`,
        "const horizonSeconds = config.DEDUPE_HORIZON_HOURS * 3_600;",
        "const horizonSeconds = config.DEDUPE_HORIZON_HOURS * 1_200;",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "H < MAX_AGE + MAX_AHEAD accepted as configuration",
    edits: [
      edit(`${AGGREGATOR}/config.ts`, "config.MAX_AGE_HOURS * SECONDS_PER_HOUR + config.MAX_AHEAD_SECONDS,", "0,"),
    ],
    judge: { kind: "tests", workspace: "services/aggregator", file: "src/config.test.ts" },
  },
  {
    // The fault is the deployment's: acknowledged rows that the replica of the reads has not got yet.
    name: "stale replica at open",
    edits: [
      edit(
        `${AGGREGATOR}/testing/simulation/process.ts`,
        "    await world.model.insertRows(table, rows);\n",
        "    world.calls.later(`replicated ${table}`, () => world.model.insertRows(table, rows));\n",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "void carries contributions",
    edits: [
      edit(
        `${AGGREGATOR}/count.ts`,
        "/** Counts the usage event:",
        "const carried = new WeakMap<Task, Map<number, Measured>>();\n\n/** Counts the usage event:",
      ),
      edit(
        `${AGGREGATOR}/count.ts`,
        "  const bookedSeconds = Math.floor(task.clockAt / 1_000);\n",
        "  const bookedSeconds = Math.floor(task.clockAt / 1_000);\n" +
          "  const carriedByTask = carried.get(task) ?? new Map<number, Measured>();\n" +
          "  carried.set(task, carriedByTask.set(entry.offset, measured));\n",
      ),
      edit(
        `${AGGREGATOR}/count.ts`,
        "for (const contribution of measured.contributions) task.rollups.takeBack(contribution);",
        "const then = new Set(carried.get(task)?.get(offset)?.contributions.map(({ meter }) => meter.label));\n" +
          "  for (const contribution of measured.contributions)\n" +
          "    if (then.size === 0 || then.has(contribution.meter.label)) task.rollups.takeBack(contribution);",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "redirect not awaited",
    edits: [
      edit(
        `${AGGREGATOR}/flush.ts`,
        "effects.push(forever(() => log.append(redirects)));",
        "forever(() => log.append(redirects)).catch(() => {});",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "receivedAt instead of bookedAt",
    edits: [
      edit(
        `${AGGREGATOR}/step.ts`,
        "task.clockAt = Math.max(task.clockAt, entry.receivedAt);",
        "task.clockAt = entry.receivedAt || task.clockAt;",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "backfill in lane 0",
    edits: [edit(`${AGGREGATOR}/backfill.ts`, "lane: BACKFILL_LANE,", "lane: 0 * BACKFILL_LANE,")],
    judge: SIMULATION,
  },
  {
    name: "C read after the loads",
    edits: [
      edit(
        `${AGGREGATOR}/open.ts`,
        "  const canVerify =",
        "  const later = (await store.readProgress(partition)) ?? stored;\n" +
          "  const { nextOffset, counted, lastRecord, logClockAt: clockAt } = later;\n" +
          "  Object.assign(task, { nextOffset, counted, lastRecord, clockAt, snapshotOffset: nextOffset });\n" +
          "  if (later !== stored) return { task, readFromOffset: nextOffset };\n" +
          "  const canVerify =",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "identities keyed without offset",
    edits: [
      edit(
        SCHEMA,
        "ORDER BY (stream, logPartition, fpHigh, fpLow, logOffset)",
        "ORDER BY (stream, logPartition, fpHigh, fpLow)",
      ),
    ],
    judge: ENGINE,
  },
  {
    name: "wall clock in step",
    edits: [
      edit(
        `${AGGREGATOR}/step.ts`,
        "  const occurredAt = event.occurredAt ?? entry.receivedAt;\n  const ageSeconds",
        "  const occurredAt = event.occurredAt ?? Date.now();\n  const ageSeconds",
      ),
      edit(
        `${AGGREGATOR}/count.ts`,
        "  const occurredAt = event.occurredAt ?? entry.receivedAt;\n",
        "  const occurredAt = event.occurredAt ?? Date.now();\n",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "float sums",
    edits: [
      edit(
        `${AGGREGATOR}/rollup-book.ts`,
        "tally.sumQty += quantity;",
        "tally.sumQty = BigInt(Number(tally.sumQty) + Number(quantity));",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "commit-driven start",
    edits: [
      edit(
        `${AGGREGATOR}/open.ts`,
        "  const stored = (await store.readProgress(partition)) ?? (await streamStart(partition, ports));\n",
        "  const stored = { ...((await store.readProgress(partition)) ?? (await streamStart(partition, ports))) };\n" +
          "  const committed = (log as unknown as { committed(partition: number): number | null }).committed(partition);\n" +
          "  if (committed !== null) Object.assign(stored, { nextOffset: committed, lastRecord: 0n });\n",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "rows serialised late",
    edits: [
      edit(
        `${AGGREGATOR}/task.ts`,
        "const rollup = task.rollups.takeRows(",
        "const takeRollup = () => task.rollups.takeRows(",
      ),
      edit(
        `${AGGREGATOR}/task.ts`,
        "      rollup,\n",
        "      get rollup() {\n        return takeRollup();\n      },\n",
      ),
      edit(
        `${AGGREGATOR}/flush.ts`,
        "  const effects: Promise<void>[] = [];\n",
        "  const effects: Promise<void>[] = [];\n  await forever(async () => void (await store.readProgress(0)));\n",
      ),
    ],
    judge: SIMULATION,
  },
  {
    name: "deduplication on with identical blocks",
    edits: [
      edit("packages/clickhouse/src/settings.ts", 'deduplicate_insert: "disable"', 'deduplicate_insert: "enable"'),
      edit("packages/clickhouse/src/settings.ts", "insert_deduplicate: 0", "insert_deduplicate: 1"),
      edit(
        SCHEMA,
        "TTL bookedAt + INTERVAL 45 DAY\nSETTINGS ttl_only_drop_parts = 1, fsync_after_insert = 1, fsync_part_directory = 1,\n" +
          "  min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 0;",
        "TTL bookedAt + INTERVAL 45 DAY\nSETTINGS non_replicated_deduplication_window = 10000;",
      ),
    ],
    judge: ENGINE,
  },
  {
    name: "TTL on control records",
    edits: [
      edit(
        SCHEMA,
        "kind LowCardinality(String), target String, body String)\nENGINE = ReplacingMergeTree\nORDER BY (stream, logPartition, logOffset)\n",
        "kind LowCardinality(String), target String, body String)\nENGINE = ReplacingMergeTree\nORDER BY (stream, logPartition, logOffset)\n" +
          "TTL toDateTime(bookedAt) + INTERVAL 400 DAY\n",
      ),
    ],
    judge: ENGINE,
  },
  {
    name: "reporter: a row in doubt is planned anew",
    edits: [
      edit(
        "services/reporter/src/send-ledger.ts",
        "`UPDATE usage_report SET state = 'unknown',\n       verify_step = CASE verify_step WHEN 'resend'",
        "`UPDATE usage_report SET state = 'void',\n       verify_step = CASE verify_step WHEN 'resend'",
      ),
    ],
    judge: REPORTER_SIMULATION,
  },
  {
    name: "reporter: repeats after a day without proof",
    edits: [
      edit(
        "services/reporter/src/send.ts",
        "const REPEAT_AGE_MAX_MS = 23 * HOUR_MS;",
        "const REPEAT_AGE_MAX_MS = 9_000 * HOUR_MS;",
      ),
    ],
    judge: REPORTER_SIMULATION,
  },
  {
    name: "reporter: changed buckets are forgotten before they are marked",
    edits: [
      edit(
        "services/reporter/src/due-marks.ts",
        "    Math.min(input.watermarkAt, backfillingSince ?? input.watermarkAt),\n",
        "    Math.min(input.watermarkAt, backfillingSince ?? input.watermarkAt) + input.bookingWindowMs,\n",
      ),
    ],
    judge: REPORTER_SIMULATION,
  },
];
