/** Where a backfill reads stored usage and writes its rows; the SQL of both. */
import {
  type AnalyticsStore,
  BACKFILL_SPAN_MS,
  DAY_MS,
  type MeterVersion,
  MeterRuleSchema,
  parseInstant,
  type StreamIdentity,
} from "@tallyhouse/domain";
import { z } from "zod";
import { RESULT_COLUMNS, type Row } from "./tables.ts";

/** Usage that stands in front of an activation: of its own stream below it, and everything of a stream before that one. */
export interface BackfillSource {
  readonly stream: number;
  readonly belowOffset: number;
  /** Version of the rows it gives. They are written once and never continued, so it only has to be the same every time. */
  readonly ver: number;
}

/** An activation whose earlier usage is not counted yet. */
export interface PendingBackfill {
  /** The activation's own stream: usually the current one, or one before it that ended before the backfill was done. */
  readonly stream: number;
  readonly partition: number;
  readonly version: MeterVersion;
  /** W: the offset of the activation. Usage below it is the backfill's, usage behind it the live fold's. */
  readonly activatedOffset: number;
  /** bookedAt of that offset, epoch milliseconds. */
  readonly activatedAt: number;
  /** Oldest first. */
  readonly sources: readonly BackfillSource[];
}

/** Customers from `firstCustomer` on, up to the next slice's, and the UTC days (since 1970) on which their usage was booked. */
export interface BackfillSlice {
  readonly firstCustomer: string;
  /** null: to the end. */
  readonly nextCustomer: string | null;
  readonly days: readonly number[];
}

/** One counted usage event below the activation. */
export interface StoredUsage {
  readonly customer: string;
  /** Epoch milliseconds. */
  readonly occurredAt: number;
  readonly offset: number;
  /** JSON text of `data`. */
  readonly payload: string;
}

/** A page's place: the last usage event of the page before. */
export type PageEnd = Pick<StoredUsage, "customer" | "occurredAt" | "offset">;

/** One source of one backfill. */
export interface BackfillQuery {
  readonly pending: PendingBackfill;
  readonly source: BackfillSource;
}

/** What a backfill needs of the tables. Every read is repeatable: rows below a stored prefix are there for ever, and equal. */
export interface BackfillStore {
  /**
   * Activations below the offset, and of all streams before this one, that have no `backfills` row of their partition; in log order.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
   */
  readPending(query: { readonly partition: number; readonly belowOffset: number }): Promise<readonly PendingBackfill[]>;
  /**
   * The backfill's usage events cut into slices of whole customers, so that one slice's keys fit into memory; none when there is
   * nothing to count. In order of customers.
   */
  readSlices(query: BackfillQuery): Promise<readonly BackfillSlice[]>;
  /**
   * A slice's usage events that were booked on one day, behind `after`, in order of (customer, usage window, offset), at most
   * `rowsMax`. Events that were voided below the activation are left out. A copy of a row follows it directly.
   */
  readPage(
    query: BackfillQuery & {
      readonly slice: BackfillSlice;
      readonly day: number;
      readonly after: PageEnd | null;
      readonly rowsMax: number;
    },
  ): Promise<readonly StoredUsage[]>;
  /** Stores rows of lane 1. Safe to repeat: yes, equal keys are equal rows. */
  insertLane(table: LaneTable, rows: readonly Row[]): Promise<void>;
  /** Says that backfills are whole; call it only when every row of them is acknowledged. Safe to repeat: yes. */
  recordBackfills(done: readonly PendingBackfill[]): Promise<void>;
}

/** Tables that a backfill writes rows of lane 1 to. */
export type LaneTable = "rollup" | "rollup_uniq";

/** Nothing counts further ahead of its booking (the greatest MAX_AHEAD_SECONDS): usage from an instant on was booked a day before it or later. */
const BOOKED_BEFORE_MAX_MS = DAY_MS;
/** A stream that ended: all its offsets. */
const WHOLE_STREAM = Number.MAX_SAFE_INTEGER;
/** Usage events of one slice, but for a single customer with more: as many keys at most, some 300 MB. */
const SLICE_ROWS = 500_000;

