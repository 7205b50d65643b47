import { isRawNumber, textOfJson } from "./json.ts";

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
 * Parses decimal text (`-12.5`, `1e3`). A value that cannot be kept exactly is refused, never altered.
 * @returns null when the text is no decimal, has a digit other than 0 beyond the ninth fraction digit, or over 20 integer
 *   digits. Longer parts than 64 digits, or an exponent of more than 3, are no decimal either.
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

/** 2^22: below it neighbouring doubles are less than 10^-9 apart, so 9 fraction digits name one of them. */
const EXACT_FRACTION_MAX = 4_194_304;
const SIGNIFICANT_DIGITS_MAX = 15;

/**
 * The quantity of a metered JSON value, as the fold and ClickHouse's `JSONExtract(…, 'Decimal(38,9)')` both read it, so that
 * an audit in SQL gives the same digits (checked on ClickHouse 26.7: it cuts the shortest decimal text of the double after
 * nine fraction digits, and reads an integer of 2^64 or more as 0).
 *
 * - Text is parsed exactly, see {@link parseQuantity}.
 * - An integer below 2^53 is exact; any other integer must be sent as text.
 * - Another number below 2^22, however many digits it has, is cut after nine fraction digits.
 * - Above, it is exact when it has at most 15 significant digits, and is refused otherwise.
 * @returns null when the value is none of these.
 */
export function quantityOfJson(value: unknown): Quantity | null {
  if (typeof value === "string") return parseQuantity(value);
  if (typeof value === "number") return quantityOfDouble(value);
  if (!isRawNumber(value)) return null;
  const nearest = Number(value.rawJSON);
  return Math.abs(nearest) < EXACT_FRACTION_MAX ? quantityOfDouble(nearest) : null;
}

function quantityOfDouble(value: number): Quantity | null {
  if (Number.isSafeInteger(value)) return (BigInt(value) * SCALE) as Quantity;
  if (!Number.isFinite(value) || Number.isInteger(value)) return null;
  const [integer = "", fraction = ""] = (textOfJson(value) ?? "").split(".");
  if (Math.abs(value) < EXACT_FRACTION_MAX) return parseQuantity(`${integer}.${fraction.slice(0, FRACTION_DIGITS)}`);
  const significantDigits = integer.replace("-", "").length + fraction.length;
  return significantDigits > SIGNIFICANT_DIGITS_MAX ? null : parseQuantity(`${integer}.${fraction}`);
}
