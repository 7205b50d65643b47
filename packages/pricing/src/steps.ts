/** The arithmetic of a line for people: each step is a sum that a pocket calculator confirms. */
import type { BillLine, Price, TierPart } from "./bill.ts";

/** All of a line but its steps, and its price. */
export interface StepsInput {
  readonly line: Omit<BillLine, "steps">;
  /** null: the fee, or an item without price. */
  readonly price: Price | null;
}

/** From what was counted to what the price is applied to. */
function billableSteps({ quantity, included, credits, billable }: StepsInput["line"]): string[] {
  const isNegative = quantity.startsWith("-");
  const counted = isNegative ? "0" : quantity;
  const steps = isNegative ? [`used ${quantity}, rated as 0`] : [`used ${quantity}`];
  const terms = [
    counted,
    ...(included === "0" ? [] : [`− ${included} included`]),
    ...(credits === "0" ? [] : [`− ${credits} prepaid`]),
  ];
  if (terms.length > 1) steps.push(billable === "0" ? `${terms.join(" ")} ≤ 0` : `${terms.join(" ")} = ${billable}`);
  return steps;
}

function partSum({ quantity, unit, flat, amount }: TierPart): string {
  return `${quantity} × ${unit}${flat === "0" ? "" : ` + ${flat}`} = ${amount}`;
}

function tierName({ from, upTo }: TierPart): string {
  if (upTo === "inf") return from === "0" ? "all" : `above ${from}`;
  return from === "0" ? `up to ${upTo}` : `above ${from} up to ${upTo}`;
}

function packageSteps(price: Extract<Price, { model: "package" }>, billable: string, part: TierPart): string[] {
  return [`${billable} in packages of ${price.size}, rounded ${price.round}: ${part.quantity}`, partSum(part)];
}

function priceSteps({ line, price }: StepsInput): string[] {
  const { tiers } = line;
  const [first] = tiers;
  if (first === undefined) return price === null ? ["no price"] : [];
  if (price?.model === "package") return packageSteps(price, line.billable, first);
  if (price?.model !== "graduated" && price?.model !== "volume") return [partSum(first)];
  const sums = tiers.map((part) => `${tierName(part)}: ${partSum(part)}`);
  return tiers.length === 1 ? sums : [...sums, `${tiers.map(({ amount }) => amount).join(" + ")} = ${line.exact}`];
}

/**
 * The steps of one line, in order. A step is text, or a sum `terms = result`, perhaps with a name and a colon before it; where amounts are
 * rounded the last one is `exact ≈ amount`.
 */
export function stepsOf(input: StepsInput, digits: number): string[] {
  const { line } = input;
  const isRounded = (line.exact.split(".")[1] ?? "").length > digits;
  return [
    ...(line.kind === "fee" ? [] : billableSteps(line)),
    ...priceSteps(input),
    ...(isRounded ? [`${line.exact} ≈ ${line.amount}, rounded to ${digits} digits`] : []),
  ];
}
