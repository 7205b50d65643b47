/**
 * Fills the tables with what the fold would have stored of a month of usage events, by SQL and so a hundred times as fast.
 * stored-usage.test.ts folds the same usage events and compares every row: all columns are equal but keyed hashes, which are random
 * numbers of the same width here, and `ver`, which depends on when a flush happens.
 */
import type { AnalyticsStore, MeterVersion } from "@tallyhouse/domain";
import { DAY_MS } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";

/** The month that is stored: a number of events, spread evenly over 30 days. */
export interface StoredMonth {
  readonly events: number;
  readonly customers: number;
  readonly seed: number;
  /** Start of a day, epoch milliseconds; the last booking lies within 30 days of it. */
  readonly fromAt: number;
}

/** The stream that the rows belong to. */
export const MONTH_STREAM = { streamId: 1, partitionCount: 16, bookingWindowSeconds: 900 };
export const MONTH_DAYS = 30;
/** The customer with a tenth of all usage events. */
export const LARGEST_CUSTOMER = customerName(0);
const DIMENSIONS = { model: "/model" };
/** Two sums of one usage event, each by one dimension. */
export const MONTH_METERS: readonly MeterVersion[] = [
  meterVersion({ meter: "input_tokens", rule: { dimensions: DIMENSIONS } }),
  meterVersion({ meter: "output_tokens", rule: { value: "/outputTokens", dimensions: DIMENSIONS } }),
];
/** Offset of the first usage event of each partition: the meters' activations stand before it. */
const FIRST_OFFSET = MONTH_METERS.length;

/** The n-th customer. */
export function customerName(n: number): string {
  return `cus_${String(n).padStart(6, "0")}`;
}

/** Number of the first usage event of a day. */
function firstOfDay({ events }: StoredMonth, day: number): number {
  return Math.ceil((events * day) / MONTH_DAYS);
}

/** Activations in front of everything else. Returns the next offset of each partition. */
export async function storeActivations(analytics: AnalyticsStore, { fromAt }: StoredMonth): Promise<number[]> {
  const { partitionCount, streamId } = MONTH_STREAM;
  const places = Array.from({ length: partitionCount }, (_, partition) =>
    MONTH_METERS.map((version, offset) => ({ partition, offset, version })),
  ).flat();
  await analytics.insert({
    table: "control_records",
    columns: ["stream", "logPartition", "logOffset", "bookedAt", "kind", "target", "body"],
    rows: places.map(({ partition, offset, version }) => [
      streamId,
      partition,
      offset,
      fromAt,
      "meter.activate",
      "",
      JSON.stringify({ kind: "meter.activate", ...version }),
    ]),
  });
  await analytics.insert({
    table: "backfills",
    columns: ["stream", "logPartition", "mode", "meter", "meterVersion", "ver"],
    rows: places.map(({ partition, offset, version }) => [streamId, partition, "live", version.meter, 1, offset]),
  });
  await analytics.execute(STAGE_SQL);
  return Array.from({ length: partitionCount }, () => FIRST_OFFSET);
}

/**
 * Stores one day of the month, or a part of it: the parts of a day one after another, each as a flush of its own. `offsets` are
 * moved to the partitions' new ends. Returns the number of usage events.
 */
export async function storeDay(
  analytics: AnalyticsStore,
  input: {
    readonly month: StoredMonth;
    readonly day: number;
    readonly offsets: number[];
    readonly part?: { readonly number: number; readonly of: number };
  },
): Promise<number> {
  const { month, day, offsets, part = { number: 0, of: 1 } } = input;
  const first = firstOfDay(month, day + part.number / part.of);
  const next = firstOfDay(month, day + (part.number + 1) / part.of);
  if (next === first) return 0;
  const { streamId } = MONTH_STREAM;
  await analytics.execute("TRUNCATE TABLE bench_usage");
  await analytics.execute(usageSql(month, { first, next, offsets }));
  for (const sql of [rawSql(month), identitiesSql(month), ...MONTH_METERS.map(rollupSql)]) await analytics.execute(sql);
  const ends = await analytics.select<{ partition: number; end: string; clock: string }>(
    "SELECT logPartition AS partition, toString(max(logOffset) + 1) AS end, toString(max(receivedAt)) AS clock FROM bench_usage GROUP BY partition",
  );
  for (const { partition, end } of ends) offsets[partition] = Number(end);
  await analytics.insert({
    table: "progress",
    columns: ["stream", "logPartition", "nextOffset", "logClock", "lastRecord", "counted", "writer", "storedAt"],
    rows: ends.map(({ partition, end, clock }) => [
      streamId,
      partition,
      Number(end),
      Number(clock),
      0,
      Number(end) - FIRST_OFFSET,
      "bench",
      Number(clock),
    ]),
  });
  return next - first;
}

/** One day of usage events: where they stand in the log and what they say. */
const STAGE_SQL = `CREATE TABLE IF NOT EXISTS bench_usage (
  n UInt64, logPartition UInt16, logOffset UInt64, ver UInt64, customer String, id String,
  occurredAt UInt64, receivedAt UInt64, inputTokens UInt32, outputTokens UInt32, model String) ENGINE = Memory`;

