import { parseQuantity, type Quantity } from "@tallyhouse/domain";
import { expect, test } from "vitest";
import { type CreditGrant, type CreditSettlement, settleCredits } from "./credits.ts";

const NOW = 1_000;

function units(text: string): Quantity {
  const quantity = parseQuantity(text);
  if (quantity === null) throw new Error(`no quantity: ${text}`);
  return quantity;
}

function grant(id: string, left: string, fields: Partial<CreditGrant> = {}): CreditGrant {
  return { id, priority: 0, grantedAt: 0, expiresAt: null, left: units(left), ...fields };
}

function used(...entries: readonly (readonly [grant: string, units: string])[]): CreditSettlement[] {
  return entries.map(([id, text]) => ({ grant: id, units: units(text) }));
}

function settle(grants: readonly CreditGrant[], need: string, settled: readonly CreditSettlement[] = []) {
  return settleCredits({ grants, settled, need: units(need), at: NOW });
}

test("the lowest priority pays first, then the earliest expiry, then the oldest, then the smaller id", () => {
  const grants = [
    grant("e", "1", { priority: 1, expiresAt: 2_000 }),
    grant("d", "1"),
    grant("c", "1", { grantedAt: -1 }),
    grant("b2", "1", { expiresAt: 3_000 }),
    grant("b1", "1", { expiresAt: 3_000 }),
    grant("a", "1", { expiresAt: 2_000 }),
  ];
  const { settlements, rest } = settle(grants, "5.5");
  expect(settlements).toEqual(used(["a", "1"], ["b1", "1"], ["b2", "1"], ["c", "1"], ["d", "1"], ["e", "0.5"]));
  expect(rest).toBe(0n);
});

test("a grant pays up to the instant of its expiry, not at it, and never more than is left", () => {
  const expired = grant("expired", "10", { expiresAt: NOW });
  const ending = grant("ending", "2.5", { expiresAt: NOW + 1 });
  expect(settle([expired, ending], "4")).toEqual({ settlements: used(["ending", "2.5"]), rest: units("1.5") });
  expect(settle([grant("empty", "0")], "4")).toEqual({ settlements: [], rest: units("4") });
});

test("nothing is needed, nothing is settled", () => {
  expect(settle([grant("a", "1")], "0", used(["a", "1"]))).toEqual({ settlements: [], rest: 0n });
});

test("units go back to the last use first, also of a grant that has expired since", () => {
  const settled = used(["old", "3"], ["new", "2"]);
  const grants = [grant("old", "0", { expiresAt: NOW }), grant("new", "5")];
  expect(settle(grants, "-4", settled)).toEqual({ settlements: used(["new", "-2"], ["old", "-2"]), rest: 0n });
});

test("what went back before cannot go back again", () => {
  const settled = used(["a", "3"], ["b", "2"], ["b", "-1.5"], ["a", "1"]);
  expect(settle([], "-10", settled)).toEqual({
    settlements: used(["a", "-4"], ["b", "-0.5"]),
    rest: units("-5.5"),
  });
});

test("one return may cancel several uses", () => {
  const settled = used(["a", "2"], ["a", "1"], ["a", "-1.5"]);
  expect(settle([], "-9", settled)).toEqual({ settlements: used(["a", "-1.5"]), rest: units("-7.5") });
});

test("a use between two returns keeps its place", () => {
  // b's first use is gone, its second one is the newest of all.
  const settled = used(["b", "2"], ["b", "-2"], ["a", "5"], ["b", "1"]);
  expect(settle([], "-3", settled).settlements).toEqual(used(["b", "-1"], ["a", "-2"]));
});

test("taking back all that was settled leaves the grants as they were", () => {
  const grants = [grant("a", "3", { priority: 2 }), grant("b", "4.000000001"), grant("c", "1", { expiresAt: 1_500 })];
  const first = settle(grants, "6");
  const back = settle(grants, "-6", first.settlements);
  expect(back.settlements).toEqual(
    first.settlements.toReversed().map(({ grant: id, units: paid }) => ({ grant: id, units: -BigInt(paid) })),
  );
});
