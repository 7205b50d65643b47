import { generateDay, runDemo } from "@tallyhouse/standalone/demo";
import { expect, test } from "vitest";

test("G2 G4 G5 a generated day with duplicates and conflicts differs nowhere", { timeout: 120_000 }, async () => {
  const lines: string[] = [];
  const workload = generateDay({ seed: 7, nowAt: Date.now(), events: 3_000 });
  const output = { line: (text: string) => void lines.push(text), progress: () => undefined };
  expect(await runDemo({ workload, seed: 7, env: {}, output }), lines.join("\n")).toBe(0);
  expect(lines.at(-1)).toMatch(/^difference: 0 over \d{3,} totals$/);
});

test("the demo fails when an expected total is wrong by one", { timeout: 120_000 }, async () => {
  const lines: string[] = [];
  const day = generateDay({ seed: 8, nowAt: Date.now(), events: 300 });
  const [first, ...rest] = day.expected;
  if (first === undefined) throw new Error("a day without totals");
  const workload = { ...day, expected: [{ ...first, quantity: first.quantity + 1n }, ...rest] };
  const output = { line: (text: string) => void lines.push(text), progress: () => undefined };
  expect(await runDemo({ workload, seed: 8, env: {}, output })).toBe(1);
  expect(lines.at(-1)).toMatch(/^difference: -1 over/);
});
