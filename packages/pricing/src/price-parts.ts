/** What each tier of a price contributes, exactly. */
import { assert, unreachable } from "@tallyhouse/domain";
import type { Price, Tier, TierBound, TierPart } from "./bill.ts";
import { type Decimal, planDecimalOf, textOf, ZERO } from "./decimal.ts";

/** A tier part before it is written down. `upTo` null: without end. */
export interface ExactPart {
  readonly from: Decimal;
  readonly upTo: Decimal | null;
  readonly quantity: Decimal;
  readonly unit: Decimal;
  readonly flat: Decimal;
  readonly amount: Decimal;
}

/** What a price is applied to. */
export interface Billable {
  /** Units, 0 or more. */
  readonly units: Decimal;
  /** Whether the plan includes units: then a billable 0 reaches no tier, because the included units cover it. */
  readonly isCovered: boolean;
}

type Span = Pick<ExactPart, "from" | "upTo">;
type Rates = Pick<ExactPart, "unit" | "flat">;

const WITHOUT_END: Span = { from: ZERO, upTo: null };

function partOf(span: Span, rates: Rates, quantity: Decimal): ExactPart {
  return { ...span, ...rates, quantity, amount: quantity.times(rates.unit).plus(rates.flat) };
}

/** Tiers as spans `(from, upTo]` with their rates; checked to rise and to end in `inf`. */
function spansOf(tiers: readonly Tier[]): (Span & Rates)[] {
  assert(tiers.length > 0, "a tiered price has no tier");
  let from = ZERO;
  return tiers.map((tier, index) => {
    const isLast = index === tiers.length - 1;
    assert((tier.upTo === "inf") === isLast, "the last tier, and no other, goes up to inf");
    const upTo = tier.upTo === "inf" ? null : planDecimalOf(tier.upTo, "upTo");
    assert(upTo === null || upTo.gt(from), "tiers do not rise");
    const span = { from, upTo, unit: planDecimalOf(tier.unit, "unit"), flat: planDecimalOf(tier.flat, "flat") };
    if (upTo !== null) from = upTo;
    return span;
  });
}

/** Reached: some of the units lie in it; the first one also by a quantity of 0 that nothing covers, as Stripe bills it. */
function isReached(span: Span, { units, isCovered }: Billable): boolean {
  return units.gt(span.from) || (units.eq(ZERO) && span.from.eq(ZERO) && !isCovered);
}

function isWithin(units: Decimal, upTo: Decimal | null): boolean {
  return upTo === null || units.lte(upTo);
}

function graduatedParts(tiers: readonly Tier[], billable: Billable): ExactPart[] {
  const { units } = billable;
  return spansOf(tiers)
    .filter((span) => isReached(span, billable))
    .map((span) => {
      const end = span.upTo === null || units.lt(span.upTo) ? units : span.upTo;
      return partOf(span, span, end.minus(span.from));
    });
}

function volumeParts(tiers: readonly Tier[], billable: Billable): ExactPart[] {
  const { units } = billable;
  return spansOf(tiers)
    .filter((span) => isReached(span, billable) && isWithin(units, span.upTo))
    .map((span) => partOf(span, span, units));
}

/** Whole packages: the library's division cuts towards zero, and units are never negative. */
function packagesOf(units: Decimal, sizeUnits: Decimal, round: "up" | "down"): Decimal {
  const whole = units.div(sizeUnits);
  return round === "up" && whole.times(sizeUnits).lt(units) ? whole.plus("1") : whole;
}

/** The parts of one price for what is billable; none when nothing is reached. Their amounts add up to the line's exact amount. */
export function partsOf(price: Price, billable: Billable): ExactPart[] {
  switch (price.model) {
    case "per_unit":
      return [partOf(WITHOUT_END, { unit: planDecimalOf(price.unit, "unit"), flat: ZERO }, billable.units)];
    case "package": {
      const sizeUnits = planDecimalOf(price.size, "size");
      assert(sizeUnits.gt(ZERO), "a package has no size");
      const packages = packagesOf(billable.units, sizeUnits, price.round);
      return [partOf(WITHOUT_END, { unit: planDecimalOf(price.price, "price"), flat: ZERO }, packages)];
    }
    case "graduated":
      return graduatedParts(price.tiers, billable);
    case "volume":
      return volumeParts(price.tiers, billable);
    default:
      return unreachable(price);
  }
}

/** The part as a bill holds it. */
export function tierPartOf(part: ExactPart): TierPart {
  return {
    from: textOf(part.from),
    upTo: boundText(part.upTo),
    quantity: textOf(part.quantity),
    unit: textOf(part.unit),
    flat: textOf(part.flat),
    amount: textOf(part.amount),
  };
}

function boundText(upTo: Decimal | null): TierBound {
  return upTo === null ? "inf" : textOf(upTo);
}
