/** What never reaches the engine but by a bug stops it, instead of becoming a wrong amount. */
import { InvariantError, quantityFromScaled } from "@tallyhouse/domain";
import { expect, test } from "vitest";
import type { ItemTotal, Price, RatedItem, RatedPlan } from "./bill.ts";
import { CURRENCIES, minorDigitsOf } from "./currency.ts";
import { Exact } from "./decimal.ts";
import { amountOfMinor, minorOfAmount, roundAmount } from "./money.ts";
import { rateBill } from "./rate-bill.ts";

const PER_UNIT: Price = { model: "per_unit", unit: "0.5" };

function itemOf(fields: Partial<RatedItem> = {}): RatedItem {
  return { key: "a", meter: "m", meterVersion: 1, where: {}, included: null, price: PER_UNIT, ...fields };
}

function planOf(fields: Partial<RatedPlan> = {}): RatedPlan {
  return { plan: "p@1", currency: "usd", fee: "0", items: [itemOf()], ...fields };
}

function tier(upTo: string, unit = "1", flat = "0") {
  return { upTo, unit, flat };
}

function totalOf(fields: Partial<ItemTotal> = {}): ItemTotal {
  return { item: "a", quantity: quantityFromScaled(2n * 10n ** 9n), ...fields };
}

function withPrice(price: Price): RatedPlan {
  return planOf({ items: [itemOf({ price })] });
}

test.each<readonly [why: string, plan: RatedPlan, totals: readonly ItemTotal[]]>([
  ["an unknown currency", planOf({ currency: "xxx" }), []],
  ["a currency in upper case", planOf({ currency: "USD" }), []],
  ["a currency whose minor unit Stripe writes in another way", planOf({ currency: "isk" }), []],
  ["a negative fee", planOf({ fee: "-1" }), []],
  ["a fee with an exponent", planOf({ fee: "1e3" }), []],
  ["an item called fee", planOf({ items: [itemOf({ key: "fee" })] }), []],
  ["two items of one key", planOf({ items: [itemOf(), itemOf()] }), []],
  ["a total of no item", planOf(), [totalOf({ item: "b" })]],
  ["two totals of one item", planOf(), [totalOf(), totalOf()]],
  ["negative credits", planOf(), [totalOf({ credits: quantityFromScaled(-1n) })]],
  ["credits beyond what is charged", planOf(), [totalOf({ credits: quantityFromScaled(2n * 10n ** 9n + 1n) })]],
  [
    "credits for included units",
    planOf({ items: [itemOf({ included: "2" })] }),
    [totalOf({ credits: quantityFromScaled(1n) })],
  ],
  ["a negative included quantity", planOf({ items: [itemOf({ included: "-1" })] }), []],
  ["a negative unit price", withPrice({ model: "per_unit", unit: "-0.1" }), []],
  ["no unit price", withPrice({ model: "per_unit", unit: "" }), []],
  ["a package of nothing", withPrice({ model: "package", size: "0", price: "1", round: "up" }), []],
  ["no tier", withPrice({ model: "graduated", tiers: [] }), []],
  ["tiers without an end", withPrice({ model: "graduated", tiers: [tier("5")] }), []],
  ["a tier after the end", withPrice({ model: "volume", tiers: [tier("inf"), tier("5")] }), []],
  ["tiers that do not rise", withPrice({ model: "volume", tiers: [tier("5"), tier("5.0"), tier("inf")] }), []],
  ["a tier up to 0", withPrice({ model: "graduated", tiers: [tier("0"), tier("inf")] }), []],
  ["a negative flat amount", withPrice({ model: "graduated", tiers: [tier("inf", "1", "-1")] }), []],
])("%s is refused", (_why, plan, totals) => {
  expect(() => rateBill(plan, totals, { startAt: 0, endAt: 1 })).toThrow(InvariantError);
});

test("G4 a binary number never becomes a decimal", () => {
  expect(() => Reflect.construct(Exact, [0.1])).toThrow(TypeError);
});

test("G4 amounts are rounded half away from zero, on both sides of it", () => {
  const cases = ["0.005", "-0.005", "0.0049999", "-0.0049999", "1.015", "-1.015", "0.025", "2.5"];
  expect(cases.map((text) => roundAmount(new Exact(text), 2).toFixed(2))).toEqual([
    "0.01",
    "-0.01",
    "0.00",
    "0.00",
    "1.02",
    "-1.02",
    "0.03",
    "2.50",
  ]);
  expect(["0.5", "-0.5", "1.4999"].map((text) => roundAmount(new Exact(text), 0).toFixed(0))).toEqual(["1", "-1", "1"]);
});

test("amounts in minor units and back, in every currency", () => {
  const minors = [0n, 1n, -1n, 5n, 99n, -100n, 1_234n, 10n ** 21n];
  for (const currency of CURRENCIES) {
    for (const minor of minors) expect(minorOfAmount(amountOfMinor(minor, currency), currency)).toBe(minor);
  }
  expect(["jpy", "usd", "kwd"].map((currency) => amountOfMinor(-5n, currency))).toEqual(["-5", "-0.05", "-0.005"]);
  expect(() => minorOfAmount("1.5", "usd")).toThrow(InvariantError);
});

test("currencies have 0, 2 or 3 fraction digits, and unknown ones none", () => {
  expect(["jpy", "krw", "mga", "usd", "huf", "kwd", "tnd", "isk", "ugx", "xxx", "USD", ""].map(minorDigitsOf)).toEqual([
    0,
    0,
    0,
    2,
    2,
    3,
    3,
    null,
    null,
    null,
    null,
    null,
  ]);
});
