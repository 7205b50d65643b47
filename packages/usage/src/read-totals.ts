/** Totals of one meter version for many customers at once, each over its own stretch of any second. */
import { type AnalyticsStore, assert, type Mode, type Quantity, windowStartOf } from "@tallyhouse/domain";
import { type CountedUsage, visitCountedUsage } from "./counted-events.ts";
import type { MeterDefinition } from "./meter-definitions.ts";
import { compileFilter, edgesOf, type Refusal } from "./question.ts";
import { addRollups, correctedWindows, needsExpired, selectWhole } from "./read-usage.ts";
import type { CorrectedWindows, CustomerSpan, DimensionFilter, RollupRange } from "./rollup-query.ts";
import { Tally } from "./tally.ts";
import { UTC } from "./zone.ts";

/** One question: what each of these customers used in its own stretch. */
export interface TotalsQuestion {
  readonly mode: Mode;
  readonly definition: MeterDefinition;
  /** Any instants, half-open. Each customer once; {@link CUSTOMERS_BYTES_MAX} bounds how many. */
  readonly spans: readonly CustomerSpan[];
  /** Names of declared dimensions. */
  readonly groupBy: readonly string[];
  readonly where: DimensionFilter;
  /** As those of `UsageQuestion`. */
  readonly cutAt: number | null;
  readonly watermarkAt: number | null;
  readonly rowsMax: number;
  readonly eventsMax: number;
}

/** Usage of one customer and group. */
export interface CustomerGroup {
  readonly customer: string;
  /** Values of `groupBy`, in its order. */
  readonly group: readonly string[];
  readonly quantity: Quantity;
}

/** In no order, or why not. */
export type TotalsReading =
  | { readonly kind: "groups"; readonly groups: readonly CustomerGroup[] }
  | { readonly kind: "refused"; readonly refusal: Refusal };

/**
 * Bytes of names and bounds in one question. They travel in a URL of at most 1 MiB, beside corrected windows (400 kB) and
 * hashes (420 kB).
 */
export const CUSTOMERS_BYTES_MAX = 150_000;

/** Bytes that one customer takes of {@link CUSTOMERS_BYTES_MAX}: its encoded name with quotes and comma, and two bounds. */
export function customerBytes(customer: string): number {
  return encodeURIComponent(customer).length + 12 + 2 * 13;
}

/**
 * One entry per customer and group in which usage still counts. Whole windows come from the rollups in one statement for all
 * customers; edges, and corrected windows where no difference corrects, from counted usage events, which are read first for the
 * reason that `readUsageGroups` states. With a cut that may be read the answer is the same for ever.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readTotalsOfMany(analytics: AnalyticsStore, question: TotalsQuestion): Promise<TotalsReading> {
  const { mode, definition, spans, where, groupBy, cutAt } = question;
  const { version } = definition;
  const tallies = new Tallies(question);
  const whole = wholeSpansOf(spans);
  const range: RollupRange = { mode, customer: null, version, where, cutAt, ...boundsOf(whole), spans: whole };
  const without = whole.length === 0 ? [] : await correctedWindows(analytics, range);
  if (without === null) return { kind: "refused", refusal: { kind: "events" } };
  const edges = edgeWindowsOf(spans);
  if (needsExpired(question, { edges: spans.flatMap((span) => edgesOf(span).edges), without }))
    return { kind: "refused", refusal: { kind: "expired" } };
  const [only] = spans.length === 1 ? spans : [];
  const isComplete = await visitCountedUsage(
    analytics,
    {
      ...question,
      // One customer's edges are read by their own bounds; those of many as windows, of which one read takes hundreds.
      edges: only === undefined ? null : { customer: only.customer, spans: edgesOf(only).edges },
      windows: only === undefined ? [...without, ...edges] : without,
    },
    (usage) => tallies.addEvent(usage),
  );
  if (!isComplete) return { kind: "refused", refusal: { kind: "events" } };
  if (whole.length > 0) {
    const rollups = { ...range, groupBy, window: "total" as const, zone: UTC, without, rowsMax: question.rowsMax + 1 };
    for (const row of await selectWhole(analytics, rollups, tallies.hashes())) {
      const [customer = "", ...group] = row.groupValues;
      addRollups(tallies.at(customer, group), row);
    }
  }
  const groups = tallies.groups();
  return groups.length > question.rowsMax ? { kind: "refused", refusal: { kind: "rows" } } : { kind: "groups", groups };
}

/** The whole windows of those who have any. */
function wholeSpansOf(spans: readonly CustomerSpan[]): CustomerSpan[] {
  return spans
    .map(({ customer, ...span }) => ({ customer, ...edgesOf(span) }))
    .filter(({ wholeFromAt, wholeToAt }) => wholeFromAt < wholeToAt)
    .map(({ customer, wholeFromAt, wholeToAt }) => ({ customer, fromAt: wholeFromAt, toAt: wholeToAt }));
}

