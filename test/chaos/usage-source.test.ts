import { DAY_MS, HOUR_MS } from "@tallyhouse/domain";
import { expect, test } from "vitest";
import { UsageSource } from "./usage-source.ts";

const BASE_AT = 1_790_000_000_000 - (1_790_000_000_000 % HOUR_MS);
const COUNT = 20_000;
const source = new UsageSource(5, BASE_AT);

interface CloudEvent {
  readonly id: string;
  readonly subject: string;
  readonly time: string;
  readonly data: { readonly tokens: number; readonly cost: string; readonly model: string; readonly caller: string };
}
const eventOf = (number: number): CloudEvent => JSON.parse(source.text(number)) as CloudEvent;
const events = Array.from({ length: COUNT }, (_, number) => eventOf(number));

test("a usage event depends on seed and number alone; a changed one has the same identity", () => {
  expect(new UsageSource(5, BASE_AT).text(17)).toBe(source.text(17));
  expect(new UsageSource(6, BASE_AT).text(17)).not.toBe(source.text(17));
  const changed = JSON.parse(source.text(17, true)) as CloudEvent;
  expect([changed.id, changed.subject, changed.time]).toEqual([events[17]?.id, events[17]?.subject, events[17]?.time]);
  expect(changed.data).not.toEqual(events[17]?.data);
});

test("some one in a hundred is late, none by more than 30 days", () => {
  const ages = events.map(({ time }) => BASE_AT - Date.parse(time));
  expect(Math.min(...ages)).toBeGreaterThan(0);
  expect(Math.max(...ages)).toBeLessThanOrEqual(30 * DAY_MS);
  const late = ages.filter((age) => age > 5 * HOUR_MS).length;
  expect(late / COUNT).toBeGreaterThan(0.005);
  expect(late / COUNT).toBeLessThan(0.02);
});

test("the totals are those of the JSON that is sent", () => {
  const sumOf = (lines: readonly string[], meter: string): number =>
    lines.filter((line) => line.includes(`,${meter},`)).reduce((sum, line) => sum + Number(line.split(",")[4]), 0);
  const lines = source.totals(COUNT, new Map());
  expect(sumOf(lines, "requests")).toBe(COUNT);
  expect(sumOf(lines, "tokens")).toBe(events.reduce((sum, { data }) => sum + data.tokens, 0));
  const units = events.reduce((sum, { data }) => sum + Number(data.cost.slice(2)), 0);
  expect(sumOf(lines, "cost")).toBeCloseTo(units / 1e9, 6);
  const [first] = lines;
  const [customer, , windowStart] = (first ?? "").split(",");
  const inWindow = events.filter(
    ({ subject, time }) => subject === customer && Math.floor(Date.parse(time) / 900_000) * 900 === Number(windowStart),
  );
  expect(lines).toContain(
    `${customer},callers,${windowStart},,${new Set(inWindow.map(({ data }) => data.caller)).size}`,
  );
  expect(lines).toContain(
    `${customer},largest,${windowStart},,${Math.max(...inWindow.map(({ data }) => data.tokens))}`,
  );
});

test("a void takes its usage event out of the totals, a replacement stands in its place", () => {
  const three = source.totals(3, new Map());
  const counts = (lines: readonly string[]): number => lines.filter((line) => line.includes(",requests,")).length;
  expect(counts(three)).toBeGreaterThan(0);
  expect(source.totals(3, new Map([[2, "void"]]))).toEqual(source.totals(2, new Map()));
  const replaced = source.totals(1, new Map([[0, "replace"]]));
  const { data } = JSON.parse(source.replacementText(0)) as CloudEvent;
  expect(replaced.find((line) => line.includes(",tokens,"))?.endsWith(`,${data.tokens}`)).toBe(true);
});
