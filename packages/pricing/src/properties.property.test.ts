/** What holds for every plan and every total. Amounts are compared as whole numbers of 10^-30: nothing here uses the engine's decimals. */
import { type Quantity, quantityFromScaled } from "@tallyhouse/domain";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { BillLine, Price, RatedItem, RatedPlan, Tier } from "./bill.ts";
import { CURRENCIES, minorDigitsOf } from "./currency.ts";
import { minorOfAmount } from "./money.ts";
import { rateBill } from "./rate-bill.ts";
import { rateItem } from "./rate-item.ts";

const SCALE_DIGITS = 30;
const PERIOD = { startAt: 0, endAt: 1 };
const ONE = 10n ** 9n;

/** Decimal text as a whole number of 10^-30. */
function scaled(text: string): bigint {
  const [whole = "", fraction = ""] = text.split(".");
  return BigInt(whole + fraction.padEnd(SCALE_DIGITS, "0"));
}

/** Plain decimal text of a whole number of 10^-digits. */
function decimalText(value: bigint, digits: number): string {
  const text = value.toString().padStart(digits + 1, "0");
  return `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

const money = fc.oneof(
  fc.bigInt(0n, 10n ** 4n).map((cents) => decimalText(cents, 2)),
  fc.bigInt(0n, 10n ** 14n).map((value) => decimalText(value, 12)),
  fc.constantFrom("0", "0.005", "0.000000000001", "999999999.999"),
);
/** Quantities above 0, small ones and ones with fractions most of all. */
const someUnits = fc.oneof(
  fc.bigInt(1n, 60n).map((units) => units * ONE),
  fc.bigInt(1n, 60n * ONE),
  fc.bigInt(1n, 10n ** 29n),
);
const units = fc.oneof(fc.constant(0n), someUnits);
const bounds = fc.uniqueArray(someUnits, { maxLength: 5 }).map((list) => list.toSorted((a, b) => (a < b ? -1 : 1)));
const tiers: fc.Arbitrary<Tier[]> = bounds.chain((list) =>
  fc.tuple(
    ...[...list.map((bound) => decimalText(bound, 9)), "inf"].map((upTo) =>
      fc.record({ upTo: fc.constant(upTo), unit: money, flat: fc.oneof(fc.constant("0"), money) }),
    ),
  ),
);
const perUnit: fc.Arbitrary<Price> = money.map((unit) => ({ model: "per_unit", unit }));
const packages: fc.Arbitrary<Price> = fc.record({
  model: fc.constant("package" as const),
  size: someUnits.map((size) => decimalText(size, 9)),
  price: money,
  round: fc.constantFrom("up" as const, "down" as const),
});
const graduated: fc.Arbitrary<Price> = tiers.map((list) => ({ model: "graduated", tiers: list }));
const volume: fc.Arbitrary<Price> = tiers.map((list) => ({ model: "volume", tiers: list }));
const anyPrice = fc.oneof(perUnit, packages, graduated, volume, fc.constant(null));
const included = fc.oneof(
  fc.constant(null),
  someUnits.map((value) => decimalText(value, 9)),
);

function itemOf(price: Price | null, includedUnits: string | null = null, key = "item"): RatedItem {
  return { key, meter: "meter", meterVersion: 1, where: {}, included: includedUnits, price };
}

function lineOf(item: RatedItem, quantity: bigint, currency = "usd"): BillLine {
  return rateItem(item, { item: item.key, quantity: quantityFromScaled(quantity) }, currency);
}

function exactOf(item: RatedItem, quantity: bigint): bigint {
  return scaled(lineOf(item, quantity).exact);
}

const plans: fc.Arbitrary<RatedPlan> = fc
  .record({
    currency: fc.constantFrom(...CURRENCIES),
    fee: money,
    prices: fc.array(fc.tuple(anyPrice, included), { maxLength: 4 }),
  })
  .map(({ currency, fee, prices }) => ({
    plan: "p@1",
    currency,
    fee,
    items: prices.map(([price, includedUnits], index) => itemOf(price, includedUnits, `item${index}`)),
  }));
const usedPlans = plans.chain((plan) =>
  fc.record({
    plan: fc.constant(plan),
    totals: fc.tuple(
      ...plan.items.map(({ key }) =>
        fc
          .oneof(units, fc.bigInt(-ONE, ONE))
          .map((quantity) => ({ item: key, quantity: quantityFromScaled(quantity) })),
      ),
    ),
  }),
);

test("more usage never costs less, but by volume", () => {
  fc.assert(
    fc.property(fc.oneof(perUnit, packages, graduated), included, fc.tuple(units, units), (...drawn) => {
      const [price, includedUnits, [a, b]] = drawn;
      const item = itemOf(price, includedUnits);
      const [less, more] = a < b ? [a, b] : [b, a];
      expect(exactOf(item, less)).toBeLessThanOrEqual(exactOf(item, more));
    }),
  );
});

test("by volume one unit more may cost less", () => {
  const item = itemOf({
    model: "volume",
    tiers: [
      { upTo: "10", unit: "7", flat: "0" },
      { upTo: "inf", unit: "5", flat: "0" },
    ],
  });
  expect([lineOf(item, 10n * ONE).amount, lineOf(item, 11n * ONE).amount]).toEqual(["70.00", "55.00"]);
});

test("G4 the parts of a graduated price tile the billable quantity", () => {
  fc.assert(
    fc.property(graduated, included, units, (price, includedUnits, quantity) => {
      const line = lineOf(itemOf(price, includedUnits), quantity);
      let end = 0n;
      for (const { from, upTo, quantity: within } of line.tiers) {
        expect(scaled(from)).toBe(end);
        end += scaled(within);
        if (upTo !== "inf") expect(end).toBeLessThanOrEqual(scaled(upTo));
      }
      expect(end).toBe(scaled(line.billable));
    }),
  );
});

test("a volume price takes the whole quantity in the one tier that holds it", () => {
  fc.assert(
    fc.property(volume, someUnits, (price, quantity) => {
      const { tiers: parts, billable } = lineOf(itemOf(price), quantity);
      expect(parts.map((part) => part.quantity)).toEqual([billable]);
      expect(scaled(parts[0]?.from ?? "")).toBeLessThan(scaled(billable));
      if (parts[0]?.upTo !== "inf") expect(scaled(parts[0]?.upTo ?? "")).toBeGreaterThanOrEqual(scaled(billable));
    }),
  );
});

test("what is included is a first tier of price 0", () => {
  fc.assert(
    fc.property(tiers, someUnits, units, (list, free, quantity) => {
      const shifted = list.map((tier) => {
        if (tier.upTo === "inf") return tier;
        return { ...tier, upTo: decimalText(free + scaled(tier.upTo) / 10n ** 21n, 9) };
      });
      const atStripe = [{ upTo: decimalText(free, 9), unit: "0", flat: "0" }, ...shifted];
      const ours = exactOf(itemOf({ model: "graduated", tiers: list }, decimalText(free, 9)), quantity);
      expect(ours).toBe(exactOf(itemOf({ model: "graduated", tiers: atStripe }), quantity));
    }),
  );
});

test("a period cut in two costs the same per unit", () => {
  fc.assert(
    fc.property(perUnit, units, units, (price, a, b) => {
      const item = itemOf(price);
      expect(exactOf(item, a) + exactOf(item, b)).toBe(exactOf(item, a + b));
    }),
  );
});

test("a period cut in two costs at most one package more, rounded up, and one less, rounded down", () => {
  fc.assert(
    fc.property(packages, units, units, (price, a, b) => {
      const item = itemOf(price);
      const difference = exactOf(item, a) + exactOf(item, b) - exactOf(item, a + b);
      const onePackage = price.model === "package" ? scaled(price.price) : 0n;
      const isUp = price.model === "package" && price.round === "up";
      expect([0n, isUp ? onePackage : -onePackage]).toContain(difference);
    }),
  );
});

test("a period cut in two reaches other tiers", () => {
  const tiersFalling = [
    { upTo: "5", unit: "7", flat: "0" },
    { upTo: "inf", unit: "6", flat: "0" },
  ];
  for (const model of ["graduated", "volume"] as const) {
    const item = itemOf({ model, tiers: tiersFalling });
    expect(exactOf(item, 4n * ONE) * 2n).toBeGreaterThan(exactOf(item, 8n * ONE));
  }
});

test("the order of the totals does not matter", () => {
  fc.assert(
    fc.property(usedPlans, ({ plan, totals }) => {
      expect(rateBill(plan, totals.toReversed(), PERIOD)).toEqual(rateBill(plan, totals, PERIOD));
    }),
  );
});

test("G4 a bill adds up, and each line is within half a minor unit of its exact amount, ties away from zero", () => {
  fc.assert(
    fc.property(usedPlans, ({ plan, totals }) => {
      const bill = rateBill(plan, totals, PERIOD);
      const halfMinor = 5n * 10n ** BigInt(SCALE_DIGITS - 1 - (minorDigitsOf(plan.currency) ?? 0));
      let total = 0n;
      for (const { amount, exact, tiers: parts } of bill.lines) {
        total += minorOfAmount(amount, plan.currency);
        expect(parts.reduce((sum, part) => sum + scaled(part.amount), 0n)).toBe(scaled(exact));
        const error = scaled(amount) - scaled(exact);
        expect(error).toBeGreaterThan(-halfMinor);
        expect(error).toBeLessThanOrEqual(halfMinor);
      }
      expect([bill.totalMinor, minorOfAmount(bill.total, plan.currency)]).toEqual([total.toString(), total]);
    }),
  );
});

test("a bill is plain data: it survives JSON, and it has a line for every item", () => {
  fc.assert(
    fc.property(usedPlans, ({ plan, totals }) => {
      const bill = rateBill(plan, totals, PERIOD);
      expect(JSON.parse(JSON.stringify(bill))).toEqual(bill);
      const keys = bill.lines.filter(({ kind }) => kind === "usage").map(({ key }) => key);
      expect(keys).toEqual(plan.items.map(({ key }) => key));
    }),
  );
});

test("credits move units from billable to prepaid and nothing else", () => {
  fc.assert(
    fc.property(anyPrice, included, fc.tuple(someUnits, fc.bigInt(0n, 100n)), (...drawn) => {
      const [price, includedUnits, [quantity, percent]] = drawn;
      const item = itemOf(price, includedUnits);
      const beyond = scaled(lineOf(item, quantity).billable) / 10n ** 21n;
      const paid: Quantity = quantityFromScaled((beyond * percent) / 100n);
      const line = rateItem(item, { item: item.key, quantity: quantityFromScaled(quantity), credits: paid }, "usd");
      expect(scaled(line.credits) + scaled(line.billable)).toBe(beyond * 10n ** 21n);
    }),
  );
});
