/** Parts of a quantity, and how two of them make one. */
import { type Aggregation, assert, type Quantity, quantityFromScaled } from "@tallyhouse/domain";

/** What some usage contributes to one row of an answer. */
export interface Part {
  readonly quantity: Quantity;
  /** (occurredAt, stream, partition, offset) of the newest usage event: only `latest` looks at it. */
  readonly newest: readonly bigint[];
}

/** Joins two parts of one row by the meter's aggregation. Exact; the order of the two does not matter. */
export function joinParts(aggregation: Aggregation, a: Part, b: Part): Part {
  switch (aggregation) {
    case "sum":
    case "count":
    case "unique_count":
      return { quantity: quantityFromScaled(a.quantity + b.quantity), newest: a.newest };
    case "min":
      return a.quantity <= b.quantity ? a : b;
    case "max":
      return a.quantity >= b.quantity ? a : b;
    case "latest":
      return isLater(a.newest, b.newest) ? a : b;
  }
}

function isLater(a: readonly bigint[], b: readonly bigint[]): boolean {
  for (const [index, value] of a.entries()) {
    const other = b[index] ?? 0n;
    if (value !== other) return value > other;
  }
  return true;
}

const DECIMAL = /^(-?)(\d+)(?:\.(\d{1,9}))?$/;

/** Decimal text of the database as a scaled integer. Sums may be longer than what one usage event may carry. */
export function quantityOfDecimal(text: string): Quantity {
  const match = DECIMAL.exec(text);
  assert(match !== null, `no Decimal(38,9): ${text}`);
  const [, sign, integer = "", fraction = ""] = match;
  const scaled = BigInt(integer + fraction.padEnd(9, "0"));
  return quantityFromScaled(sign === "-" ? -scaled : scaled);
}
