import { assert, ceilTo, DAY_MS, floorTo, MINUTE_MS, type Quantity } from "@tallyhouse/domain";
import { splitQuantity } from "./split-quantity.ts";

/** Stripe takes timestamps of the last 35 calendar days; a day of that is kept for sending and repeats. */
export const PLAN_AGE_MAX_MS = 34 * DAY_MS;

/**
 * Rows of one bucket per round: 1,000 buckets of a transaction then write at most 5,000. Only a difference of 5·10^15 needs
 * more; the next round plans the rest.
 */
const PIECES_MAX = 5;

/** One bucket of one pair as planning sees it; instants are epoch milliseconds, spans half-open. */
export interface BucketView {
  readonly startAt: number;
  readonly endAt: number;
  readonly periodStartAt: number;
  readonly periodEndAt: number;
  /** T: the exact current total. */
  readonly total: Quantity;
  /** R: what live rows account for. */
  readonly reported: bigint;
  /** Minutes that any row of the pair owns, whatever became of it, with the highest `seq` in each. */
  readonly taken: ReadonlyMap<number, number>;
}

interface PlannedPiece {
  readonly eventAt: number;
  readonly seq: number;
  readonly quantity: Quantity;
}

export type BucketPlan =
  /** The ledger accounts for the total. */
  | { readonly kind: "even" }
  /** `isComplete` false: these rows do not cover the whole difference yet. */
  | { readonly kind: "rows"; readonly pieces: readonly PlannedPiece[]; readonly isComplete: boolean }
  /** Every minute of the bucket is still ahead of this machine's clock. */
  | { readonly kind: "not_yet" }
  /** Every minute of the bucket is older than Stripe would take. */
  | { readonly kind: "too_old" };

/**
 * The rows that bring the ledger from R to T: each takes the bucket's first free whole minute that is within the period, not
 * ahead of `nowAt` and younger than 34 days. With no minute left they share the last one under the next `seq`. Pure.
 */
export function planBucket(bucket: BucketView, nowAt: number): BucketPlan {
  const difference = bucket.total - bucket.reported;
  const pieces = splitQuantity(difference, PIECES_MAX);
  if (pieces.length === 0) return { kind: "even" };
  const firstAt = Math.max(ceilTo(bucket.startAt, MINUTE_MS), ceilTo(bucket.periodStartAt, MINUTE_MS));
  const lastAt = Math.min(floorTo(bucket.endAt, MINUTE_MS), floorTo(bucket.periodEndAt, MINUTE_MS)) - MINUTE_MS;
  const oldestAt = floorTo(nowAt - PLAN_AGE_MAX_MS, MINUTE_MS) + MINUTE_MS;
  const newestAt = Math.min(lastAt, floorTo(nowAt, MINUTE_MS));
  if (lastAt < oldestAt) return { kind: "too_old" };
  if (newestAt < firstAt) return { kind: "not_yet" };
  const planned: PlannedPiece[] = [];
  let candidateAt = Math.max(firstAt, oldestAt);
  let sharedSeq = bucket.taken.get(newestAt) ?? 0;
  for (const quantity of pieces) {
    while (candidateAt <= newestAt && bucket.taken.has(candidateAt)) candidateAt += MINUTE_MS;
    if (candidateAt <= newestAt) {
      planned.push({ eventAt: candidateAt, seq: 0, quantity });
      candidateAt += MINUTE_MS;
    } else {
      sharedSeq += 1;
      planned.push({ eventAt: newestAt, seq: sharedSeq, quantity });
    }
  }
  assert(
    planned.every((piece) => piece.eventAt >= bucket.startAt && piece.eventAt < bucket.endAt),
    "a slot lies within its bucket",
  );
  const isComplete = pieces.reduce((sum, piece) => sum + piece, 0n) === difference;
  return { kind: "rows", pieces: planned, isComplete };
}
