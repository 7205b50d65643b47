import process from "node:process";
import { configDefaults, defineConfig } from "vitest/config";
import { SUITE_VARIABLE, SUITES } from "./infra/scripts/suites.ts";

const suite = SUITES.find(({ name }) => name === process.env[SUITE_VARIABLE]);

/** What every workspace's tests share: a JSON report for the closing table of `npm test`, and bounds that fail a hang. */
export default defineConfig({
  test: {
    include: suite === undefined ? ["**/*.test.ts"] : [...suite.include],
    exclude: [
      ...configDefaults.exclude,
      ...(suite === undefined ? SUITES.flatMap(({ include }) => include.map((pattern) => `**/${pattern}`)) : []),
    ],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: "forks",
    reporters: ["default", "json"],
    outputFile: { json: ".test-results/results.json" },
  },
});
