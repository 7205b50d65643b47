import { assert, type Quantity, quantityFromScaled } from "@tallyhouse/domain";

/** @see https://docs.stripe.com/changelog (2026-04-22): a meter event's value has at most 15 significant digits. */
const VALUE_DIGITS_MAX = 15;

/**
 * Cuts a difference into values that Stripe takes whole: each has at most 15 significant digits, their sum is the quantity.
 * At most three pieces (38 digits); zero has none.
 */
export function splitQuantity(quantity: bigint): Quantity[] {
  const sign = quantity < 0n ? -1n : 1n;
  const pieces: Quantity[] = [];
  let rest = quantity * sign;
  while (rest > 0n) {
    const digits = rest.toString().length;
    const unit = 10n ** BigInt(Math.max(0, digits - VALUE_DIGITS_MAX));
    const piece = rest - (rest % unit);
    pieces.push(quantityFromScaled(piece * sign));
    rest -= piece;
  }
  assert(pieces.reduce((sum, piece) => sum + piece, 0n) === quantity, "the pieces of a quantity add up to it");
  return pieces;
}
