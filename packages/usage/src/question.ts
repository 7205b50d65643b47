/** What can be asked of the stored usage of one meter version. */
import { assert, ceilTo, floorTo, type Mode, type Quantity, WINDOW_MS } from "@tallyhouse/domain";
import type { MeterDefinition } from "./meter-definitions.ts";
import type { DimensionFilter } from "./rollup-query.ts";
import type { UsageWindow, Zone } from "./zone.ts";

/** One question: usage of a meter version within `[fromAt, toAt)`, by buckets and groups. */
export interface UsageQuestion {
  readonly mode: Mode;
  /** null: all customers together; then the range is whole windows. */
  readonly customer: string | null;
  readonly definition: MeterDefinition;
  /** Names of declared dimensions. */
  readonly groupBy: readonly string[];
  /** Usage of these values alone; absent: all. */
  readonly where?: DimensionFilter;
  /** Any instant; rows at both ends are cut to them. */
  readonly fromAt: number;
  readonly toAt: number;
  readonly window: UsageWindow;
  readonly zone: Zone;
  /** A cut (see seal.ts): only what was booked before it counts, voids too. null: everything stored. */
  readonly cutAt: number | null;
  /** How far the figures reach: what is much older than it may have left the raw usage events. null: nothing did. */
  readonly watermarkAt: number | null;
  /** More rows are refused. */
  readonly rowsMax: number;
  /** More usage events to fold one by one (edges, windows with corrections) are refused. */
  readonly eventsMax: number;
}

/** Usage of one bucket and group. The bucket is cut to the range that was asked for. */
export interface UsageGroup {
  readonly startAt: number;
  readonly endAt: number;
  /** Values of `groupBy`, in its order. */
  readonly group: readonly string[];
  readonly quantity: Quantity;
}

/** Why a question is not answered: too many rows, too many usage events to fold, or raw usage events that retention removed. */
export type Refusal = { readonly kind: "rows" } | { readonly kind: "events" } | { readonly kind: "expired" };

/** A stretch `[fromAt, toAt)`. */
export interface Span {
  readonly fromAt: number;
  readonly toAt: number;
}

/** A range as whole windows (none when `wholeFromAt` is not before `wholeToAt`) and what is left of them at both ends. */
export function edgesOf(range: Span): { wholeFromAt: number; wholeToAt: number; edges: readonly Span[] } {
  const wholeFromAt = ceilTo(range.fromAt, WINDOW_MS);
  const wholeToAt = floorTo(range.toAt, WINDOW_MS);
  if (wholeFromAt > wholeToAt) return { wholeFromAt, wholeToAt, edges: [{ fromAt: range.fromAt, toAt: range.toAt }] };
  const edges = [
    { fromAt: range.fromAt, toAt: wholeFromAt },
    { fromAt: wholeToAt, toAt: range.toAt },
  ].filter(({ fromAt, toAt }) => fromAt < toAt);
  return { wholeFromAt, wholeToAt, edges };
}

/** Whether usage with these dimensions (every declared one, in their order) passes a filter. */
export function compileFilter(
  { version }: MeterDefinition,
  where: DimensionFilter = {},
): (dims: readonly string[]) => boolean {
  const names = Object.keys(version.rule.dimensions);
  const filters = Object.entries(where).map(([name, values]) => {
    assert(names.includes(name), `no dimension of the meter: ${name}`);
    return { position: names.indexOf(name), values: new Set(values) };
  });
  return (dims) => filters.every(({ position, values }) => values.has(dims[position] ?? ""));
}