/** What holds all of the spans. */
function boundsOf(spans: readonly CustomerSpan[]): { readonly fromAt: number; readonly toAt: number } {
  let [fromAt, toAt] = [spans[0]?.fromAt ?? 0, spans[0]?.toAt ?? 0];
  for (const span of spans) [fromAt, toAt] = [Math.min(fromAt, span.fromAt), Math.max(toAt, span.toAt)];
  return { fromAt, toAt };
}

/** The windows that the edges lie in, each in one, by time, so that one read of some of them stays within a short stretch. */
function edgeWindowsOf(spans: readonly CustomerSpan[]): CorrectedWindows[] {
  const windows = spans.flatMap(({ customer, ...span }) =>
    edgesOf(span).edges.map(({ fromAt }) => ({ customer, start: windowStartOf(fromAt) / 1_000 })),
  );
  return windows.sort((a, b) => a.start - b.start).map(({ customer, start }) => ({ customer, starts: [start] }));
}

/** The rows of an answer while they grow. */
class Tallies {
  readonly #question: TotalsQuestion;
  readonly #spans: ReadonlyMap<string, CustomerSpan>;
  readonly #rows = new Map<string, { customer: string; group: readonly string[]; tally: Tally }>();
  readonly #groupPositions: readonly number[];
  readonly #passes: (dims: readonly string[]) => boolean;

  constructor(question: TotalsQuestion) {
    this.#question = question;
    this.#spans = new Map(question.spans.map((span) => [span.customer, span]));
    assert(this.#spans.size === question.spans.length, "each customer is asked for once");
    const names = Object.keys(question.definition.version.rule.dimensions);
    this.#groupPositions = question.groupBy.map((name) => names.indexOf(name));
    this.#passes = compileFilter(question.definition, question.where);
  }

  at(customer: string, group: readonly string[]): Tally {
    const key = JSON.stringify([customer, ...group]);
    let row = this.#rows.get(key);
    if (row === undefined) {
      row = { customer, group, tally: new Tally(this.#question.definition.version.rule.aggregation) };
      this.#rows.set(key, row);
    }
    return row.tally;
  }

  /** A window at an edge holds usage events outside of the stretch too, and of every value. */
  addEvent({ customer, occurredAt, dims, part }: CountedUsage): void {
    const span = this.#spans.get(customer);
    if (span === undefined || occurredAt < span.fromAt || occurredAt >= span.toAt) return;
    if (!this.#passes(dims)) return;
    const group = this.#groupPositions.map((position) => dims[position] ?? "");
    this.at(customer, group).add(part);
  }

  hashes(): readonly string[] {
    const all = new Set<string>();
    for (const { tally } of this.#rows.values()) for (const hash of tally.hashes) all.add(hash);
    return [...all];
  }

  groups(): CustomerGroup[] {
    return [...this.#rows.values()].map(({ customer, group, tally }) => ({
      customer,
      group,
      quantity: tally.quantity,
    }));
  }
}
