/** Amounts: the one place where money is rounded, and the way between major and minor units. */
import { assert } from "@tallyhouse/domain";
import { Big } from "big.js";
import type { DecimalText } from "./bill.ts";
import { minorDigitsOf } from "./currency.ts";
import type { Decimal } from "./decimal.ts";

/**
 * Fraction digits of a currency that a bill has.
 * @throws {InvariantError} when the code is unknown; the plans file refuses it long before.
 */
export function billedDigitsOf(currency: string): number {
  const digits = minorDigitsOf(currency);
  assert(digits !== null, `unknown currency ${currency}`);
  return digits;
}

/**
 * Rounds an exact amount to `digits` fraction digits, half away from zero: 0.005 is 0.01 and −0.005 is −0.01 at two digits.
 * The one place where money is rounded; called once for each line of a bill.
 */
export function roundAmount(exact: Decimal, digits: number): Decimal {
  // "Half up" is the library's word for it: its magnitude is rounded, the sign kept.
  return exact.round(digits, Big.roundHalfUp);
}

/** Text of a rounded amount with all digits of its currency: `100.00`, `70000`, `1.500`. */
export function amountText(amount: Decimal, digits: number): DecimalText {
  return amount.toFixed(digits);
}

/**
 * Minor units of an amount that a bill holds: `12.50` in `usd` is 1250.
 * @throws {InvariantError} when the text has other fraction digits than its currency.
 */
export function minorOfAmount(amount: DecimalText, currency: string): bigint {
  const digits = billedDigitsOf(currency);
  const [, fraction = ""] = amount.split(".");
  assert(fraction.length === digits, `${amount} has not the ${digits} fraction digits of ${currency}`);
  return BigInt(amount.replace(".", ""));
}

/** The inverse of {@link minorOfAmount}: −5 in `usd` is `-0.05`. */
export function amountOfMinor(minor: bigint, currency: string): DecimalText {
  const digits = billedDigitsOf(currency);
  const magnitude = (minor < 0n ? -minor : minor).toString().padStart(digits + 1, "0");
  const cut = magnitude.length - digits;
  return `${minor < 0n ? "-" : ""}${magnitude.slice(0, cut)}${digits === 0 ? "" : `.${magnitude.slice(cut)}`}`;
}