/** The backfill's tables of one stream (infra/clickhouse). */
export function createBackfillStore(input: {
  analytics: AnalyticsStore;
  stream: Pick<StreamIdentity, "streamId" | "predecessors">;
  /** Default {@link SLICE_ROWS}. */
  sliceRows?: number;
}): BackfillStore {
  const { analytics, sliceRows = SLICE_ROWS } = input;
  const { streamId, predecessors = [] } = input.stream;
  return {
    async readPending({ partition, belowOffset }) {
      const found: PendingBackfill[] = [];
      const before: BackfillSource[] = [];
      // Of the new partitions that share an old one, the one of the same number answers for it.
      for (const { streamId: stream } of predecessors.filter(({ partitionCount }) => partition < partitionCount)) {
        found.push(...(await readPendingOf(analytics, { stream, partition, belowOffset: WHOLE_STREAM, before })));
        before.push({ stream, belowOffset: WHOLE_STREAM, ver: 0 });
      }
      return [...found, ...(await readPendingOf(analytics, { stream: streamId, partition, belowOffset, before }))];
    },
    async readSlices(query) {
      const rows = await analytics.select<{ firstCustomer: string; days: readonly number[] }>(SLICES_SQL, {
        ...scanOf(query),
        sliceRows,
      });
      return rows.map(({ firstCustomer, days }, at) => ({
        firstCustomer,
        nextCustomer: rows[at + 1]?.firstCustomer ?? null,
        days: days.map(Number),
      }));
    },
    async readPage({ pending, source, slice, day, after, rowsMax }) {
      const place = after ?? { customer: slice.firstCustomer, occurredAt: 0, offset: -1 };
      const rows = await analytics.select<Record<"customer" | "atText" | "offsetText" | "payload", string>>(
        slice.nextCustomer === null ? PAGE_SQL : PAGE_OF_SLICE_SQL,
        {
          ...scanOf({ pending, source }),
          dayFromAt: day * DAY_MS,
          dayToAt: (day + 1) * DAY_MS,
          ...(slice.nextCustomer === null ? {} : { nextCustomer: slice.nextCustomer }),
          afterCustomer: place.customer,
          afterAt: place.occurredAt,
          afterOffset: place.offset,
          rowsMax,
        },
      );
      return rows.map((row) => ({
        customer: row.customer,
        occurredAt: Number(row.atText),
        offset: Number(row.offsetText),
        payload: row.payload,
      }));
    },
    insertLane: (table, rows) => analytics.insert({ table, columns: RESULT_COLUMNS[table], rows }),
    async recordBackfills(done) {
      await analytics.insert({
        table: "backfills",
        columns: ["stream", "logPartition", "mode", "meter", "meterVersion", "ver"],
        rows: done.map(({ stream, partition, version: { mode, meter, version }, activatedOffset }) => [
          stream,
          partition,
          mode,
          meter,
          version,
          activatedOffset,
        ]),
      });
    },
  };
}

async function readPendingOf(
  analytics: AnalyticsStore,
  query: { stream: number; partition: number; belowOffset: number; before: readonly BackfillSource[] },
): Promise<PendingBackfill[]> {
  const { before, ...place } = query;
  const rows = await analytics.select<PendingSqlRow>(PENDING_SQL, place);
  return rows.map((row) => {
    const activatedOffset = Number(row.offsetText);
    const own = { stream: place.stream, belowOffset: activatedOffset, ver: activatedOffset };
    return {
      stream: place.stream,
      partition: place.partition,
      version: ActivationBodySchema.parse(JSON.parse(row.body)),
      activatedOffset,
      activatedAt: Number(row.bookedText),
      sources: [...before, own],
    };
  });
}

/** A stored `meter.activate` body; its signature was verified when it was folded. */
const ActivationBodySchema = z.object({
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int(),
  rule: MeterRuleSchema,
});

interface PendingSqlRow {
  readonly body: string;
  readonly offsetText: string;
  readonly bookedText: string;
}

/** Not FINAL: a copy of a row is equal. The first activation of a version is the one that counts. */
const PENDING_SQL = `
SELECT argMin(c.body, c.logOffset) AS body, toString(min(c.logOffset)) AS offsetText,
  toString(toUnixTimestamp64Milli(argMin(c.bookedAt, c.logOffset))) AS bookedText
FROM control_records AS c
WHERE c.stream = {stream:UInt16} AND c.logPartition = {partition:UInt16} AND c.logOffset < {belowOffset:UInt64}
  AND c.kind = 'meter.activate'
GROUP BY JSONExtractString(c.body, 'mode') AS mode, JSONExtractString(c.body, 'meter') AS meter,
  JSONExtractUInt(c.body, 'version') AS version
HAVING (mode, meter, version) NOT IN (
  SELECT toString(b.mode), b.meter, toUInt64(b.meterVersion) FROM backfills AS b
  WHERE b.stream = {stream:UInt16} AND b.logPartition = {partition:UInt16})
ORDER BY min(c.logOffset)`;

