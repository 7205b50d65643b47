import { defineConfig } from "vitest/config";

/** What every workspace's tests share: a JSON report for the closing table of `npm test`, and bounds that fail a hang. */
export default defineConfig({
  test: {
    include: ["**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: "forks",
    reporters: ["default", "json"],
    outputFile: { json: ".test-results/results.json" },
  },
});
