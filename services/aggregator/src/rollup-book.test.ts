import type { MeterVersion } from "@tallyhouse/domain";
import { meterVersion, quantity } from "@tallyhouse/testkit";
import { describe, expect, test } from "vitest";
import { MeterSet } from "./meter-set.ts";
import { RollupBook, type RollupContribution } from "./rollup-book.ts";
import { RESULT_COLUMNS, type Row } from "./tables.ts";
import { NOON } from "./testing/scenario.ts";

const WINDOW = NOON / 1_000;

function contribution(
  overrides: Partial<RollupContribution> = {},
  version: MeterVersion = meterVersion(),
): RollupContribution {
  const meters = new MeterSet();
  meters.add(version);
  const [meter] = meters.of(version.mode, version.rule.eventType);
  if (meter === undefined) throw new Error("no meter");
  return {
    meter,
    customer: "cus_1",
    dims: [],
    quantity: quantity("1"),
    uniqueText: null,
    occurredAt: NOON,
    windowStart: WINDOW,
    bookedStart: WINDOW,
    offset: 0,
    ...overrides,
  };
}

function take(book: RollupBook, ver = 100): Record<string, unknown>[] {
  return book.takeRows({ stream: 7, partition: 0, ver, lane: 0 }).map(named);
}

function named(row: Row): Record<string, unknown> {
  return Object.fromEntries(RESULT_COLUMNS.rollup.map((column, at) => [column, row[at]]));
}

test("rows are cumulative and carry the version of their prefix", () => {
  const book = new RollupBook();
  book.add(contribution({ quantity: quantity("1.5"), offset: 0 }));
  expect(take(book, 1)).toMatchObject([{ ver: 1, counted: 1, sumQty: "1.5" }]);
  book.add(contribution({ quantity: quantity("-2"), offset: 1 }));
  expect(take(book, 2)).toMatchObject([{ ver: 2, counted: 2, sumQty: "-0.5", minQty: "-2", maxQty: "1.5" }]);
  expect(take(book, 3)).toEqual([]);
});

test("the first value is minimum, maximum and latest, whatever its sign and time", () => {
  const book = new RollupBook();
  book.add(contribution({ quantity: quantity("-7"), occurredAt: 0 }));
  expect(take(book)).toMatchObject([{ minQty: "-7", maxQty: "-7", lastQty: "-7", lastAt: 0 }]);
});

test("latest is the largest (occurredAt, offset): of one instant the later record wins, an earlier instant never", () => {
  const book = new RollupBook();
  book.add(contribution({ quantity: quantity("1"), occurredAt: NOON, offset: 0 }));
  book.add(contribution({ quantity: quantity("2"), occurredAt: NOON, offset: 1 }));
  book.add(contribution({ quantity: quantity("3"), occurredAt: NOON - 1, offset: 2 }));
  expect(take(book)).toMatchObject([{ lastQty: "2", lastAt: NOON, lastOffset: 1 }]);
});

test("keys differ by every part, and no text of one part can imitate another", () => {
  const parts: Partial<RollupContribution>[] = [
    {},
    { customer: "cus_2" },
    { windowStart: WINDOW - 900 },
    { bookedStart: WINDOW + 900 },
    { dims: ["a", "b"] },
    { dims: ["a1:b", ""] },
    { dims: ["", "a1:b"] },
    { customer: "cus_11", dims: [":a"] },
    { customer: "cus_1", dims: ["1:a"] },
  ];
  const book = new RollupBook();
  for (const part of parts) book.add(contribution(part));
  book.add(contribution({}, meterVersion({ version: 2 })));
  book.add(contribution({}, meterVersion({ mode: "test" })));
  expect(take(book)).toHaveLength(parts.length + 2);
});

describe("the skip rule", () => {
  const values = {
    counted: 3,
    voided: 0,
    sumQty: quantity("30"),
    minQty: quantity("5"),
    maxQty: quantity("20"),
    lastQty: quantity("5"),
    lastAt: NOON,
    lastOffset: 8,
  };
  const key = { mode: "live", customer: "cus_1", meter: "input_tokens", meterVersion: 1 } as const;

  test("G2 offsets below the loaded version are in it already; the next one is added", () => {
    const book = new RollupBook();
    book.load({ ...key, windowStart: WINDOW, dims: [], bookedStart: WINDOW }, 10, values);
    for (const offset of [0, 8, 9]) book.add(contribution({ offset }));
    expect(take(book)).toEqual([]);
    book.add(contribution({ offset: 10, occurredAt: NOON - 1 }));
    expect(take(book, 11)).toMatchObject([{ ver: 11, counted: 4, sumQty: "31", minQty: "1", lastQty: "5" }]);
  });

  test("keys of later booking windows stay, earlier ones are forgotten", () => {
    const book = new RollupBook();
    for (const bookedStart of [WINDOW - 900, WINDOW, WINDOW + 900])
      book.load({ ...key, windowStart: WINDOW, dims: [], bookedStart }, 10, values);
    book.forgetBefore(WINDOW);
    for (const bookedStart of [WINDOW, WINDOW + 900]) book.add(contribution({ bookedStart, offset: 11 }));
    expect(take(book, 12)).toMatchObject([{ counted: 4 }, { counted: 4 }]);
  });
});

test("G1 the skip rule spares no hash: whoever stored the row may have died before it stored the hash", () => {
  const version = meterVersion({ rule: { aggregation: "unique_count" } });
  const book = new RollupBook();
  const key = { mode: "live", customer: "cus_1", meter: "input_tokens", meterVersion: 1 } as const;
  const values = {
    counted: 1,
    voided: 0,
    sumQty: 0n,
    minQty: 0n,
    maxQty: 0n,
    lastQty: 0n,
    lastAt: NOON,
    lastOffset: 8,
  };
  book.load({ ...key, windowStart: WINDOW, dims: [], bookedStart: WINDOW }, 10, values);
  book.add(contribution({ offset: 8, uniqueText: "ann" }, version));
  expect(take(book)).toEqual([]);
  expect(book.takeUniqueRows()).toHaveLength(1);
});

test("G2 a void below the loaded version is in it already, too", () => {
  const book = new RollupBook();
  const key = { mode: "live", customer: "cus_1", meter: "input_tokens", meterVersion: 1 } as const;
  const values = {
    counted: 1,
    voided: 1,
    sumQty: 0n,
    minQty: 1n,
    maxQty: 1n,
    lastQty: 1n,
    lastAt: NOON,
    lastOffset: 3,
  };
  book.load({ ...key, windowStart: WINDOW, dims: [], bookedStart: WINDOW }, 10, values);
  book.takeBack(contribution({ offset: 9 }));
  expect(take(book)).toEqual([]);
  book.takeBack(contribution({ offset: 10 }));
  expect(take(book)).toMatchObject([{ counted: 1, voided: 2, sumQty: "-1" }]);
});
