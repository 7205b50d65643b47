/** Counted usage events, one by one, folded by the aggregator's own rule: edges of a range, and windows with corrections. */
import {
  type AnalyticsStore,
  assert,
  BACKFILL_SPAN_MS,
  compileMeter,
  isJsonObject,
  type Mode,
  parseJson,
  uniqueHashOf,
  type UsageEvent,
  WINDOW_MS,
} from "@tallyhouse/domain";
import type { MeterDefinition } from "./meter-definitions.ts";
import { type MeterPlace, placeOf } from "./meter-places.ts";
import { BOOKED_BEFORE_MAX_MS, type CorrectedWindows, cutParameter } from "./rollup-query.ts";
import type { Span } from "./question.ts";
import type { Part } from "./tally.ts";

/** Rows of one read: some 25 MB of payloads at their usual size. A stretch with more is cut in two. */
export const PAGE_ROWS_MAX = 50_000;
/** Windows of one read: with customers of 256 characters, 3 bytes each, 384 kB in a URL, which ClickHouse takes up to 1 MiB. */
const PAGE_WINDOWS_MAX = 500;

/** What one counted usage event adds to a meter. */
export interface CountedUsage {
  readonly customer: string;
  /** Epoch milliseconds. */
  readonly occurredAt: number;
  /** Every declared dimension, in their order. */
  readonly dims: readonly string[];
  readonly part: Part;
}

/** Which usage events are wanted. */
export interface CountedQuestion {
  readonly mode: Mode;
  readonly definition: MeterDefinition;
  /** Only what was booked before this cut, and only voids booked before it; null: everything. */
  readonly cutAt: number | null;
  /** One customer's stretches that no window holds. */
  readonly edges: { readonly customer: string; readonly spans: readonly Span[] } | null;
  readonly windows: readonly CorrectedWindows[];
  readonly eventsMax: number;
}

/**
 * Hands every wanted usage event to `visit`, in no order. What counts is what the rollups count: usage behind the meter's activation,
 * and usage in front of it once its backfill is stored, so that events and windows add up to what windows alone would say.
 * @returns false when there are more than `eventsMax`; some were visited, then.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function visitCountedUsage(
  analytics: AnalyticsStore,
  question: CountedQuestion,
  visit: (usage: CountedUsage) => void,
): Promise<boolean> {
  const contribute = contributor(question);
  let roomFor = question.eventsMax;
  const pages = pagesOf(question);
  for (let page = pages.pop(); page !== undefined; page = pages.pop()) {
    const rows = await selectPage(analytics, { ...question, page, rowsMax: Math.min(PAGE_ROWS_MAX, roomFor) + 1 });
    if (rows.length > roomFor) return false;
    if (rows.length > PAGE_ROWS_MAX) {
      const halves = halvesOf(page);
      if (halves !== null) {
        pages.push(...halves);
        continue;
      }
    }
    roomFor -= rows.length;
    for (const row of rows) {
      const usage = contribute(row);
      if (usage !== null) visit(usage);
    }
  }
  return true;
}

/** A window of one customer, in epoch seconds. */
interface CustomerWindow {
  readonly customer: string;
  readonly start: number;
}

/** One read: a stretch of one customer, or whole windows. */
type Page = { readonly customer: string; readonly span: Span } | { readonly windows: readonly CustomerWindow[] };

function pagesOf({ edges, windows }: CountedQuestion): Page[] {
  const pages: Page[] = (edges?.spans ?? []).map((span) => ({ customer: edges?.customer ?? "", span }));
  const all = windows.flatMap(({ customer, starts }) => starts.map((start) => ({ customer, start })));
  for (let from = 0; from < all.length; from += PAGE_WINDOWS_MAX)
    pages.push({ windows: all.slice(from, from + PAGE_WINDOWS_MAX) });
  return pages;
}

/** Null for a millisecond, which cannot be cut: its usage events are read together, however many. */
function halvesOf(page: Page): readonly Page[] | null {
  if ("windows" in page) {
    const { windows } = page;
    const half = Math.ceil(windows.length / 2);
    if (half < windows.length) return [{ windows: windows.slice(0, half) }, { windows: windows.slice(half) }];
    return windows.map(({ customer, start }) => ({ customer, span: boundsOf([start]) }));
  }
  const { customer, span } = page;
  const middleAt = Math.floor((span.fromAt + span.toAt) / 2);
  if (middleAt === span.fromAt) return null;
  return [
    { customer, span: { fromAt: span.fromAt, toAt: middleAt } },
    { customer, span: { fromAt: middleAt, toAt: span.toAt } },
  ];
}

/** From the first window to the end of the last one. */
function boundsOf(starts: readonly number[]): Span {
  return { fromAt: Math.min(...starts) * 1_000, toAt: Math.max(...starts) * 1_000 + WINDOW_MS };
}

