/**
 * Quantities: exact decimals with 9 fraction digits, a scaled bigint in code (1 = 0.000000001), Decimal(38,9) at rest,
 * decimal text on the wire. No binary float ever holds one (promise 4).
 */
export type Quantity = bigint & { readonly brand: "Quantity" };

const FRACTION_DIGITS = 9;
const SCALE = 10n ** 9n;
/** Decimal(38,9) holds 29 integer digits; one event may use 20, so 10^9 events of the largest size still fit. */
const INTEGER_DIGITS_MAX = 20;
const DECIMAL_TEXT = /^(-?)(\d{1,64})(?:\.(\d{1,64}))?(?:[eE]([+-]?\d{1,3}))?$/;

/** Nothing, and where every sum starts. */
export const ZERO_QUANTITY = 0n as Quantity;
/** What one matching usage event adds to a `count`. */
export const ONE_QUANTITY = SCALE as Quantity;

/** The only way from a raw scaled bigint to a Quantity; callers vouch for the scale. */
export function quantityFromScaled(scaled: bigint): Quantity {
  return scaled as Quantity;
}

/**
 * Parses decimal text (`-12.5`, `1e3`). Digits beyond the ninth fraction digit are rounded half away from zero, as
 * ClickHouse's Decimal parser would not do; so `null` is returned for them instead: a value that cannot be kept exactly is
 * refused, never altered.
 * @returns null when the text is no decimal, has more than 9 significant fraction digits or over 20 integer digits.
 */
export function parseQuantity(text: string): Quantity | null {
  const match = DECIMAL_TEXT.exec(text);
  if (match === null) return null;
  const [, sign, integer = "", fraction = "", exponent = "0"] = match;
  const digits = integer + fraction;
  const scaleShift = FRACTION_DIGITS - fraction.length + Number(exponent);
  if (Math.abs(scaleShift) > 128) return BigInt(digits) === 0n ? ZERO_QUANTITY : null;
  let scaled: bigint;
  if (scaleShift >= 0) {
    scaled = BigInt(digits) * 10n ** BigInt(scaleShift);
  } else {
    const divisor = 10n ** BigInt(-scaleShift);
    const whole = BigInt(digits);
    if (whole % divisor !== 0n) return null;
    scaled = whole / divisor;
  }
  if (scaled >= 10n ** BigInt(INTEGER_DIGITS_MAX + FRACTION_DIGITS)) return null;
  return (sign === "-" ? -scaled : scaled) as Quantity;
}

/** Decimal text without exponent, trailing zeros or `-0`: `1.5`, `-0.000000001`, `0`. */
export function formatQuantity(quantity: bigint): string {
  const negative = quantity < 0n;
  const magnitude = negative ? -quantity : quantity;
  const integer = magnitude / SCALE;
  const rest = magnitude % SCALE;
  const fraction = rest === 0n ? "" : `.${rest.toString().padStart(FRACTION_DIGITS, "0").replace(/0+$/, "")}`;
  return `${negative ? "-" : ""}${integer}${fraction}`;
}

/** 2^22: below it a double keeps 9 fraction digits exactly after rounding. */
const EXACT_DOUBLE_MAX = 4_194_304;
const SIGNIFICANT_DIGITS_MAX = 15;

/**
 * The quantity of a metered JSON value, as the fold and ClickHouse's JSON functions both read it.
 *
 * Text is parsed exactly. A JSON number below 2^22 is rounded to 9 places, which is what Decimal(38,9) of the same double
 * gives. Above, an integer below 2^53 is exact; everything else with more than 15 significant digits is refused, because
 * ClickHouse would read it as a double and the audit would differ.
 * @returns null when the value is not a finite number or decimal text within the bounds.
 */
export function quantityOfJson(value: unknown): Quantity | null {
  if (typeof value === "string") return parseQuantity(value);
  if (typeof value !== "number" || !Number.isFinite(value)) return null;
  if (Number.isSafeInteger(value)) return (BigInt(value) * SCALE) as Quantity;
  if (Math.abs(value) < EXACT_DOUBLE_MAX) return roundedFraction(value);
  const text = String(value);
  const significantDigits = text.replace(/e.*$/, "").replace(/[-.]/g, "").replace(/^0+/, "").length;
  return significantDigits > SIGNIFICANT_DIGITS_MAX ? null : parseQuantity(text);
}

/** A non-integer double below 2^22, rounded to 9 places: toFixed rounds the exact binary value, so no second rounding. */
function roundedFraction(value: number): Quantity {
  const text = value.toFixed(FRACTION_DIGITS);
  return parseQuantity(text) ?? ZERO_QUANTITY;
}
