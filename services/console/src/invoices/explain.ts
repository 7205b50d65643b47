/** From a statement down to the usage events: lines with their arithmetic, a line's windows, a window's usage events, as known at the cut. */
import { type ItemEvent, type StatementDocument, type StoredStatement, walkStatement } from "@tallyhouse/billing";
import {
  type AnalyticsStore,
  assert,
  floorTo,
  formatInstant,
  formatQuantity,
  parseInstant,
  WINDOW_MS,
} from "@tallyhouse/domain";
import {
  type EventPlace,
  hasRawEvents,
  type MeterDefinition,
  readDefinitions,
  readUsageGroups,
  readWatermark,
  type SealedStream,
  UTC,
} from "@tallyhouse/usage";
import { type Problem, queryInvalid } from "../problem.ts";
import { explainPath } from "./invoices-list.ts";
import {
  eventsCursor,
  eventsCursorText,
  type ExplainQuery,
  INVOICE_LIMITS,
  type Span,
  spanView,
  windowOf,
  windowsCursor,
} from "./invoice-parameters.ts";

type RatedItem = StatementDocument["plan"]["items"][number];
type BillLine = StatementDocument["lines"][number];

/** What an explanation is read from. */
export interface ExplainPorts {
  readonly analytics: AnalyticsStore;
  readonly stream: SealedStream;
}

/** A line's usage in one window, cut to the period. */
export interface WindowView {
  readonly start: string;
  readonly end: string;
  /** Exact decimal text. */
  readonly quantity: string;
  /** Its usage events. */
  readonly events: string;
}

/** A counted usage event. */
export interface EventView {
  readonly source: string;
  readonly id: string;
  readonly occurredAt: string;
  readonly receivedAt: string;
  readonly bookedAt: string;
  /** `stream/partition/offset` in the log. */
  readonly place: string;
  readonly dims: Readonly<Record<string, string>>;
  /** What it gave to the line; for `unique_count` the start of the SHA-256 of the text that is told apart. */
  readonly value: string;
}

/** What every answer about a line begins with. */
interface LineHead {
  readonly id: string;
  readonly customer: string;
  readonly plan: string;
  readonly line: string;
  readonly quantity: string;
  readonly rule: object | null;
  readonly where: RatedItem["where"];
  readonly digest: string;
  readonly eventsDigest: string | null;
  /** The cut: what is shown is what was known then. */
  readonly asOf: string;
}

export type LineExplanation =
  | (LineHead & {
      readonly kind: "windows";
      /** How windows give the line's quantity. */
      readonly joinedBy: string;
      readonly data: readonly WindowView[];
      readonly next: string | null;
    })
  | (LineHead & {
      readonly kind: "events";
      readonly window: { readonly start: string; readonly end: string };
      readonly data: readonly EventView[];
      readonly next: string | null;
    });

export type Explaining<Explanation> =
  | { readonly kind: "explained"; readonly explanation: Explanation }
  | { readonly kind: "problem"; readonly problem: Problem };

/** The whole statement: every line with its price, its rule, its steps and where to go deeper. Pure. */
export function explainStatement({ document, digest, sealedAt }: StoredStatement): object {
  const { rules, totals, lines, plan, ...rest } = document;
  return {
    ...rest,
    plan: plan.plan,
    currency: plan.currency,
    digest,
    sealedAt: formatInstant(sealedAt),
    asOf: document.cut,
    lines: lines.map((line) => {
      const item = plan.items.find(({ key }) => key === line.key);
      const total = totals.find(({ item: key }) => key === line.key);
      if (item === undefined || total === undefined) return line;
      return {
        ...line,
        where: item.where,
        price: item.price,
        rule: ruleOf(document, line),
        events: total.events,
        eventsDigest: total.eventsDigest,
        explain: {
          windows: explainPath(document.id, { line: line.key }),
          events: explainPath(document.id, { line: line.key, window: "all" }),
        },
      };
    }),
    rules,
    export: `/v1/invoices/${document.id}/export`,
  };
}

