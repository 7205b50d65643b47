/**
 * Bills worked out by hand. A plan is written as people say it:
 *
 * - `usd, 0.002 each, 100000 included`
 * - `usd, 0.09 per 1000, rounded up`
 * - `usd, graduated: 7 to 5; 6.5 to 10; 6 beyond`
 * - `usd, volume: 5 + 10 flat to 5; 3 + 30 flat beyond`
 * - `usd, no price`
 *
 * The tiers FONTS and what 1, 5, 6, 20 and 25 of them cost are Stripe's published example.
 * @see https://docs.stripe.com/subscriptions/pricing-models/tiered-pricing (read 2026-11-22)
 */
import { parseQuantity, type Quantity } from "@tallyhouse/domain";
import { describe, expect, test } from "vitest";
import type { Price, RatedItem, Tier } from "./bill.ts";
import { rateBill } from "./rate-bill.ts";
import { rateItem } from "./rate-item.ts";

const PERIOD = { startAt: 0, endAt: 1 };

function quantityOf(text: string): Quantity {
  const quantity = parseQuantity(text);
  if (quantity === null) throw new Error(`no quantity: ${text}`);
  return quantity;
}

function tierOf(text: string): Tier {
  const match = /^(?<unit>[\d.]+)(?: \+ (?<flat>[\d.]+) flat)? (?:to (?<upTo>[\d.]+)|beyond)$/.exec(text);
  if (match?.groups === undefined) throw new Error(`no tier: ${text}`);
  const { unit = "", flat = "0", upTo = "inf" } = match.groups;
  return { upTo, unit, flat };
}

function priceOf(text: string, round: string): Price | null {
  const [, each] = /^([\d.]+) each$/.exec(text) ?? [];
  if (each !== undefined) return { model: "per_unit", unit: each };
  const [, price, size] = /^([\d.]+) per ([\d.]+)$/.exec(text) ?? [];
  if (price !== undefined && size !== undefined)
    return { model: "package", size, price, round: round === "rounded down" ? "down" : "up" };
  const [, model, tiers] = /^(graduated|volume): (.+)$/.exec(text) ?? [];
  if ((model === "graduated" || model === "volume") && tiers !== undefined)
    return { model, tiers: tiers.split("; ").map(tierOf) };
  if (text === "no price") return null;
  throw new Error(`no price: ${text}`);
}

/** The item of a plan as people say it, and its currency. */
function itemOf(plan: string): { item: RatedItem; currency: string } {
  const [currency = "", price = "", ...rest] = plan.split(", ");
  const round = rest.find((word) => word.startsWith("rounded")) ?? "";
  const included = rest.find((word) => word.endsWith(" included"))?.replace(" included", "") ?? null;
  const item = { key: "item", meter: "meter", meterVersion: 1, where: {}, included, price: priceOf(price, round) };
  return { item, currency };
}

type Row = readonly [plan: string, used: string, parts: string, amount: string];

/** Stripe's example. */
const FONTS = "7 to 5; 6.5 to 10; 6 beyond";
const FLATS = "5 + 10 flat to 5; 4 + 20 flat to 10; 3 + 30 flat beyond";
const STEPS = "0.001 to 100000; 0.0007 beyond";

const EACH: readonly Row[] = [
  ["usd, 0.002 each, 100000 included", "106120", "6120 × 0.002 = 12.24", "12.24"],
  ["usd, 0.002 each, 100000 included", "100000", "0 × 0.002 = 0", "0.00"],
  ["usd, 0.002 each, 100000 included", "99999.999999999", "0 × 0.002 = 0", "0.00"],
  ["usd, 0.002 each, 100000 included", "100001", "1 × 0.002 = 0.002", "0.00"],
  ["usd, 0.002 each, 100000 included", "100003", "3 × 0.002 = 0.006", "0.01"],
  ["usd, 0.002 each", "0", "0 × 0.002 = 0", "0.00"],
  ["usd, 0.002 each", "-500", "0 × 0.002 = 0", "0.00"],
  ["usd, 10 each", "3", "3 × 10 = 30", "30.00"],
  ["usd, 0.00003 each, 1000000 included", "1234567", "234567 × 0.00003 = 7.03701", "7.04"],
  ["usd, 0.000000000001 each", "5000000000", "5000000000 × 0.000000000001 = 0.005", "0.01"],
  ["usd, 0.000000000001 each", "4999999999", "4999999999 × 0.000000000001 = 0.004999999999", "0.00"],
  [
    "usd, 0.123456789012 each",
    "99999999999999999999",
    "99999999999999999999 × 0.123456789012 = 12345678901199999999.876543210988",
    "12345678901199999999.88",
  ],
  ["usd, 0.5 each, 0.25 included", "0.75", "0.5 × 0.5 = 0.25", "0.25"],
  ["usd, 1.50 each", "1.5", "1.5 × 1.5 = 2.25", "2.25"],
  ["usd, no price, 1000 included", "5000", "", "0.00"],
];

