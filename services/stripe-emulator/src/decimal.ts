/** An exact decimal: `units` × 10^−`scale`. `scale` ≥ 0. Never a float until JSON. */
export interface Decimal {
  readonly units: bigint;
  readonly scale: number;
}

export const ZERO: Decimal = { units: 0n, scale: 0 };

// No plus, no exponent, no leading zeros: whether Stripe takes them is unknown, so a client must not rely on it.
const PLAIN = /^-?(?:0|[1-9]\d*)(?:\.(\d+))?$/;

/** Reads a plain decimal such as `-12.50`; undefined for anything else. */
export function parseDecimal(text: string): Decimal | undefined {
  const match = PLAIN.exec(text);
  if (match === null) return undefined;
  const scale = match[1]?.length ?? 0;
  return { units: BigInt(scale === 0 ? text : text.replace(".", "")), scale };
}

/** Digits from the first one that is not zero, trailing zeros included: `0.0120` has 3. `text` is a plain decimal. */
export function significantDigits(text: string): number {
  return text.replace(/[-.]/g, "").replace(/^0+/, "").length;
}

/** The exact sum. */
export function add(left: Decimal, right: Decimal): Decimal {
  const scale = Math.max(left.scale, right.scale);
  return { units: rescale(left, scale) + rescale(right, scale), scale };
}

function rescale(value: Decimal, scale: number): bigint {
  return value.scale === scale ? value.units : value.units * 10n ** BigInt(scale - value.scale);
}

/** The shortest plain text: no trailing zeros behind the point, never `-0`. */
export function formatDecimal(value: Decimal): string {
  const sign = value.units < 0n ? "-" : "";
  const digits = (value.units < 0n ? -value.units : value.units).toString().padStart(value.scale + 1, "0");
  const whole = digits.slice(0, digits.length - value.scale);
  const fraction = digits.slice(digits.length - value.scale).replace(/0+$/, "");
  return fraction === "" ? sign + whole : `${sign}${whole}.${fraction}`;
}

/** The JSON number nearest to the value: the one place where exactness ends, because Stripe's answer is a number. */
export function toJsonNumber(value: Decimal): number {
  return Number(formatDecimal(value));
}
