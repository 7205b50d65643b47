/** Random plans with random totals, nasty on purpose: a pair is a function of seed and number. */
import { parseQuantity, type Quantity, quantityFromScaled } from "@tallyhouse/domain";
import {
  type CreditNeed,
  CURRENCIES,
  type ItemTotal,
  type Price,
  type RatedItem,
  type RatedPlan,
  type Tier,
} from "@tallyhouse/pricing";
import { Dice } from "@tallyhouse/testkit";

/** A plan with what was counted in one period. */
export interface Pair {
  readonly plan: RatedPlan;
  readonly totals: readonly ItemTotal[];
}

const ONE = 10n ** 9n;
/** Where totals are near something; one of the smallest step, and one. */
const NEAR = [0n, 1n, -1n, ONE, -ONE];
const HUGE = 10n ** 20n * ONE;
const TIERS_MAX = 6;

/** The quantity of decimal text with at most nine fraction digits. */
function scaledOf(text: string): bigint {
  const quantity = parseQuantity(text);
  if (quantity === null) throw new Error(`no quantity: ${text}`);
  return quantity;
}

function fractionDigits(dice: Dice, count: number): string {
  return Array.from({ length: count }, () => dice.below(10)).join("");
}

/** Money of 0 or more: halves of minor units, twelve and more fraction digits, whole numbers, nothing. */
function money(dice: Dice): string {
  const kinds = [
    () => "0",
    () => String(dice.below(100)),
    () => `${dice.below(1_000)}.${fractionDigits(dice, 2)}`,
    () => `0.${"0".repeat(dice.below(4))}5`,
    () => `${dice.below(10)}.${fractionDigits(dice, 12)}`,
    () => `0.00${fractionDigits(dice, 12)}`,
    () => `0.${"0".repeat(11)}1`,
    () => `${dice.between(1, 999_999_999)}.${fractionDigits(dice, dice.between(1, 3))}`,
    () => `${dice.below(10)}.50`,
  ];
  return dice.pick(kinds)();
}

/** Units above 0, in steps of 10^-9: mostly small enough to be counted one by one. */
function unitsAbove(dice: Dice): string {
  const kinds = [
    () => String(dice.between(1, 50)),
    () => String(dice.between(1, 50)),
    () => String(10 ** dice.between(0, 12)),
    () => `${dice.below(20)}.${dice.between(1, 9)}`,
    () => `${dice.below(3)}.${fractionDigits(dice, 8)}1`,
    () => String(dice.between(1, 2_000_000_000)),
    () => "99999999999999999999",
    () => `${dice.between(1, 30)}.500`,
  ];
  return dice.pick(kinds)();
}

function tiersOf(dice: Dice): Tier[] {
  const bounds = new Map<bigint, string>();
  for (let count = dice.below(TIERS_MAX); count > 0; count -= 1) {
    const text = unitsAbove(dice);
    bounds.set(scaledOf(text), text);
  }
  const rising = [...bounds].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, text]) => text);
  const hasFlats = dice.chance(0.4);
  return [...rising, "inf"].map((upTo) => ({ upTo, unit: money(dice), flat: hasFlats ? money(dice) : "0" }));
}

function priceOf(dice: Dice): Price | null {
  const kinds: (() => Price | null)[] = [
    () => ({ model: "per_unit", unit: money(dice) }),
    () => ({ model: "package", size: unitsAbove(dice), price: money(dice), round: dice.chance(0.5) ? "up" : "down" }),
    () => ({ model: "graduated", tiers: tiersOf(dice) }),
    () => ({ model: "volume", tiers: tiersOf(dice) }),
  ];
  return dice.chance(0.03) ? null : dice.pick(kinds)();
}

function itemOf(dice: Dice, key: string): RatedItem {
  const included = dice.pick([null, null, null, "0", unitsAbove(dice), "1.50"]);
  return {
    key,
    meter: `meter_${dice.below(9)}`,
    meterVersion: dice.between(1, 9),
    where: {},
    included,
    price: priceOf(dice),
  };
}

