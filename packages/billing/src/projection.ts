/**
 * What a period's usage will be when it ends, estimated: exact arithmetic on an estimate, so that equal facts give equal figures.
 * docs/projection.md states the formulas. Pure.
 */
import { type Aggregation, assert, ONE_QUANTITY, type Quantity, quantityFromScaled } from "@tallyhouse/domain";

/** Whole local days that a week has. */
const WEEK_DAYS = 7;
/** Weeks that are looked at: two at least, so that there is something to compare. */
export const HISTORY_WEEKS = { min: 2, max: 4 } as const;

/** A local day of which some is still to come within the period. */
export interface RestDay {
  /** How much of the day is to come: `partMs` of `dayMs`. */
  readonly partMs: number;
  readonly dayMs: number;
}

/** What is known of one item. */
export interface ItemSoFar {
  readonly aggregation: Aggregation;
  /** Of the period so far. */
  readonly counted: Quantity;
  readonly elapsedMs: number;
  readonly remainingMs: number;
  /** Usage of the whole local days before today, oldest first, without gap; what lies before the customer's start is not in it. */
  readonly days: readonly Quantity[];
  /** Today, then the days after it, up to the period's end. */
  readonly rest: readonly RestDay[];
}

/**
 * `weekdays`: each of the last weeks repeats itself; likely is their mean, low and high the least and the most of them. `run_rate`: as
 * so far; half and twice the rest are low and high. `counted`: what does not grow with time stays as it is.
 */
export interface Projection {
  readonly method: "weekdays" | "run_rate" | "counted";
  readonly low: Quantity;
  readonly likely: Quantity;
  readonly high: Quantity;
}

/** Estimates what one item's quantity will be at the end of the period. */
export function projectItem(item: ItemSoFar): Projection {
  const { aggregation, counted, elapsedMs } = item;
  if (aggregation === "sum" || aggregation === "count") {
    if (item.days.length >= HISTORY_WEEKS.min * WEEK_DAYS) return byWeekdays(item);
    return elapsedMs > 0 ? byRunRate(item) : unchanged(counted);
  }
  if (aggregation === "unique_count" && elapsedMs > 0) {
    // Values come again: the run rate of different ones is the most there can be, and what was counted the least.
    const rest = restByRunRate(item);
    return { method: "run_rate", low: counted, likely: whole(counted, half(rest)), high: whole(counted, rest) };
  }
  return unchanged(counted);
}

function unchanged(counted: Quantity): Projection {
  return { method: "counted", low: counted, likely: counted, high: counted };
}

function byRunRate(item: ItemSoFar): Projection {
  const { counted } = item;
  const rest = restByRunRate(item);
  const ends = [half(rest), rest, { ...rest, top: 2n * rest.top }].map((each) => endOf(item, each));
  return { method: "run_rate", ...inOrder(ends[0] ?? counted, ends[1] ?? counted, ends[2] ?? counted) };
}

function byWeekdays(item: ItemSoFar): Projection {
  const weeks = Math.min(HISTORY_WEEKS.max, Math.floor(item.days.length / WEEK_DAYS));
  const rests = Array.from({ length: weeks }, (_, week) => restLikeWeek(item, week));
  const mean = rests.reduce(sumOf, ZERO);
  const ends = rests.map((rest) => endOf(item, rest)).sort((a, b) => (a < b ? -1 : 1));
  const [low = item.counted, high = item.counted] = [ends[0], ends.at(-1)];
  return { method: "weekdays", low, likely: endOf(item, { ...mean, bottom: mean.bottom * BigInt(weeks) }), high };
}

/** A ratio of scaled quantities; `bottom` is above 0. */
interface Ratio {
  readonly top: bigint;
  readonly bottom: bigint;
}

const ZERO: Ratio = { top: 0n, bottom: 1n };

function sumOf(a: Ratio, b: Ratio): Ratio {
  if (a.bottom === b.bottom) return { top: a.top + b.top, bottom: a.bottom };
  return { top: a.top * b.bottom + b.top * a.bottom, bottom: a.bottom * b.bottom };
}

function half({ top, bottom }: Ratio): Ratio {
  return { top, bottom: 2n * bottom };
}

function restByRunRate({ counted, elapsedMs, remainingMs }: ItemSoFar): Ratio {
  return { top: counted * BigInt(remainingMs), bottom: BigInt(elapsedMs) };
}

/** The rest of the period if each of its days were the same weekday of one of the last weeks; 0: of the seven days before today. */
function restLikeWeek({ days, rest }: ItemSoFar, week: number): Ratio {
  let whole = 0n;
  let parts = ZERO;
  for (const [index, { partMs, dayMs }] of rest.entries()) {
    const daysAgo = WEEK_DAYS * (week + 1) - (index % WEEK_DAYS);
    const quantity = days.at(-daysAgo);
    assert(quantity !== undefined, "as many days as weeks are looked at");
    if (partMs === dayMs) whole += quantity;
    else parts = sumOf(parts, { top: quantity * BigInt(partMs), bottom: BigInt(dayMs) });
  }
  return sumOf(parts, { top: whole, bottom: 1n });
}

/** What was counted and the rest, cut to nine fraction digits; to whole units where only those were counted so far. */
function endOf({ counted, days }: Pick<ItemSoFar, "counted" | "days">, rest: Ratio): Quantity {
  const isWhole = [counted, ...days].every((quantity) => quantity % ONE_QUANTITY === 0n);
  return isWhole ? whole(counted, rest) : quantityFromScaled(counted + rest.top / rest.bottom);
}

function whole(counted: Quantity, rest: Ratio): Quantity {
  return quantityFromScaled(counted + (rest.top / (rest.bottom * ONE_QUANTITY)) * ONE_QUANTITY);
}

/** Below zero, more of the same is less. */
function inOrder(a: Quantity, likely: Quantity, b: Quantity): { low: Quantity; likely: Quantity; high: Quantity } {
  return a <= b ? { low: a, likely, high: b } : { low: b, likely, high: a };
}
