/** Counted usage events of one customer in one strict order, page by page: what digests, exports and the depth of explain are made of. */
import { createHash } from "node:crypto";
import {
  type AnalyticsStore,
  assert,
  compileMeter,
  DAY_MS,
  formatQuantity,
  isJsonObject,
  type JsonObject,
  type Mode,
  parseJson,
  type UsageEvent,
  WINDOW_MS,
} from "@tallyhouse/domain";
import { isCountedAt } from "./counted-events.ts";
import type { MeterDefinition } from "./meter-definitions.ts";
import { placeOf } from "./meter-places.ts";
import type { Span } from "./question.ts";
import { BOOKED_BEFORE_MAX_MS, cutParameter } from "./rollup-query.ts";

/** Raw usage events are kept 400 days after their booking; ten of them for a watermark that lags. */
const RAW_KEPT_MS = 390 * DAY_MS;
/** Rows of one read, about: some 10 MB of payloads at their usual size. A fuller stretch is cut in two. */
const PAGE_ROWS_MAX = 20_000;
/** How much larger each page is than the one before it, where the first was small. */
const PAGE_GROWTH = 4;
/** Windows of one look at how full they are: 31 days, so a month is one look and a year twelve. */
const COUNTED_WINDOWS_MAX = 2_976;

/** Where a usage event stands in the order: by time, then by its place in the log. */
export interface EventPlace {
  readonly occurredAt: number;
  readonly stream: number;
  readonly partition: number;
  readonly offset: number;
}

/** What one usage event gave to one meter version. */
export interface WalkedPart {
  readonly meter: string;
  readonly version: number;
  /** Every declared dimension, in their order. */
  readonly dims: readonly string[];
  /** Exact decimal text; for `unique_count` the first 32 hex digits of the SHA-256 of the text it tells apart. */
  readonly value: string;
}

/** One counted usage event with everything it gave to the meters asked for: at least one part. */
export interface WalkedEvent extends EventPlace {
  readonly source: string;
  readonly id: string;
  readonly receivedAt: number;
  readonly bookedAt: number;
  /** In the order of the question's definitions. */
  readonly parts: readonly WalkedPart[];
}

/** Which usage events, as known at which cut. */
export interface WalkQuestion extends Span {
  readonly mode: Mode;
  readonly customer: string;
  /** Meter versions of one event type: each payload is read once for all of them. */
  readonly definitions: readonly MeterDefinition[];
  /** Only what was booked before it, without what a void booked before it took back. */
  readonly cutAt: number;
  /** Begin behind this place; null: at the start of the span. */
  readonly after?: EventPlace | null;
  /** Rows of the first read: a caller who wants ten does not read a day. Later ones grow to a full page. */
  readonly firstRows?: number;
}

/** Whether retention has left the raw usage events from this instant on; a walk over less would be too short. */
export function hasRawEvents(fromAt: number, watermarkAt: number): boolean {
  return fromAt >= watermarkAt - RAW_KEPT_MS;
}

/**
 * Pages of usage events, some of them empty, ordered by occurredAt, stream, partition, offset across all pages. What counts is what the rollups count,
 * so the values of a span add up to its quantity. At a sealed cut the same for ever, as long as {@link hasRawEvents}.
 *
 * How full each window is comes first: pages cut at windows read their own granules of the key and nothing twice, where
 * `ORDER BY … LIMIT` would read and sort the rest of the span for every page.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function* walkCountedEvents(
  analytics: AnalyticsStore,
  question: WalkQuestion,
): AsyncGenerator<readonly WalkedEvent[]> {
  const types = new Set(question.definitions.map(({ version }) => version.rule.eventType));
  assert(types.size === 1, "a walk is over usage events of one type");
  const { after = null, toAt, firstRows = PAGE_ROWS_MAX } = question;
  const partsOf = compileParts(question);
  let pageRows = firstRows;
  let fromAt = Math.max(question.fromAt, after?.occurredAt ?? question.fromAt);
  while (fromAt < toAt) {
    const lookToAt = Math.min(toAt, (Math.floor(fromAt / WINDOW_MS) + COUNTED_WINDOWS_MAX) * WINDOW_MS);
    const windows = await countWindows(analytics, question, { fromAt, toAt: lookToAt });
    for (let next = 0; next < windows.length;) {
      const { span, until } = takeSpan(windows, { next, pageRows, within: { fromAt, toAt: lookToAt } });
      for await (const page of readSpan(analytics, question, span)) {
        yield page.flatMap((row) => (isBehind(row, after) ? (partsOf(row) ?? []) : []));
      }
      next = until;
      pageRows = Math.min(PAGE_ROWS_MAX, PAGE_GROWTH * pageRows);
    }
    fromAt = lookToAt;
  }
}

interface WindowCount {
  /** Epoch seconds. */
  readonly start: number;
  readonly events: number;
  /** Between these, inclusive, every one of them was booked. */
  readonly bookedFromAt: number;
  readonly bookedToAt: number;
}

