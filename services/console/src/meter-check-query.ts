/** Stored usage of one type over a span, in the order of customers: the reads behind a meter check. */
import { type AnalyticsStore, DAY_MS, type Mode } from "@tallyhouse/domain";

/** Which usage a check reads: counted, of one type, occurred in `[fromAt, toAt)`. */
export interface CheckSpan {
  readonly mode: Mode;
  readonly type: string;
  readonly fromAt: number;
  readonly toAt: number;
}

/** One counted usage event. */
export interface CheckedUsage {
  readonly customer: string;
  readonly source: string;
  readonly id: string;
  /** Epoch milliseconds. */
  readonly occurredAt: number;
  readonly stream: number;
  readonly partition: number;
  readonly offset: number;
  /** JSON text of `data`. */
  readonly payload: string;
}

/** Usage events of one slice, but for a single day of one customer with more. A page sorts what is left of its slice. */
const SLICE_ROWS = 40_000;
/** Usage events of one page: 65,536 bytes each at the very most, and usually 1 MB together. */
const PAGE_ROWS = 4_000;
/** No usage event is booked further ahead of its occurredAt (the greatest MAX_AHEAD_SECONDS). */
const BOOKED_BEFORE_MAX_MS = DAY_MS;

/** From this customer and day (since 1970, UTC) on. */
interface SliceStart {
  readonly customer: string;
  readonly day: number;
  readonly events: number;
}

/**
 * Everything that is counted now, voided and replaced usage events left out. The condition on bookedAt leaves whole days of parts
 * unread, the one on mode, customer and window whole granules.
 */
const WHERE = `
WHERE mode = {mode:String} AND type = {type:String} AND status = 'counted'
  AND occurredAt >= fromUnixTimestamp64Milli({fromAt:Int64}, 'UTC')
  AND occurredAt < fromUnixTimestamp64Milli({toAt:Int64}, 'UTC')
  AND bookedAt >= fromUnixTimestamp64Milli({bookedFromAt:Int64}, 'UTC')
  AND (stream, logPartition, toString(logOffset)) NOT IN (
    SELECT stream, logPartition, target FROM control_records WHERE kind IN ('void', 'replace'))`;

/** The least (customer, day) of each slice, with its rows; copies of a row may be counted, so the sizes are estimates. */
const SLICES_SQL = `
SELECT argMin(customer, (customer, day)) AS firstCustomer, argMin(day, (customer, day)) AS firstDay,
  toString(sum(events)) AS events
FROM (
  SELECT customer, day, events, intDiv(sum(events) OVER (ORDER BY customer, day) - events, {sliceRows:UInt64}) AS slice
  FROM (
    SELECT customer, toUInt16(toDate(occurredAt, 'UTC')) AS day, count() AS events FROM raw_events ${WHERE}
    GROUP BY customer, day))
GROUP BY slice
ORDER BY firstCustomer, firstDay`;

const WINDOW = "toStartOfFifteenMinutes(occurredAt)";
const windowOf = (at: string): string => `toStartOfFifteenMinutes(fromUnixTimestamp64Milli({${at}:Int64}, 'UTC'))`;
/** The order is the sort key's; a copy of a row follows it directly. */
const pageSql = (end: string): string => `
SELECT customer, source, id, toString(toUnixTimestamp64Milli(occurredAt)) AS atText, toString(stream) AS streamText,
  toString(logPartition) AS partitionText, toString(logOffset) AS offsetText, payload
FROM raw_events ${WHERE} ${end}
  AND (customer > {afterCustomer:String} OR (customer = {afterCustomer:String} AND (
    ${WINDOW} > ${windowOf("afterAt")}
    OR (${WINDOW} = ${windowOf("afterAt")}
      AND (stream, logPartition, toInt64(logOffset)) > ({afterStream:UInt16}, {afterPartition:UInt16}, {afterOffset:Int64})))))
ORDER BY mode, customer, type, ${WINDOW}, stream, logPartition, logOffset
LIMIT {rowsMax:UInt32}`;
const PAGE_SQL = pageSql("");
const PAGE_OF_SLICE_SQL = pageSql(`AND (customer < {nextCustomer:String}
    OR (customer = {nextCustomer:String} AND occurredAt < fromUnixTimestamp64Milli({nextAt:Int64}, 'UTC')))`);