const ROUNDING: readonly Row[] = [
  ["usd, 0.005 each", "1", "1 × 0.005 = 0.005", "0.01"],
  ["usd, 0.005 each", "3", "3 × 0.005 = 0.015", "0.02"],
  ["usd, 0.005 each", "5", "5 × 0.005 = 0.025", "0.03"],
  ["usd, 0.0049 each", "1", "1 × 0.0049 = 0.0049", "0.00"],
  ["usd, 0.001 each", "0.000000001", "0.000000001 × 0.001 = 0.000000000001", "0.00"],
  ["eur, 1.005 each", "1", "1 × 1.005 = 1.005", "1.01"],
  ["jpy, 0.3 each", "5", "5 × 0.3 = 1.5", "2"],
  ["jpy, 0.3 each", "4", "4 × 0.3 = 1.2", "1"],
  ["jpy, 0.5 each", "1", "1 × 0.5 = 0.5", "1"],
  ["jpy, 70000 each", "1", "1 × 70000 = 70000", "70000"],
  ["krw, 1250 each", "2.5", "2.5 × 1250 = 3125", "3125"],
  ["mga, 0.4 each", "1", "1 × 0.4 = 0.4", "0"],
  ["kwd, 0.0005 each", "1", "1 × 0.0005 = 0.0005", "0.001"],
  ["kwd, 1.5 each", "1", "1 × 1.5 = 1.5", "1.500"],
  ["kwd, 0.0004 each", "6", "6 × 0.0004 = 0.0024", "0.002"],
  ["bhd, 5.1235 each", "1", "1 × 5.1235 = 5.1235", "5.124"],
];

const PACKAGES: readonly Row[] = [
  ["usd, 0.09 per 1000, rounded up", "1001", "2 × 0.09 = 0.18", "0.18"],
  ["usd, 0.09 per 1000, rounded up", "1000", "1 × 0.09 = 0.09", "0.09"],
  ["usd, 0.09 per 1000, rounded up", "1000.000000001", "2 × 0.09 = 0.18", "0.18"],
  ["usd, 0.09 per 1000, rounded up", "0.000000001", "1 × 0.09 = 0.09", "0.09"],
  ["usd, 0.09 per 1000, rounded up", "0", "0 × 0.09 = 0", "0.00"],
  ["usd, 0.09 per 1000, rounded up", "-1", "0 × 0.09 = 0", "0.00"],
  ["usd, 0.09 per 1000, rounded down", "1999", "1 × 0.09 = 0.09", "0.09"],
  ["usd, 0.09 per 1000, rounded down", "999.999999999", "0 × 0.09 = 0", "0.00"],
  ["usd, 0.09 per 1000, rounded down", "2000", "2 × 0.09 = 0.18", "0.18"],
  ["usd, 0.09 per 1000000000", "1500000000", "2 × 0.09 = 0.18", "0.18"],
  ["usd, 5 per 1000, 500 included, rounded up", "1500", "1 × 5 = 5", "5.00"],
  ["usd, 5 per 1000, 500 included, rounded up", "1501", "2 × 5 = 10", "10.00"],
  ["usd, 5 per 1000, 500 included, rounded up", "500", "0 × 5 = 0", "0.00"],
  ["usd, 1 per 0.5, rounded up", "1.2", "3 × 1 = 3", "3.00"],
  ["usd, 0.005 per 3, rounded up", "10", "4 × 0.005 = 0.02", "0.02"],
];

