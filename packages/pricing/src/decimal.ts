/** Exact decimals in this package: big.js, never a binary float. */
import { assert } from "@tallyhouse/domain";
import { Big } from "big.js";
import type { DecimalText } from "./bill.ts";

/**
 * A constructor of our own: what another user of the library sets on its `Big` does not reach a bill. Strict: a `number` is refused.
 * DP 0 and rounding towards zero concern division alone, which is only used to count whole packages; sums and products are exact.
 */
export const Exact = Big();
Exact.strict = true;
Exact.DP = 0;
Exact.RM = Big.roundDown;

/** An exact decimal. */
export type Decimal = Big;

/** Nothing. */
export const ZERO: Decimal = new Exact("0");

const PRICE_TEXT = /^(?:0|[1-9]\d*)(?:\.\d+)?$/;

/** Parses text that only we made. */
export function decimalOf(text: DecimalText): Decimal {
  return new Exact(text);
}

/**
 * Parses what a plan says of money or units: plain decimal text of 0 or more.
 * @throws {InvariantError} naming the field; the plans file refuses such a plan long before.
 */
export function planDecimalOf(text: DecimalText, field: string): Decimal {
  assert(PRICE_TEXT.test(text), `${field} is no plain decimal of 0 or more: ${text}`);
  return new Exact(text);
}

/** Plain decimal text without trailing zeros. */
export function textOf(decimal: Decimal): DecimalText {
  return decimal.toFixed();
}