/** Quantities at which the item's arithmetic changes, in steps of 10^-9 and counted from the first unit. */
function edgesOf({ included, price }: RatedItem): bigint[] {
  const start = scaledOf(included ?? "0");
  const tiers = price?.model === "graduated" || price?.model === "volume" ? price.tiers : [];
  const bounds = tiers.filter(({ upTo }) => upTo !== "inf").map(({ upTo }) => start + scaledOf(upTo));
  const packages = price?.model === "package" ? [1n, 2n, 7n].map((times) => start + times * scaledOf(price.size)) : [];
  return [0n, start, ...bounds, ...packages];
}

function quantityOf(dice: Dice, item: RatedItem): bigint {
  const edge = dice.pick(edgesOf(item));
  const kinds = [
    () => edge + dice.pick(NEAR),
    () => edge + dice.pick(NEAR),
    () => BigInt(dice.below(60)) * ONE,
    () => edge + BigInt(dice.below(50)) * ONE + BigInt(dice.below(1_000_000_000)),
    () => BigInt(dice.below(2 ** 40)) * ONE + BigInt(dice.below(1_000_000_000)),
    () => HUGE + dice.pick(NEAR),
    () => -(BigInt(dice.below(100)) * ONE) - dice.pick([0n, 1n]),
    () => 0n,
  ];
  return dice.pick(kinds)();
}

function totalOf(dice: Dice, item: RatedItem): ItemTotal {
  const quantity = quantityOf(dice, item);
  const beyond = (quantity > 0n ? quantity : 0n) - scaledOf(item.included ?? "0");
  const total = { item: item.key, quantity: quantityFromScaled(quantity) };
  if (beyond <= 0n || dice.chance(0.8)) return total;
  const paid = dice.pick([0n, 1n, beyond / 2n, beyond - 1n, beyond]);
  return { ...total, credits: quantityFromScaled(paid) };
}

/** One dice for each pair, so that any pair can be made again alone. */
function diceOf(seed: number, pair: number): Dice {
  return new Dice(Math.imul(seed, 0x85ebca6b) ^ pair);
}

/** Pair number `pair` of a seed: one to three items; an item may have no total, and totals come in any order. */
export function pairOf(seed: number, pair: number): Pair {
  const dice = diceOf(seed, pair);
  const items = ["a", "b", "c"].slice(0, dice.pick([1, 1, 2, 3])).map((key) => itemOf(dice, key));
  const plan = { plan: `p@${pair}`, currency: dice.pick(CURRENCIES), fee: dice.pick(["0", money(dice)]), items };
  const totals = items.filter(() => dice.chance(0.97)).map((item) => totalOf(dice, item));
  return { plan, totals: dice.chance(0.5) ? totals : totals.toReversed() };
}

function smallUnits(dice: Dice): Quantity {
  return quantityFromScaled(BigInt(dice.below(30)) * (dice.chance(0.3) ? ONE / 2n : ONE));
}

/** A need of credits: few grants with few different properties, so that ties are common, and a history with returns. */
export function creditNeedOf(seed: number, pair: number): CreditNeed {
  const dice = diceOf(seed, pair);
  const ids = ["g1", "g2", "g3", "g4", "g5"].slice(0, dice.below(6));
  const grants = ids.map((id) => ({
    id,
    priority: dice.below(3),
    grantedAt: dice.below(3),
    expiresAt: dice.pick([null, 0, 1, 2, 3]),
    left: smallUnits(dice),
  }));
  const used = new Map<string, bigint>();
  const settled = Array.from({ length: ids.length === 0 ? 0 : dice.below(6) }, () => {
    const grant = dice.pick(ids);
    const before = used.get(grant) ?? 0n;
    const units = dice.chance(0.3) && before > 0n ? -before / 2n : BigInt(smallUnits(dice));
    used.set(grant, before + units);
    return { grant, units: quantityFromScaled(units) };
  });
  const need = quantityFromScaled(BigInt(smallUnits(dice)) * BigInt(dice.pick([1, 1, 3, -1, -2])));
  return { grants, settled, need, at: dice.below(4) };
}