interface EventRow {
  readonly customer: string;
  readonly at: string;
  readonly stream: number;
  readonly logPartition: number;
  readonly offset: string;
  readonly booked: string;
  readonly payload: string;
}

/**
 * Usage events of one page. The condition reaches the primary key of raw_events through the view; `bookedAt` leaves out the days
 * before any of them could be booked.
 */
function selectPage(
  analytics: AnalyticsStore,
  input: Pick<CountedQuestion, "mode" | "definition" | "cutAt"> & { readonly page: Page; readonly rowsMax: number },
): Promise<EventRow[]> {
  const { page, cutAt } = input;
  const windows = "windows" in page ? page.windows : null;
  const { fromAt, toAt } = "windows" in page ? boundsOf(page.windows.map(({ start }) => start)) : page.span;
  const customers = "windows" in page ? page.windows.map(({ customer }) => customer) : [page.customer];
  return analytics.select<EventRow>(
    `SELECT customer, toString(toUnixTimestamp64Milli(occurredAt)) AS at, stream, logPartition,
       toString(logOffset) AS offset, toString(toUnixTimestamp64Milli(bookedAt)) AS booked, payload
     FROM ${cutAt === null ? "counted_events" : "counted_events_at(cut = {cut:DateTime('UTC')})"}
     WHERE mode = {mode:String} AND customer IN {customers:Array(String)} AND type = {type:String}
       AND occurredAt >= fromUnixTimestamp64Milli({fromAt:Int64}, 'UTC')
       AND occurredAt < fromUnixTimestamp64Milli({toAt:Int64}, 'UTC')
       AND bookedAt >= fromUnixTimestamp64Milli({bookedFromAt:Int64}, 'UTC')
       ${windows === null ? "" : WINDOWS_SQL}
     LIMIT {rowsMax:UInt64}`,
    {
      mode: input.mode,
      customers,
      type: input.definition.version.rule.eventType,
      fromAt,
      toAt,
      bookedFromAt: Math.max(0, fromAt - BOOKED_BEFORE_MAX_MS),
      rowsMax: input.rowsMax,
      ...(windows === null ? {} : { starts: windows.map(({ start }) => start) }),
      ...cutParameter(cutAt),
    },
  );
}

/** Pairs of `customers` and `starts`, which are of one length. */
const WINDOWS_SQL = `AND has({starts:Array(UInt32)}, toUnixTimestamp(toStartOfFifteenMinutes(occurredAt)))
       AND (customer, toUnixTimestamp(toStartOfFifteenMinutes(occurredAt))) IN (
         SELECT pair.1, pair.2 FROM (SELECT arrayJoin(arrayZip({customers:Array(String)}, {starts:Array(UInt32)})) AS pair))`;

/** What one raw row adds to the meter; null for nothing. */
function contributor({ mode, definition, cutAt }: CountedQuestion): (row: EventRow) => CountedUsage | null {
  const meter = compileMeter(definition.version);
  const template: Omit<UsageEvent, "customer" | "occurredAt" | "data"> = {
    mode,
    source: "",
    id: "",
    type: definition.version.rule.eventType,
    isStamped: false,
    decidedAt: null,
  };
  return (row) => {
    const place = definition.places.get(placeOf(row.stream, row.logPartition));
    const offset = BigInt(row.offset);
    const occurredAt = Number(row.at);
    const bookedAt = Number(row.booked);
    if (place === undefined || occurredAt < meter.fromAt) return null;
    if (!isCountedAt(place, { offset, occurredAt, bookedAt, cutAt })) return null;
    const data = parseJson(row.payload);
    assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${row.offset}`);
    const contribution = meter.contributionOf({ ...template, customer: row.customer, occurredAt, data });
    // Unreadable only in front of the activation, where it is no mistake: the event was counted before the meter existed.
    if (contribution.kind !== "quantity") return null;
    const { quantity, uniqueText, dims } = contribution;
    const newest = [BigInt(row.at), BigInt(row.stream), BigInt(row.logPartition), offset];
    const hash = uniqueText === null ? null : uniqueHashOf(uniqueText).toString();
    return { customer: row.customer, occurredAt, dims, part: { quantity, newest, hash } };
  };
}

/** Whether the rollups of the partition hold the usage event, as far as they were booked before the cut. */
export function isCountedAt(
  { fromOffset, backfilledAt, untilAt }: MeterPlace,
  usage: {
    readonly offset: bigint;
    readonly occurredAt: number;
    readonly bookedAt: number;
    readonly cutAt: number | null;
  },
): boolean {
  if (usage.occurredAt >= untilAt) return false;
  if (fromOffset !== null && usage.offset >= fromOffset) return true;
  // A backfill is booked with its activation, and reaches back only so far.
  if (backfilledAt === null || (usage.cutAt !== null && backfilledAt >= usage.cutAt)) return false;
  return usage.bookedAt >= backfilledAt - BACKFILL_SPAN_MS;
}
