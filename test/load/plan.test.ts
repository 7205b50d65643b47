import { expect, test } from "vitest";
import { runnerOptions } from "./bench-options.ts";
import { chosenBenches, planBenches } from "./plan.ts";

test("the plan has every benchmark over both logs, and bench:all for ten minutes unless it is quick", () => {
  const all = (isQuick: boolean) => planBenches(isQuick).filter(({ name }) => name === "all");
  expect(all(false)).toEqual([
    { name: "all", args: ["--seconds", "600", "--log", "embedded"], runs: 1 },
    { name: "all", args: ["--seconds", "600", "--log", "kafka"], runs: 1 },
  ]);
  expect(all(true).map(({ args }) => args[1])).toEqual(["5", "5"]);
  expect(planBenches(true).every(({ runs }) => runs === 1)).toBe(true);
});

test("benchmarks are chosen by name, and a name that is none is an error", () => {
  const plan = planBenches(false);
  expect(chosenBenches(plan, [])).toEqual(plan);
  expect(new Set(chosenBenches(plan, ["all", "aggregate"]).map(({ name }) => name))).toEqual(
    new Set(["aggregate", "all"]),
  );
  expect(() => chosenBenches(plan, ["everything"])).toThrow("no benchmark is called everything: aggregate, ");
});

test("options of the runner", () => {
  expect(runnerOptions([])).toEqual({ isQuick: false, only: [], compare: null, runs: null, extra: [] });
  expect(
    runnerOptions(["--only", "aggregate,ingest", "--compare", "HEAD~2", "--runs", "5", "--", "--seed", "7"]),
  ).toEqual({
    isQuick: false,
    only: ["aggregate", "ingest"],
    compare: "HEAD~2",
    runs: 5,
    extra: ["--seed", "7"],
  });
  expect(() => runnerOptions(["--compare="])).toThrow("--compare takes a revision");
  expect(() => runnerOptions(["--compare=--output=x"])).toThrow("--compare takes a revision");
  expect(() => runnerOptions(["--runs", "0"])).toThrow("--runs takes a number from 1 to 99");
  expect(() => runnerOptions(["--slow"])).toThrow("--slow");
  expect(() => runnerOptions(["aggregate"])).toThrow("aggregate");
});