const GRADUATED: readonly Row[] = [
  [`usd, graduated: ${FONTS}`, "1", "1 × 7 = 7", "7.00"],
  [`usd, graduated: ${FONTS}`, "5", "5 × 7 = 35", "35.00"],
  [`usd, graduated: ${FONTS}`, "6", "5 × 7 = 35; 1 × 6.5 = 6.5", "41.50"],
  [`usd, graduated: ${FONTS}`, "10", "5 × 7 = 35; 5 × 6.5 = 32.5", "67.50"],
  [`usd, graduated: ${FONTS}`, "11", "5 × 7 = 35; 5 × 6.5 = 32.5; 1 × 6 = 6", "73.50"],
  [`usd, graduated: ${FONTS}`, "20", "5 × 7 = 35; 5 × 6.5 = 32.5; 10 × 6 = 60", "127.50"],
  [`usd, graduated: ${FONTS}`, "25", "5 × 7 = 35; 5 × 6.5 = 32.5; 15 × 6 = 90", "157.50"],
  [`usd, graduated: ${FONTS}`, "0", "0 × 7 = 0", "0.00"],
  [`usd, graduated: ${FONTS}`, "5.5", "5 × 7 = 35; 0.5 × 6.5 = 3.25", "38.25"],
  [`usd, graduated: ${FONTS}`, "5.000000001", "5 × 7 = 35; 0.000000001 × 6.5 = 0.0000000065", "35.00"],
  [`usd, graduated: ${FONTS}, 3 included`, "9", "5 × 7 = 35; 1 × 6.5 = 6.5", "41.50"],
  [`usd, graduated: ${FONTS}, 3 included`, "3", "", "0.00"],
  [`usd, graduated: ${FLATS}`, "12", "5 × 5 + 10 = 35; 5 × 4 + 20 = 40; 2 × 3 + 30 = 36", "111.00"],
  [`usd, graduated: ${FLATS}`, "0", "0 × 5 + 10 = 10", "10.00"],
  [`usd, graduated: ${FLATS}`, "-3", "0 × 5 + 10 = 10", "10.00"],
  [`usd, graduated: ${FLATS}`, "5", "5 × 5 + 10 = 35", "35.00"],
  [`usd, graduated: ${FLATS}, 1 included`, "1", "", "0.00"],
  [`usd, graduated: ${FLATS}, 1 included`, "2", "1 × 5 + 10 = 15", "15.00"],
  [`usd, graduated: ${STEPS}, 1000000 included`, "1250000", "100000 × 0.001 = 100; 150000 × 0.0007 = 105", "205.00"],
  ["usd, graduated: 0.004 to 1; 0.004 beyond", "2", "1 × 0.004 = 0.004; 1 × 0.004 = 0.004", "0.01"],
  ["jpy, graduated: 0.4 to 1; 0.4 beyond", "2", "1 × 0.4 = 0.4; 1 × 0.4 = 0.4", "1"],
  ["usd, graduated: 2 beyond", "4", "4 × 2 = 8", "8.00"],
];

const VOLUME: readonly Row[] = [
  [`usd, volume: ${FONTS}`, "1", "1 × 7 = 7", "7.00"],
  [`usd, volume: ${FONTS}`, "5", "5 × 7 = 35", "35.00"],
  [`usd, volume: ${FONTS}`, "6", "6 × 6.5 = 39", "39.00"],
  [`usd, volume: ${FONTS}`, "20", "20 × 6 = 120", "120.00"],
  [`usd, volume: ${FONTS}`, "25", "25 × 6 = 150", "150.00"],
  [`usd, volume: ${FONTS}`, "5.000000001", "5.000000001 × 6.5 = 32.5000000065", "32.50"],
  [`usd, volume: ${FLATS}`, "12", "12 × 3 + 30 = 66", "66.00"],
  [`usd, volume: ${FLATS}`, "10", "10 × 4 + 20 = 60", "60.00"],
  [`usd, volume: ${FLATS}`, "0", "0 × 5 + 10 = 10", "10.00"],
  [`usd, volume: ${FLATS}, 1 included`, "1", "", "0.00"],
  [`usd, volume: ${FLATS}, 1 included`, "7", "6 × 4 + 20 = 44", "44.00"],
  ["usd, volume: 0.05 to 10000; 0.03 beyond", "10000", "10000 × 0.05 = 500", "500.00"],
  ["usd, volume: 0.05 to 10000; 0.03 beyond", "10001", "10001 × 0.03 = 300.03", "300.03"],
];

describe.each([
  ["per unit", EACH],
  ["rounding and currencies", ROUNDING],
  ["packages", PACKAGES],
  ["graduated tiers", GRADUATED],
  ["volume tiers", VOLUME],
])("%s", (_shape, rows) => {
  test.for(rows)("G4 %s: %s used", ([plan, used, parts, amount]) => {
    const { item, currency } = itemOf(plan);
    const line = rateItem(item, { item: item.key, quantity: quantityOf(used) }, currency);
    const shown = line.tiers.map(
      (part) => `${part.quantity} × ${part.unit}${part.flat === "0" ? "" : ` + ${part.flat}`} = ${part.amount}`,
    );
    expect({ parts: shown.join("; "), amount: line.amount }).toEqual({ parts, amount });
  });
});