function ruleOf(
  { rules }: StatementDocument,
  { meter, meterVersion }: Pick<BillLine, "meter" | "meterVersion">,
): StatementDocument["rules"][number] | null {
  return rules.find((rule) => rule.meter === meter && rule.version === meterVersion) ?? null;
}

/**
 * One line's windows, or usage events of one window or of all: a page of them.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function explainLine(
  ports: ExplainPorts,
  stored: StoredStatement,
  query: ExplainQuery & { readonly line: string },
): Promise<Explaining<LineExplanation>> {
  const { document, digest } = stored;
  const line = document.lines.find(({ key }) => key === query.line);
  if (line === undefined) {
    const keys = document.lines.map(({ key }) => key).join(", ");
    return refused("line", `names no line of the statement: it has ${keys}`);
  }
  const item = document.plan.items.find(({ key }) => key === line.key);
  const head: LineHead = {
    id: document.id,
    customer: document.customer,
    plan: document.plan.plan,
    line: line.key,
    quantity: line.quantity,
    rule: ruleOf(document, line),
    where: item?.where ?? {},
    digest,
    eventsDigest: document.totals.find((total) => total.item === line.key)?.eventsDigest ?? null,
    asOf: document.cut,
  };
  if (item === undefined) return refused("line", "is the fee of the period: no usage stands behind it");
  return query.window === undefined
    ? explainWindows(ports, { document, item, head }, query)
    : explainEvents(ports, { document, item, head }, { ...query, window: query.window });
}

/** One item of a statement. */
interface LineOf {
  readonly document: StatementDocument;
  readonly item: RatedItem;
  readonly head: LineHead;
}

const JOINED_BY = {
  sum: "the sum of the windows",
  count: "the sum of the windows",
  max: "the largest of the windows",
  min: "the smallest of the windows",
  latest: "the last window's",
  unique_count: "the different values of all windows together: one that occurs in several counts once",
} as const;

async function explainWindows(
  ports: ExplainPorts,
  { document, item, head }: LineOf,
  query: ExplainQuery,
): Promise<Explaining<LineExplanation>> {
  const period = periodOf(document);
  const { watermarkAt, definition } = await readRule(ports, document, item);
  if (definition === null) return explained({ ...head, kind: "windows", joinedBy: "", data: [], next: null });
  const fromAt = query.cursor === undefined ? period.fromAt : (windowsCursor(query.cursor) ?? period.fromAt);
  const endAt = floorTo(fromAt, WINDOW_MS) + INVOICE_LIMITS.windowsMax * WINDOW_MS;
  const toAt = Math.min(period.toAt, endAt);
  if (fromAt < period.fromAt || fromAt >= toAt) return refused("cursor", "lies outside the period");
  const reading = await readUsageGroups(ports.analytics, {
    mode: document.mode,
    customer: document.customer,
    definition,
    groupBy: [],
    where: item.where,
    fromAt,
    toAt,
    window: "15m",
    zone: UTC,
    cutAt: cutAtOf(document),
    watermarkAt,
    rowsMax: INVOICE_LIMITS.windowsMax,
    eventsMax: INVOICE_LIMITS.foldedEventsMax,
  });
  if (reading.kind === "refused") {
    if (reading.refusal.kind === "expired") return expired();
    return refused("line", "has too many corrected windows for one answer: its usage events answer, with window=all");
  }
  return explained({
    ...head,
    kind: "windows",
    joinedBy: JOINED_BY[definition.version.rule.aggregation],
    data: reading.groups.map(({ startAt, endAt: windowEndAt, quantity }) => ({
      ...spanView({ fromAt: startAt, toAt: windowEndAt }),
      quantity: formatQuantity(quantity),
      events: explainPath(document.id, { line: item.key, window: formatInstant(startAt) }),
    })),
    next: toAt < period.toAt ? formatInstant(toAt) : null,
  });
}