/** A stretch, and when its usage events were booked: the days to read, without which FINAL would read a granule of every day. */
interface BookedSpan extends Span {
  readonly bookedFromAt: number;
  readonly bookedToAt: number;
}

/** Windows from `next` on until they hold `pageRows`: at least one. */
function takeSpan(
  windows: readonly WindowCount[],
  { next, pageRows, within }: { readonly next: number; readonly pageRows: number; readonly within: Span },
): { readonly span: BookedSpan; readonly until: number } {
  let until = next;
  let rows = 0;
  do {
    rows += windows[until]?.events ?? 0;
    until += 1;
  } while (until < windows.length && rows + (windows[until]?.events ?? 0) <= pageRows);
  const taken = windows.slice(next, until);
  const [first, last] = [taken[0], taken.at(-1)];
  assert(first !== undefined && last !== undefined, "a span holds a window");
  return {
    span: {
      bookedFromAt: Math.min(...taken.map(({ bookedFromAt }) => bookedFromAt)),
      bookedToAt: Math.max(...taken.map(({ bookedToAt }) => bookedToAt)),
      fromAt: Math.max(within.fromAt, first.start * 1_000),
      toAt: Math.min(within.toAt, last.start * 1_000 + WINDOW_MS),
    },
    until,
  };
}

/** The order within one page; the SQL sorts, and this is what it sorts by. */
function isBehind(row: EventPlace, place: EventPlace | null): boolean {
  if (place === null) return true;
  const order =
    row.occurredAt - place.occurredAt ||
    row.stream - place.stream ||
    row.partition - place.partition ||
    row.offset - place.offset;
  return order > 0;
}

function boundsParameters(question: WalkQuestion, span: BookedSpan): Record<string, unknown> {
  const { mode, customer, cutAt, definitions } = question;
  return {
    mode,
    customer,
    type: definitions[0]?.version.rule.eventType ?? "",
    fromAt: span.fromAt,
    toAt: span.toAt,
    bookedFromAt: span.bookedFromAt,
    bookedToAt: span.bookedToAt,
    ...cutParameter(cutAt),
  };
}

/** The primary key of raw_events in its order, then the days (partitions) in which such usage can be booked. */
const BOUNDS_SQL = `mode = {mode:String} AND customer = {customer:String} AND type = {type:String}
       AND occurredAt >= fromUnixTimestamp64Milli({fromAt:Int64}, 'UTC')
       AND occurredAt < fromUnixTimestamp64Milli({toAt:Int64}, 'UTC')
       AND bookedAt >= fromUnixTimestamp64Milli({bookedFromAt:Int64}, 'UTC')
       AND bookedAt <= fromUnixTimestamp64Milli({bookedToAt:Int64}, 'UTC') AND bookedAt < {cut:DateTime('UTC')}`;

/** How many rows each window may have: copies and voided usage events are among them, which only makes pages smaller. */
async function countWindows(analytics: AnalyticsStore, question: WalkQuestion, span: Span): Promise<WindowCount[]> {
  const rows = await analytics.select<Readonly<Record<"events" | "first" | "last", string>> & { start: number }>(
    `SELECT toUnixTimestamp(toStartOfFifteenMinutes(occurredAt)) AS start, toString(count()) AS events,
       toString(toUnixTimestamp64Milli(min(bookedAt))) AS first, toString(toUnixTimestamp64Milli(max(bookedAt))) AS last
     FROM raw_events WHERE ${BOUNDS_SQL} AND status = 'counted'
     GROUP BY start ORDER BY start`,
    boundsParameters(question, {
      ...span,
      bookedFromAt: Math.max(0, span.fromAt - BOOKED_BEFORE_MAX_MS),
      bookedToAt: question.cutAt,
    }),
  );
  return rows.map(({ start, events, first, last }) => ({
    start,
    events: Number(events),
    bookedFromAt: Number(first),
    bookedToAt: Number(last),
  }));
}

