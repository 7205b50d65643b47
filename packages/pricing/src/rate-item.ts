/** One line of a bill. */
import { assert, formatQuantity, ZERO_QUANTITY } from "@tallyhouse/domain";
import type { BillLine, ItemTotal, Price, RatedItem } from "./bill.ts";
import { type Decimal, decimalOf, planDecimalOf, textOf, ZERO } from "./decimal.ts";
import { amountText, billedDigitsOf, roundAmount } from "./money.ts";
import { type ExactPart, partsOf, tierPartOf } from "./price-parts.ts";
import { stepsOf } from "./steps.ts";

/** A line before its price is applied. */
type Counted = Pick<
  BillLine,
  "key" | "kind" | "meter" | "meterVersion" | "quantity" | "included" | "credits" | "billable"
>;

function priced(counted: Counted, { parts, price, currency }: PricedBy): BillLine {
  const digits = billedDigitsOf(currency);
  let exact = ZERO;
  for (const { amount } of parts) exact = exact.plus(amount);
  const line = {
    ...counted,
    tiers: parts.map(tierPartOf),
    exact: textOf(exact),
    amount: amountText(roundAmount(exact, digits), digits),
  };
  return { ...line, steps: stepsOf({ line, price }, digits) };
}

interface PricedBy {
  readonly parts: readonly ExactPart[];
  readonly price: Price | null;
  readonly currency: string;
}

/** Units that prepaid credits paid for, checked: never more than what is beyond the included ones. */
function creditsOf({ item, credits = ZERO_QUANTITY }: ItemTotal, beyondIncluded: Decimal): Decimal {
  const units = decimalOf(formatQuantity(credits));
  assert(units.gte(ZERO) && units.lte(beyondIncluded), `${item}: credits paid for more than what is beyond included`);
  return units;
}

/**
 * Rates one item: its exact parts, their sum, and the sum rounded to the currency's minor unit.
 * @throws {InvariantError} for a currency, a price or credits that the plans file and the settlement of credits never let through.
 */
export function rateItem(item: RatedItem, total: ItemTotal, currency: string): BillLine {
  const used = decimalOf(formatQuantity(total.quantity));
  const included = planDecimalOf(item.included ?? "0", "included");
  const beyond = used.gt(included) ? used.minus(included) : ZERO;
  const credits = creditsOf(total, beyond);
  const units = beyond.minus(credits);
  const counted: Counted = {
    key: item.key,
    kind: "usage",
    meter: item.meter,
    meterVersion: item.meterVersion,
    quantity: textOf(used),
    included: textOf(included),
    credits: textOf(credits),
    billable: textOf(units),
  };
  const parts = item.price === null ? [] : partsOf(item.price, { units, isCovered: included.gt(ZERO) });
  return priced(counted, { parts, price: item.price, currency });
}

/** The line of a plan's fee: one unit of it. */
export function rateFee(fee: string, currency: string): BillLine {
  const counted: Counted = {
    key: "fee",
    kind: "fee",
    meter: null,
    meterVersion: null,
    quantity: "1",
    included: "0",
    credits: "0",
    billable: "1",
  };
  const parts = partsOf({ model: "per_unit", unit: fee }, { units: decimalOf("1"), isCovered: false });
  return priced(counted, { parts, price: null, currency });
}