/** A page of usage events, and how many the whole span has, some of them perhaps counted twice. */
export interface CheckPage {
  readonly usage: readonly CheckedUsage[];
  readonly totalEvents: number;
}

/**
 * Every counted usage event of the span once, in order of (customer, window, stream, partition, offset): a customer's stand together.
 * One page is in memory. What is counted or voided while it runs may be in it or not.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function* readCheckPages(
  analytics: AnalyticsStore,
  span: CheckSpan,
  limits: { readonly sliceRows: number; readonly pageRows: number } = { sliceRows: SLICE_ROWS, pageRows: PAGE_ROWS },
): AsyncGenerator<CheckPage> {
  const bound = { ...span, bookedFromAt: Math.max(0, span.fromAt - BOOKED_BEFORE_MAX_MS) };
  const slices = await readSlices(analytics, bound, limits.sliceRows);
  const totalEvents = slices.reduce((sum, { events }) => sum + events, 0);
  for (const [at, slice] of slices.entries()) {
    const next = slices[at + 1];
    const end = next === undefined ? {} : { nextCustomer: next.customer, nextAt: next.day * DAY_MS };
    let last: CheckedUsage | null = null;
    for (;;) {
      const rows: CheckedUsage[] = await readPage(analytics, {
        sql: next === undefined ? PAGE_SQL : PAGE_OF_SLICE_SQL,
        params: { ...bound, ...end, ...placeOf(last, slice), rowsMax: limits.pageRows },
      });
      const before = last;
      const usage = rows.filter((row, index) => !isCopy(row, index === 0 ? before : rows[index - 1]));
      if (usage.length > 0) yield { usage, totalEvents };
      last = rows.at(-1) ?? null;
      if (rows.length < limits.pageRows) break;
    }
  }
}

async function readSlices(
  analytics: AnalyticsStore,
  bound: Readonly<Record<string, string | number>> | (CheckSpan & { readonly bookedFromAt: number }),
  sliceRows: number,
): Promise<SliceStart[]> {
  const rows = await analytics.select<{ firstCustomer: string; firstDay: number; events: string }>(SLICES_SQL, {
    ...bound,
    sliceRows,
  });
  return rows.map((row) => ({ customer: row.firstCustomer, day: row.firstDay, events: Number(row.events) }));
}

async function readPage(
  analytics: AnalyticsStore,
  query: { readonly sql: string; readonly params: Readonly<Record<string, string | number>> },
): Promise<CheckedUsage[]> {
  const rows = await analytics.select<
    Record<"customer" | "source" | "id" | "atText" | "streamText" | "partitionText" | "offsetText" | "payload", string>
  >(query.sql, query.params);
  return rows.map(({ customer, source, id, payload, ...row }) => ({
    customer,
    source,
    id,
    payload,
    occurredAt: Number(row.atText),
    stream: Number(row.streamText),
    partition: Number(row.partitionText),
    offset: Number(row.offsetText),
  }));
}

/** Behind the last usage event, or at the slice's beginning. */
function placeOf(last: CheckedUsage | null, slice: SliceStart): Record<string, string | number> {
  return {
    afterCustomer: last?.customer ?? slice.customer,
    afterAt: last?.occurredAt ?? slice.day * DAY_MS,
    afterStream: last?.stream ?? 0,
    afterPartition: last?.partition ?? 0,
    afterOffset: last?.offset ?? -1,
  };
}

function isCopy(a: CheckedUsage, b: CheckedUsage | null | undefined): boolean {
  return b != null && a.stream === b.stream && a.partition === b.partition && a.offset === b.offset;
}