/**
 * What a backfill counts. The condition on bookedAt leaves whole days of parts unread. A meter's end is no part of it: an end is
 * valid only when it lies ahead of everything that could be counted so far, and all of this was booked before.
 *
 * A void or replacement behind the activation is the live fold's, which takes the usage event back in its own lane.
 */
const SCAN_WHERE = `
WHERE mode = {mode:String} AND type = {type:String} AND stream = {stream:UInt16} AND logPartition = {partition:UInt16}
  AND status = 'counted' AND logOffset < {belowOffset:UInt64}
  AND occurredAt >= fromUnixTimestamp64Milli({fromAt:Int64}, 'UTC')
  AND toString(logOffset) NOT IN (
    SELECT target FROM control_records
    WHERE stream = {stream:UInt16} AND logPartition = {partition:UInt16} AND logOffset < {belowOffset:UInt64}
      AND kind IN ('void', 'replace'))`;

const SLICES_SQL = `
SELECT min(customer) AS firstCustomer, arraySort(groupUniqArrayArray(customerDays)) AS days
FROM (
  SELECT customer, customerDays, intDiv(sum(events) OVER (ORDER BY customer) - events, {sliceRows:UInt64}) AS slice
  FROM (
    SELECT customer, count() AS events, groupUniqArray(toUInt16(toDate(bookedAt, 'UTC'))) AS customerDays
    FROM raw_events ${SCAN_WHERE} AND bookedAt >= fromUnixTimestamp64Milli({bookedFromAt:Int64}, 'UTC')
    GROUP BY customer))
GROUP BY slice
ORDER BY firstCustomer`;

/**
 * The order is the sort key's, and the condition on the place reaches the primary key: a page reads its own granules of one day.
 * Not FINAL: it would merge what the order puts side by side anyway.
 */
const pageSql = (customers: string): string => `
SELECT customer, toString(toUnixTimestamp64Milli(occurredAt)) AS atText, toString(logOffset) AS offsetText, payload
FROM raw_events ${SCAN_WHERE}
  AND bookedAt >= fromUnixTimestamp64Milli({bookedFromAt:Int64}, 'UTC')
  AND bookedAt >= fromUnixTimestamp64Milli({dayFromAt:Int64}, 'UTC')
  AND bookedAt < fromUnixTimestamp64Milli({dayToAt:Int64}, 'UTC') ${customers}
  AND (customer > {afterCustomer:String} OR (customer = {afterCustomer:String} AND (
    toStartOfFifteenMinutes(occurredAt) > toStartOfFifteenMinutes(fromUnixTimestamp64Milli({afterAt:Int64}, 'UTC'))
    OR (toStartOfFifteenMinutes(occurredAt) = toStartOfFifteenMinutes(fromUnixTimestamp64Milli({afterAt:Int64}, 'UTC'))
      AND logOffset > {afterOffset:Int64}))))
ORDER BY mode, customer, type, toStartOfFifteenMinutes(occurredAt), stream, logPartition, logOffset
LIMIT {rowsMax:UInt32}`;
const PAGE_SQL = pageSql("");
const PAGE_OF_SLICE_SQL = pageSql("AND customer < {nextCustomer:String}");

/** Bound values of {@link SCAN_WHERE}. */
function scanOf({ pending, source }: BackfillQuery): Record<string, string | number> {
  const { partition, version, activatedAt } = pending;
  const fromAt = Math.max(0, parseInstant(version.rule.from) ?? 0);
  return {
    stream: source.stream,
    partition,
    mode: version.mode,
    type: version.rule.eventType,
    belowOffset: source.belowOffset,
    fromAt,
    bookedFromAt: Math.max(0, fromAt - BOOKED_BEFORE_MAX_MS, activatedAt - BACKFILL_SPAN_MS),
  };
}
