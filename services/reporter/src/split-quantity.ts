import { assert, ONE_QUANTITY, type Quantity, quantityFromScaled } from "@tallyhouse/domain";

/** @see https://docs.stripe.com/changelog (2026-04-22): a meter event's value has at most 15 significant digits. */
const VALUE_DIGITS_MAX = 15;
/** The largest value without a fraction. Whether zeros at the end count as digits is not documented: never rely on it. */
const VALUE_MAX = (10n ** BigInt(VALUE_DIGITS_MAX) - 1n) * ONE_QUANTITY;

/**
 * Cuts a difference into values that Stripe takes whole: at most 15 digits each, all of the quantity's sign.
 * @returns no piece for zero, one for nearly every quantity; at most `piecesMax`, and then their sum may fall short of it.
 */
export function splitQuantity(quantity: bigint, piecesMax: number): Quantity[] {
  const sign = quantity < 0n ? -1n : 1n;
  const pieces: Quantity[] = [];
  let rest = quantity * sign;
  while (rest > 0n && pieces.length < piecesMax) {
    const piece = rest > VALUE_MAX ? VALUE_MAX : leadingDigits(rest);
    assert(piece > 0n && piece <= rest, "a piece of a quantity lies within it");
    pieces.push(quantityFromScaled(piece * sign));
    rest -= piece;
  }
  return pieces;
}

function leadingDigits(quantity: bigint): bigint {
  const unit = 10n ** BigInt(Math.max(0, quantity.toString().length - VALUE_DIGITS_MAX));
  return quantity - (quantity % unit);
}
