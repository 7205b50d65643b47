/** Usage by local day, zero days included. */
import { type AnalyticsStore, assert, DAY_MS, type Mode, type Quantity, ZERO_QUANTITY } from "@tallyhouse/domain";
import {
  bucketOf,
  type DimensionFilter,
  formatLocal,
  type MeterDefinition,
  readUsageGroups,
  type Refusal,
  type Zone,
} from "@tallyhouse/usage";

/** What one customer used of one meter version on one local day, as far as the day lies in the range. */
export interface DayUsage {
  /** `2026-11-20` */
  readonly date: string;
  readonly quantity: Quantity;
}

/** Days in order, without gap. */
export type DailyReading =
  | { readonly kind: "days"; readonly days: readonly DayUsage[] }
  | { readonly kind: "refused"; readonly refusal: Refusal };

/** Two years of days: the longest period is a year. */
const DAYS_MAX = 732;
/** Usage events at the edges and in corrected windows of one reading. */
const EVENTS_MAX = 1_000_000;

/**
 * Usage of each local day that meets `[fromAt, toAt)`.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readDailyUsage(
  analytics: AnalyticsStore,
  question: {
    readonly mode: Mode;
    readonly customer: string;
    readonly definition: MeterDefinition;
    readonly where: DimensionFilter;
    readonly fromAt: number;
    readonly toAt: number;
    readonly zone: Zone;
    readonly watermarkAt: number | null;
  },
): Promise<DailyReading> {
  const { fromAt, toAt, zone } = question;
  const reading = await readUsageGroups(analytics, {
    ...question,
    groupBy: [],
    window: "day",
    cutAt: null,
    rowsMax: DAYS_MAX,
    eventsMax: EVENTS_MAX,
  });
  if (reading.kind === "refused") return reading;
  const found = new Map(reading.groups.map(({ startAt, quantity }) => [localDateOf(zone, startAt), quantity]));
  const days = localDates(zone, { fromAt, toAt }).map((date) => ({ date, quantity: found.get(date) ?? ZERO_QUANTITY }));
  return { kind: "days", days };
}

/** The zone's date at the instant: `2026-11-20`. */
export function localDateOf(zone: Zone, at: number): string {
  return formatLocal(zone, at).slice(0, 10);
}

/** Every local date that meets the range, in order; none of an empty one. */
export function localDates(zone: Zone, range: { readonly fromAt: number; readonly toAt: number }): string[] {
  if (range.fromAt >= range.toAt) return [];
  const last = localDateOf(zone, range.toAt - 1);
  const dates: string[] = [];
  // Dates are counted on a calendar of their own, where every day has 24 hours.
  for (let dayAt = Date.parse(localDateOf(zone, range.fromAt)); dates.at(-1) !== last; dayAt += DAY_MS) {
    assert(dates.length < DAYS_MAX, "a period has a bounded number of days");
    dates.push(new Date(dayAt).toISOString().slice(0, 10));
  }
  return dates;
}

/** The local day that holds the instant. */
export function localDayOf(zone: Zone, at: number): { readonly startAt: number; readonly endAt: number } {
  return bucketOf(zone, "day", at);
}