interface Row extends EventPlace {
  readonly source: string;
  readonly id: string;
  readonly receivedAt: number;
  readonly bookedAt: number;
  readonly payload: string;
}

/** Rows of a span in their order; one with more than a page, which only a crowded window is, is cut in two. */
async function* readSpan(
  analytics: AnalyticsStore,
  question: WalkQuestion,
  span: BookedSpan,
): AsyncGenerator<readonly Row[]> {
  const spans: BookedSpan[] = [span];
  for (let part = spans.pop(); part !== undefined; part = spans.pop()) {
    const middleAt = Math.floor((part.fromAt + part.toAt) / 2);
    // A millisecond cannot be cut: its usage events are read together, however many.
    const rowsMax = middleAt === part.fromAt ? Number.MAX_SAFE_INTEGER : 2 * PAGE_ROWS_MAX;
    const rows = await selectRows(analytics, { question, span: part, rowsMax });
    if (rows.length < rowsMax) yield rows;
    else spans.push({ ...part, fromAt: middleAt }, { ...part, toAt: middleAt });
  }
}

async function selectRows(
  analytics: AnalyticsStore,
  input: { readonly question: WalkQuestion; readonly span: BookedSpan; readonly rowsMax: number },
): Promise<Row[]> {
  const rows = await analytics.select<
    Pick<Row, "source" | "id" | "stream" | "partition" | "payload"> &
      Readonly<Record<"at" | "received" | "booked" | "offset", string>>
  >(
    `SELECT toString(toUnixTimestamp64Milli(occurredAt)) AS at, toString(toUnixTimestamp64Milli(receivedAt)) AS received,
       toString(toUnixTimestamp64Milli(bookedAt)) AS booked, stream, logPartition AS partition, toString(logOffset) AS offset,
       toString(source) AS source, id, payload
     FROM counted_events_at(cut = {cut:DateTime('UTC')}) WHERE ${BOUNDS_SQL}
     ORDER BY occurredAt, stream, logPartition, logOffset
     LIMIT {rowsMax:UInt64}`,
    { ...boundsParameters(input.question, input.span), rowsMax: input.rowsMax },
  );
  return rows.map(({ at, received, booked, offset, ...row }) => ({
    ...row,
    occurredAt: Number(at),
    receivedAt: Number(received),
    bookedAt: Number(booked),
    offset: Number(offset),
  }));
}

/** What one raw row gives to the meters; null for nothing. */
function compileParts(question: WalkQuestion): (row: Row) => WalkedEvent | null {
  const { mode, customer, cutAt } = question;
  const meters = question.definitions.map((definition) => ({ definition, meter: compileMeter(definition.version) }));
  const template: Omit<UsageEvent, "occurredAt" | "data"> = {
    mode,
    customer,
    source: "",
    id: "",
    type: question.definitions[0]?.version.rule.eventType ?? "",
    isStamped: false,
    decidedAt: null,
  };
  return ({ payload, ...row }) => {
    const data = parseJson(payload);
    assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${row.offset}`);
    const event = { ...template, occurredAt: row.occurredAt, data };
    const parts = meters.flatMap((one) => (isCounted(one, row, cutAt) ? partOf(one, event) : []));
    return parts.length === 0 ? null : { ...row, parts };
  };
}

interface CountingMeter {
  readonly definition: MeterDefinition;
  readonly meter: ReturnType<typeof compileMeter>;
}

function isCounted({ definition, meter }: CountingMeter, row: Omit<Row, "payload">, cutAt: number): boolean {
  const place = definition.places.get(placeOf(row.stream, row.partition));
  if (place === undefined || row.occurredAt < meter.fromAt) return false;
  return isCountedAt(place, { ...row, offset: BigInt(row.offset), cutAt });
}

/** Unreadable only in front of the activation, where it is no mistake: the event was counted before the meter existed. */
function partOf({ meter }: CountingMeter, event: UsageEvent & { readonly data: JsonObject }): WalkedPart[] {
  const contribution = meter.contributionOf(event);
  if (contribution.kind !== "quantity") return [];
  const { quantity, uniqueText, dims } = contribution;
  const value =
    uniqueText === null ? formatQuantity(quantity) : createHash("sha256").update(uniqueText).digest("hex").slice(0, 32);
  return [{ meter: meter.version.meter, version: meter.version.version, dims, value }];
}
