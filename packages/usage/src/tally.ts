/** How parts of a quantity become one, by the meter's aggregation. */
import { type Aggregation, assert, ONE_QUANTITY, type Quantity, quantityFromScaled } from "@tallyhouse/domain";

/** What some usage contributes to one row of an answer. */
export interface Part {
  /** For `unique_count`: the number of different values, of which `hash` is none. */
  readonly quantity: Quantity;
  /** (occurredAt, stream, partition, offset) of the newest usage event: only `latest` looks at it. */
  readonly newest: readonly bigint[];
  /** The value that a single usage event gave to `unique_count`, as decimal text; null for everything else. */
  readonly hash: string | null;
}

/** Joins parts. Exact; their order does not matter. */
export class Tally {
  readonly #aggregation: Aggregation;
  #quantity: Quantity | null = null;
  #newest: readonly bigint[] = [];
  readonly #hashes = new Set<string>();

  constructor(aggregation: Aggregation) {
    this.#aggregation = aggregation;
  }

  /** Values of single usage events, for `unique_count`. */
  get hashes(): ReadonlySet<string> {
    return this.#hashes;
  }

  /** The quantity of everything added. For `unique_count`, no hash may be in an added number, too. */
  get quantity(): Quantity {
    assert(this.#quantity !== null, "a tally of nothing");
    return quantityFromScaled(this.#quantity + ONE_QUANTITY * BigInt(this.#hashes.size));
  }

  add(part: Part): void {
    if (part.hash !== null) this.#hashes.add(part.hash);
    if (this.#quantity === null || this.#isBetter(part, this.#quantity)) {
      this.#quantity = part.quantity;
      this.#newest = part.newest;
    } else if (this.#isSum) {
      this.#quantity = quantityFromScaled(this.#quantity + part.quantity);
    }
  }

  /** Takes hashes out that are in an added number already. */
  forget(hashes: readonly string[]): void {
    for (const hash of hashes) this.#hashes.delete(hash);
  }

  get #isSum(): boolean {
    return this.#aggregation === "sum" || this.#aggregation === "count" || this.#aggregation === "unique_count";
  }

  #isBetter({ quantity, newest }: Part, than: Quantity): boolean {
    switch (this.#aggregation) {
      case "min":
        return quantity < than;
      case "max":
        return quantity > than;
      case "latest":
        return isLater(newest, this.#newest);
      case "sum":
      case "count":
      case "unique_count":
        return false;
    }
  }
}

function isLater(a: readonly bigint[], b: readonly bigint[]): boolean {
  for (const [index, value] of a.entries()) {
    const other = b[index] ?? 0n;
    if (value !== other) return value > other;
  }
  return false;
}

const DECIMAL = /^(-?)(\d+)(?:\.(\d{1,9}))?$/;

/** Decimal text of the database as a scaled integer. Sums may be longer than what one usage event may carry. */
export function quantityOfDecimal(text: string): Quantity {
  const match = DECIMAL.exec(text);
  assert(match !== null, `a decimal of the store: ${text}`);
  const [, sign, integer = "", fraction = ""] = match;
  const scaled = BigInt(integer + fraction.padEnd(9, "0"));
  return quantityFromScaled(sign === "-" ? -scaled : scaled);
}
