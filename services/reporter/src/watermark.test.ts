import { HOUR_MS } from "@tallyhouse/domain";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { createUsageTotals } from "./usage-totals.ts";
import { openStores, type Stores } from "./test-support/ports.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
let stores: Stores;
beforeAll(async () => {
  stores = await openStores();
});
afterAll(() => stores.close());
beforeEach(() => stores.reset());

/** Progress of one partition at a log clock. */
async function progress(partition: number, clockAt: number): Promise<void> {
  await stores.analytics.insert({
    table: "progress",
    columns: ["stream", "logPartition", "nextOffset", "logClock", "lastRecord", "counted", "writer", "storedAt"],
    rows: [[1, partition, Math.floor(clockAt / 1_000), clockAt, 0, 0, "test", 0]],
  });
}

it("G3 G7 what is sealed is stored in every partition: the one that is furthest behind tells, whatever the others did", async () => {
  const totals = createUsageTotals(stores.analytics, { streamId: 1, partitionCount: 3 });
  await progress(0, NOON);
  await progress(1, NOON + 3 * HOUR_MS);
  expect(await totals.sealedThrough()).toBeNull();
  await progress(2, NOON + HOUR_MS);
  expect(await totals.sealedThrough()).toBe(NOON);
  await progress(1, NOON + 5 * HOUR_MS);
  expect(await totals.sealedThrough()).toBe(NOON);
  await progress(0, NOON + 2 * HOUR_MS);
  expect(await totals.sealedThrough()).toBe(NOON + HOUR_MS);
});