async function explainEvents(
  ports: ExplainPorts,
  { document, item, head }: LineOf,
  query: ExplainQuery & { readonly window: number | "all" },
): Promise<Explaining<LineExplanation>> {
  const period = periodOf(document);
  const span = query.window === "all" ? period : windowOf(query.window, period);
  if (span === null)
    return refused("window", "must be all, or the start of one of the line's windows, inside the period");
  const { watermarkAt, definition } = await readRule(ports, document, item);
  if (watermarkAt !== null && !hasRawEvents(span.fromAt, watermarkAt)) return expired();
  const { events, reached } = await takeEvents(ports, { document, item, definition, span }, query);
  return explained({
    ...head,
    kind: "events",
    window: spanView(span),
    data: events.map((one) => eventView(one, ruleOf(document, item)?.dimensions ?? [])),
    next: reached === null ? null : eventsCursorText(reached),
  });
}

/** Up to the page's limit, or as far as a bounded number of reads gets; `reached` null: that was all. */
async function takeEvents(
  { analytics }: ExplainPorts,
  of: Pick<LineOf, "document" | "item"> & { readonly definition: MeterDefinition | null; readonly span: Span },
  { limit, cursor }: ExplainQuery,
): Promise<{ readonly events: readonly ItemEvent[]; readonly reached: EventPlace | null }> {
  const events: ItemEvent[] = [];
  let reached: EventPlace | null = null;
  let reads = 0;
  const definitions = of.definition === null ? [] : [of.definition];
  const after = cursor === undefined ? null : eventsCursor(cursor);
  const wanted = { item: of.item.key, span: of.span, after, firstRows: limit + 1 };
  for await (const page of walkStatement(analytics, { document: of.document, definitions }, wanted)) {
    events.push(...page.events.slice(0, limit - events.length));
    // A full page asks for no other one to see whether it was the last: the next one may be empty.
    if (events.length === limit) return { events, reached: events.at(-1)?.event ?? null };
    reached = page.reached ?? reached;
    reads += 1;
    if (reads >= INVOICE_LIMITS.eventReadsMax && reached !== null) return { events, reached };
  }
  return { events, reached: null };
}

function eventView({ event, part }: ItemEvent, names: readonly string[]): EventView {
  return {
    source: event.source,
    id: event.id,
    occurredAt: formatInstant(event.occurredAt),
    receivedAt: formatInstant(event.receivedAt),
    bookedAt: formatInstant(event.bookedAt),
    place: `${event.stream}/${event.partition}/${event.offset}`,
    dims: Object.fromEntries(names.map((name, index) => [name, part.dims[index] ?? ""])),
    value: part.value,
  };
}

/** The watermark first, the definitions after it. Null: the meter version was activated nowhere, so it counted nothing. */
async function readRule(
  { analytics, stream }: ExplainPorts,
  { mode }: StatementDocument,
  { meter, meterVersion }: RatedItem,
): Promise<{ readonly watermarkAt: number | null; readonly definition: MeterDefinition | null }> {
  const watermarkAt = await readWatermark(analytics, stream);
  const definitions = await readDefinitions(analytics, stream, { mode, meter });
  const definition = definitions.find(({ version }) => version.version === meterVersion) ?? null;
  return { watermarkAt, definition };
}

/** The statement's period. */
export function periodOf({ period }: StatementDocument): Span {
  return { fromAt: instantOf(period.start), toAt: instantOf(period.end) };
}

function cutAtOf({ cut }: StatementDocument): number {
  return instantOf(cut);
}

function instantOf(text: string): number {
  const at = parseInstant(text);
  assert(at !== null, `an instant of a statement: ${text}`);
  return at;
}

function explained<Explanation>(explanation: Explanation): Explaining<Explanation> {
  return { kind: "explained", explanation };
}

function refused(field: string, rule: string): { readonly kind: "problem"; readonly problem: Problem } {
  return { kind: "problem", problem: queryInvalid([{ field, rule }]) };
}

/** Bills stay; the usage events behind them are kept for a time. */
export function expired(): { readonly kind: "problem"; readonly problem: Problem } {
  const detail =
    "the usage events of this period are no longer kept (some 400 days); the statement and its digests stay as they are";
  return { kind: "problem", problem: { status: 410, code: "EVENTS_EXPIRED", detail } };
}
