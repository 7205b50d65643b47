import type { AnalyticsStore } from "@tallyhouse/domain";
import { expect, test } from "vitest";
import { proveCounted } from "./proof.ts";

const EXPECTED = { identities: 9, stored: 10, inputTokens: 1_000 };

/** Two partitions: the first holds one usage event, the other the rest. */
function storing(row: {
  readonly counted: string;
  readonly stored: string;
  readonly inputTokens: string;
}): AnalyticsStore {
  const select = (sql: string, { partition }: { partition?: number } = {}): Promise<object[]> => {
    if (sql.includes("FROM progress")) return Promise.resolve([{ partition: 0 }, { partition: 1 }]);
    if (sql.includes("FROM usage")) return Promise.resolve([row]);
    const rest = { counted: String(Number(row.counted) - 1), stored: String(Number(row.stored) - 1) };
    return Promise.resolve([partition === 0 ? { counted: "1", stored: "1" } : rest]);
  };
  return { select } as unknown as AnalyticsStore;
}

test("what is stored as expected proves, and each of three numbers alone can refute", async () => {
  const equal = { counted: "9", stored: "10", inputTokens: "1000" };
  expect(await proveCounted(storing(equal), EXPECTED)).toEqual([]);
  expect(await proveCounted(storing({ ...equal, counted: "8" }), EXPECTED)).toEqual([
    "8 usage events are counted, not 9",
  ]);
  expect(await proveCounted(storing({ ...equal, stored: "11" }), EXPECTED)).toEqual(["11 records are stored, not 10"]);
  expect(await proveCounted(storing({ ...equal, inputTokens: "999.5" }), EXPECTED)).toEqual([
    "the meter's sum is 999.5, not 1000",
  ]);
});

test("repeated requests may leave records twice, and no identity", async () => {
  const more = { counted: "9", stored: "12", inputTokens: "1000" };
  expect(await proveCounted(storing(more), { ...EXPECTED, stored: null })).toEqual([]);
  expect(await proveCounted(storing({ ...more, counted: "12" }), { ...EXPECTED, stored: null })).toHaveLength(1);
});