/**
 * A tenth of the usage events belongs to the first customer, the rest to the others, smaller numbers more often (density 1/√x). They
 * arrive within 2 s, one in a hundred up to 6 hours late. Ids look like UUIDs. The partition is the one of the record key.
 */
function usageSql(
  { events, customers, seed, fromAt }: StoredMonth,
  { first, next, offsets }: { first: number; next: number; offsets: readonly number[] },
): string {
  const random = (purpose: number): string => `cityHash64(${seed}, n, ${purpose})`;
  const share = `(${random(2)} % 1000000) / 1000000`;
  return `INSERT INTO bench_usage
    WITH
      if(${random(1)} % 10 = 0, 0, 1 + toUInt32(floor(${share} * ${share} * ${customers - 1}))) AS customerNumber,
      lower(hex(sipHash128(${seed}, n))) AS digits,
      toUInt64(${fromAt} + intDiv(n * ${MONTH_DAYS * DAY_MS}, ${events})) AS arrivedAt,
      if(${random(3)} % 100 = 0, ${random(4)} % 21600000, ${random(4)} % 2000) AS delayMs
    SELECT n, logPartition, [${offsets.join(", ")}][logPartition + 1] + row_number() OVER (PARTITION BY logPartition ORDER BY n) - 1 AS logOffset,
      [${offsets.join(", ")}][logPartition + 1] + count() OVER (PARTITION BY logPartition) AS ver,
      customer, id, occurredAt, receivedAt, inputTokens, outputTokens, model
    FROM (
      SELECT number + ${first} AS n, concat('cus_', leftPad(toString(customerNumber), 6, '0')) AS customer,
        concat(substring(digits, 1, 8), '-', substring(digits, 9, 4), '-4', substring(digits, 14, 3), '-a', substring(digits, 18, 3), '-',
          substring(digits, 21, 12)) AS id,
        toUInt16(bitAnd(kafkaMurmurHash(concat('live/', customer, '/api/', id)), 2147483647) % ${MONTH_STREAM.partitionCount}) AS logPartition,
        arrivedAt - delayMs AS occurredAt, arrivedAt AS receivedAt,
        toUInt32(1 + ${random(5)} % 4000) AS inputTokens, toUInt32(1 + ${random(6)} % 800) AS outputTokens,
        ['small', 'medium', 'large'][1 + ${random(7)} % 3] AS model
      FROM numbers(${next - first}))`;
}

function rawSql({ seed }: StoredMonth): string {
  return `INSERT INTO raw_events (stream, logPartition, logOffset, mode, customer, source, id, type, occurredAt, receivedAt, bookedAt,
      decidedAt, status, reason, payloadHash, payload)
    SELECT ${MONTH_STREAM.streamId}, logPartition, logOffset, 'live', customer, 'api', id, 'llm.request',
      fromUnixTimestamp64Milli(toInt64(occurredAt), 'UTC'), fromUnixTimestamp64Milli(toInt64(receivedAt), 'UTC'),
      fromUnixTimestamp64Milli(toInt64(receivedAt), 'UTC'), fromUnixTimestamp64Milli(toInt64(0), 'UTC'), 'counted', '',
      sipHash64(${seed}, n, 1),
      concat('{"inputTokens":', toString(inputTokens), ',"outputTokens":', toString(outputTokens), ',"model":"', model, '"}')
    FROM bench_usage`;
}

function identitiesSql({ seed }: StoredMonth): string {
  return `INSERT INTO identities (stream, logPartition, fpHigh, fpLow, logOffset, bookedAt, payloadCheck)
    SELECT ${MONTH_STREAM.streamId}, logPartition, sipHash64(${seed}, n, 2), toUInt32(bitAnd(sipHash64(${seed}, n, 3), 4294967295)), logOffset,
      toDateTime(intDiv(receivedAt, 1000), 'UTC'), toUInt32(bitAnd(sipHash64(${seed}, n, 1), 4294967295))
    FROM bench_usage`;
}

function rollupSql({ meter, rule }: MeterVersion): string {
  const quantity = `toDecimal128(${rule.value?.slice(1) ?? "1"}, 9)`;
  return `INSERT INTO rollup (mode, customer, meter, meterVersion, windowStart, dims, stream, logPartition, lane, bookedStart, ver,
      counted, voided, sumQty, minQty, maxQty, lastQty, lastAt, lastOffset)
    SELECT 'live', customer, '${meter}', 1, toDateTime(intDiv(occurredAt, 900000) * 900, 'UTC') AS windowStart, [model] AS dims,
      ${MONTH_STREAM.streamId}, logPartition, 0, toDateTime(intDiv(receivedAt, 900000) * 900, 'UTC') AS bookedStart, any(ver),
      count(), 0, sum(${quantity}), min(${quantity}), max(${quantity}), argMax(${quantity}, (occurredAt, logOffset)),
      fromUnixTimestamp64Milli(toInt64(max(occurredAt)), 'UTC'), argMax(logOffset, (occurredAt, logOffset))
    FROM bench_usage
    GROUP BY customer, windowStart, dims, logPartition, bookedStart`;
}
