/** What is rated and what comes out: plain data, every number exact decimal text. */
import type { Quantity } from "@tallyhouse/domain";

/** Plain decimal text: no exponent, no plus sign, no leading zeros; a minus sign where it says so. Money is in major units. */
export type DecimalText = string;

/** Where a tier ends: decimal text, or `inf`. */
export type TierBound = string;

/** One tier; its units are those in `(previous upTo, upTo]`. Tiers rise and the last one is `inf`. */
export interface Tier {
  readonly upTo: TierBound;
  readonly unit: DecimalText;
  /** Charged once when the tier is reached; "0" where the plan says nothing. */
  readonly flat: DecimalText;
}

/** The price of an item. */
export type Price =
  | { readonly model: "per_unit"; readonly unit: DecimalText }
  | {
      readonly model: "package";
      readonly size: DecimalText;
      readonly price: DecimalText;
      readonly round: "up" | "down";
    }
  | { readonly model: "graduated" | "volume"; readonly tiers: readonly Tier[] };

/** One item of a plan version, frozen: its meter version, what is included, its price. */
export interface RatedItem {
  readonly key: string;
  readonly meter: string;
  readonly meterVersion: number;
  /** Dimension → values, as text; every one must match. Empty: all of the meter's usage. */
  readonly where: Readonly<Record<string, readonly string[]>>;
  /** Units per period before anything is charged; null: the plan says nothing of it, which is 0. */
  readonly included: DecimalText | null;
  /** null: nothing is charged, whatever is used. */
  readonly price: Price | null;
}

/** All that a bill depends on beside the totals: one immutable plan version, with a customer's contract applied. */
export interface RatedPlan {
  /** Name and version, such as `pro@3`; with a contract `pro@3+2`. */
  readonly plan: string;
  /** ISO 4217 code in lower case. */
  readonly currency: string;
  /** Fee of one period. */
  readonly fee: DecimalText;
  /** In the order of the plan. */
  readonly items: readonly RatedItem[];
}

/** What was counted for an item in the period. Items without one have none: 0. */
export interface ItemTotal {
  readonly item: string;
  /** May be negative or have a fraction; below 0 it is rated as 0. */
  readonly quantity: Quantity;
  /** Units of it that prepaid credits paid for; at most what is beyond `included`. */
  readonly credits?: Quantity;
}

/** What one tier that was reached contributes. Prices without tiers have one part, items without price none. */
export interface TierPart {
  readonly from: DecimalText;
  readonly upTo: TierBound;
  /** Units (packages for `package`) that fall into it. */
  readonly quantity: DecimalText;
  readonly unit: DecimalText;
  readonly flat: DecimalText;
  /** Exact, not rounded. */
  readonly amount: DecimalText;
}

/** One line of a bill. */
export interface BillLine {
  /** `fee`, or the item's key: unique in the bill (no item may be called fee). */
  readonly key: string;
  readonly kind: "fee" | "usage";
  /** null for the fee. */
  readonly meter: string | null;
  readonly meterVersion: number | null;
  /** As counted, nine fraction digits cut to what is needed; "1" for the fee. */
  readonly quantity: DecimalText;
  readonly included: DecimalText;
  readonly credits: DecimalText;
  /** What the price is applied to: max(0, quantity − included − credits). */
  readonly billable: DecimalText;
  /** The tiers that were reached; for `volume` the one that holds the whole quantity. */
  readonly tiers: readonly TierPart[];
  /** Exact sum of the parts. */
  readonly exact: DecimalText;
  /**
   * `exact` rounded to the currency's minor unit, half away from zero: the one place where money is rounded. With all fraction digits of
   * the currency: `100.00`, `70000`, `1.500`.
   */
  readonly amount: DecimalText;
  /** The arithmetic for people, one step per entry, such as `100000 × 0.001 = 100`. */
  readonly steps: readonly string[];
}

/** A bill: a pure function of plan version and totals. */
export interface Bill {
  readonly plan: string;
  readonly currency: string;
  /** Half-open, epoch milliseconds. */
  readonly period: { readonly startAt: number; readonly endAt: number };
  /** The fee first, when the plan has one, then one per item in the order of the plan, also where nothing was used. */
  readonly lines: readonly BillLine[];
  /** Sum of the lines' amounts, with all fraction digits of the currency. */
  readonly total: DecimalText;
  /** The same in minor units, a whole number as text. */
  readonly totalMinor: string;
}
