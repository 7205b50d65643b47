import { expect, test } from "vitest";
import { allPoints, KILLED, nameOf, planFaults } from "./plan.ts";

const all = { each: 0, only: "" };

test("a plan depends on its seed alone, and a longer one begins like a shorter one", () => {
  const plan = planFaults({ ...all, seed: 7, kills: 300 });
  expect(planFaults({ ...all, seed: 7, kills: 300 })).toEqual(plan);
  expect(planFaults({ ...all, seed: 7, kills: 40 })).toEqual(plan.slice(0, 40));
  expect(planFaults({ ...all, seed: 8, kills: 300 })).not.toEqual(plan);
});

test("as many faults as there are points hold each of them", () => {
  const points = allPoints().map(nameOf);
  const names = planFaults({ ...all, seed: 1, kills: points.length }).map(({ point }) => nameOf(point));
  expect(names.toSorted()).toEqual(points.toSorted());
});

test("of a thousand faults at most a hundred are the broker's", () => {
  const names = planFaults({ ...all, seed: 3, kills: 1_000 }).map(({ point }) => nameOf(point));
  expect(names.filter((name) => name === "kill broker").length).toBeLessThanOrEqual(100);
});

test("twenty faults hold every process and server once, and a kind of each other", () => {
  const kinds = planFaults({ ...all, seed: 1, kills: 20 }).map(({ point }) => point);
  const killed = kinds.flatMap((point) => (point.kind === "kill" ? [point.victim] : []));
  expect(killed.toSorted()).toEqual(KILLED.toSorted());
  expect(new Set(kinds.map(({ kind }) => kind))).toEqual(new Set(["kill", "call", "zombie", "proxy", "twin", "flush"]));
});

test("--each deals every victim equally often and nothing else", () => {
  const names = planFaults({ seed: 1, kills: 20, each: 3, only: "" }).map(({ point }) => nameOf(point));
  const expected = KILLED.flatMap((victim) => Array.from({ length: 3 }, () => `kill ${victim}`));
  expect(names.toSorted()).toEqual(expected.toSorted());
});
