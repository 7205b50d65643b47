import type { Mode } from "@tallyhouse/domain";

/** Which ledger: usage of one mode, billed in one Stripe account. */
export interface AccountKey {
  readonly mode: Mode;
  /** `stripe`, or `emulator` when STRIPE_API_URL is set: rows meant for one are never sent to the other. */
  readonly stripeAccount: string;
}

/** One meter version that is reported: exactly one Stripe meter of formula `sum`. */
export interface Feed {
  /** `<meter>_v<version>`; unique within a mode. */
  readonly feedId: string;
  readonly mode: Mode;
  readonly meter: string;
  readonly version: number;
  readonly aggregation: "sum" | "count";
  /** `th_<feedId>`: the Stripe meter's `event_name`. */
  readonly eventName: string;
}

/** One customer's bucket of a feed: an hour of UTC, epoch milliseconds, half-open. */
export interface Bucket {
  readonly customerId: string;
  readonly startAt: number;
  readonly endAt: number;
}
