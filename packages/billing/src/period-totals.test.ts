import { type AnalyticsStore, DAY_MS } from "@tallyhouse/domain";
import { meterVersion, quantity } from "@tallyhouse/testkit";
import type { MeterDefinition } from "@tallyhouse/usage";
import { expect, it } from "vitest";
import { readPeriodTotalsOfMany } from "./period-totals.ts";

const DAY = Date.UTC(2026, 10, 1);
const version = meterVersion({ meter: "calls", rule: { dimensions: { model: "/model", region: "/region" } } });
const definition = (activatedAt: number): MeterDefinition => ({
  version,
  places: new Map(),
  isActive: true,
  activatedAts: [activatedAt],
  pendingAts: [],
});

/** Answers every question about rollups with one row for each customer asked for, and keeps the questions. */
function fakeStore(): { store: AnalyticsStore; asked: { sql: string; customers: readonly string[] }[] } {
  const asked: { sql: string; customers: readonly string[] }[] = [];
  const refuse = (): Promise<never> => Promise.reject(new Error("only SELECTs are expected"));
  return {
    asked,
    store: {
      insert: refuse,
      scan: refuse,
      execute: refuse,
      select<Row>(sql: string, params: Readonly<Record<string, unknown>> = {}): Promise<Row[]> {
        const customers = (params["spanCustomers"] ?? []) as string[];
        if (!sql.includes("FROM rollup")) return Promise.resolve([]);
        asked.push({ sql, customers });
        const rows = customers.map((customer) => ({
          firstWindow: String(DAY / 1_000),
          groupValues: sql.includes("r.dims") ? [customer, "l1"] : [customer],
          quantity: "7",
          newest: [],
          known: [],
        }));
        return Promise.resolve(rows as Row[]);
      },
    },
  };
}

const all = { key: "all", meter: "calls", meterVersion: 1, where: {} };
const l1 = { key: "l1", meter: "calls", meterVersion: 1, where: { model: ["l1"] } };
const l2 = { key: "l2", meter: "calls", meterVersion: 1, where: { model: ["l2", "l3"] } };
const month = { startAt: DAY, endAt: DAY + 30 * DAY_MS };
const now = { mode: "live", cutAt: null, watermarkAt: null } as const;

it("asks once for all customers and once for each set of dimensions, and tells the items apart", async () => {
  const { store, asked } = fakeStore();
  const periods = ["a", "b", "c"].map((customer) => ({ customer, ...month, items: [all, l1, l2] }));
  const readings = await readPeriodTotalsOfMany(store, { ...now, definitions: [definition(0)], periods });
  expect(asked.map(({ customers }) => customers)).toEqual([
    ["a", "b", "c"],
    ["a", "b", "c"],
  ]);
  const totals = [
    { item: "all", quantity: quantity("7") },
    { item: "l1", quantity: quantity("7") },
    { item: "l2", quantity: quantity("0") },
  ];
  expect(readings).toEqual([1, 2, 3].map(() => ({ kind: "totals", totals, missing: [] })));
});

it("reads a customer's periods one after another, and long lists of customers in parts below the size of a URL", async () => {
  const { store, asked } = fakeStore();
  const next = { startAt: month.endAt, endAt: month.endAt + DAY_MS };
  const two = [month, next].map((span) => ({ customer: "a", ...span, items: [all] }));
  await readPeriodTotalsOfMany(store, { ...now, definitions: [definition(0)], periods: two });
  expect(asked.map(({ customers }) => customers)).toEqual([["a"], ["a"]]);
  asked.length = 0;
  const names = Array.from({ length: 1_000 }, (_, index) => `${"é".repeat(100)} ${index}`);
  const periods = names.map((customer) => ({ customer, ...month, items: [all] }));
  const readings = await readPeriodTotalsOfMany(store, { ...now, definitions: [definition(0)], periods });
  expect(readings.every((reading) => reading.kind === "totals" && reading.totals[0]?.quantity === quantity("7"))).toBe(
    true,
  );
  expect(asked.flatMap(({ customers }) => customers)).toEqual(names);
  for (const { customers } of asked) expect(encodeURIComponent(JSON.stringify(customers)).length).toBeLessThan(170_000);
});

it("refuses one customer whose single usage events are gone, and nobody beside", async () => {
  const { store } = fakeStore();
  const cut = { customer: "cut", startAt: DAY + 1, endAt: month.endAt, items: [all] };
  const periods = [{ customer: "a", ...month, items: [all] }, cut, { customer: "z", ...month, items: [all] }];
  const readings = await readPeriodTotalsOfMany(store, {
    ...now,
    watermarkAt: DAY + 400 * DAY_MS,
    definitions: [definition(0)],
    periods,
  });
  expect(readings.map(({ kind }) => kind)).toEqual(["totals", "refused", "totals"]);
  expect(readings[1]).toEqual({ kind: "refused", items: ["all"], refusal: { kind: "expired" } });
});

it("names items whose meter counts nowhere yet, as known at the cut", async () => {
  const { store, asked } = fakeStore();
  const question = { ...now, cutAt: DAY, definitions: [definition(DAY)] };
  const periods = [{ customer: "a", ...month, items: [all, { ...all, key: "gone", meterVersion: 2 }] }];
  const [reading] = await readPeriodTotalsOfMany(store, { ...question, periods });
  expect(reading).toMatchObject({ kind: "totals", missing: ["all", "gone"] });
  expect(asked).toEqual([]);
});