/** Credits: plan, used, prepaid units, what is billable, amount. */
const PREPAID: readonly (readonly [plan: string, used: string, paid: string, billable: string, amount: string])[] = [
  ["usd, 0.01 each, 100 included", "1100", "1000", "0", "0.00"],
  ["usd, 0.01 each, 100 included", "1350", "1000", "250", "2.50"],
  ["usd, 0.01 each", "10.5", "0.5", "10", "0.10"],
  [`usd, graduated: ${FONTS}`, "26", "6", "20", "127.50"],
  [`usd, volume: ${FLATS}`, "12", "12", "0", "10.00"],
  [`usd, volume: ${FLATS}, 1 included`, "12", "11", "0", "0.00"],
];

test.for(PREPAID)("%s: %s used, %s of them prepaid", ([plan, used, paid, billable, amount]) => {
  const { item, currency } = itemOf(plan);
  const total = { item: item.key, quantity: quantityOf(used), credits: quantityOf(paid) };
  const line = rateItem(item, total, currency);
  expect({ credits: line.credits, billable: line.billable, amount: line.amount }).toEqual({
    credits: paid,
    billable,
    amount,
  });
});

/** Whole bills: fee, items, totals, the lines' amounts, the total in major and minor units. */
const BILLS: readonly (readonly [
  fee: string,
  plans: string[],
  used: string[],
  lines: string,
  total: string,
  minor: string,
])[] = [
  ["49", ["usd, 0.002 each, 100000 included"], ["106120"], "fee 49.00, a 12.24", "61.24", "6124"],
  ["0", ["usd, 0.005 each", "usd, 0.005 each"], ["1", "1"], "a 0.01, b 0.01", "0.02", "2"],
  ["0", ["usd, 0.004 each", "usd, 0.004 each"], ["1", "1"], "a 0.00, b 0.00", "0.00", "0"],
  ["70000", ["jpy, 0.3 each"], ["12345"], "fee 70000, a 3704", "73704", "73704"],
  ["1.5", ["kwd, 0.0125 each"], ["3"], "fee 1.500, a 0.038", "1.538", "1538"],
  ["19.995", ["eur, no price"], ["7"], "fee 20.00, a 0.00", "20.00", "2000"],
  [
    "199",
    ["usd, 0.00003 each, 1000000 included", "usd, 0.0006 each", `usd, graduated: ${STEPS}`],
    ["1500000", "2500", "150000"],
    "fee 199.00, a 15.00, b 1.50, c 135.00",
    "350.50",
    "35050",
  ],
];

test.for(BILLS)("fee %s, items %j: %j used", ([fee, plans, used, lines, total, minor]) => {
  const rated = plans.map(itemOf);
  const items = rated.map(({ item }, index) => ({ ...item, key: "abc".charAt(index) }));
  const plan = { plan: "p@1", currency: rated[0]?.currency ?? "", fee, items };
  const totals = items.map(({ key }, index) => ({ item: key, quantity: quantityOf(used[index] ?? "") }));
  const bill = rateBill(plan, totals, PERIOD);
  expect({
    lines: bill.lines.map(({ key, amount }) => `${key} ${amount}`).join(", "),
    total: bill.total,
    minor: bill.totalMinor,
  }).toEqual({ lines, total, minor });
});

test("steps are the arithmetic that people write down", () => {
  const { item, currency } = itemOf(`usd, graduated: ${FLATS}, 1 included`);
  const total = { item: item.key, quantity: quantityOf("12.5"), credits: quantityOf("1.25") };
  expect(rateItem(item, total, currency).steps).toEqual([
    "used 12.5",
    "12.5 − 1 included − 1.25 prepaid = 10.25",
    "up to 5: 5 × 5 + 10 = 35",
    "above 5 up to 10: 5 × 4 + 20 = 40",
    "above 10: 0.25 × 3 + 30 = 30.75",
    "35 + 40 + 30.75 = 105.75",
  ]);
  const packages = itemOf("usd, 0.0125 per 1000, rounded up");
  expect(rateItem(packages.item, { item: "item", quantity: quantityOf("2500") }, "usd").steps).toEqual([
    "used 2500",
    "2500 in packages of 1000, rounded up: 3",
    "3 × 0.0125 = 0.0375",
    "0.0375 ≈ 0.04, rounded to 2 digits",
  ]);
  const negative = itemOf("usd, 1 each, 5 included");
  expect(rateItem(negative.item, { item: "item", quantity: quantityOf("-2") }, "usd").steps).toEqual([
    "used -2, rated as 0",
    "0 − 5 included ≤ 0",
    "0 × 1 = 0",
  ]);
});
