/** Usage in front of a meter's activation appears late, booked at the activation: the watermark alone must not pass it by. */
import { HOUR_MS } from "@tallyhouse/domain";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { markChanged } from "./due-marks.ts";
import { createPipeline, manualClock } from "./test-support.ts";
import { openStores, type Stores } from "./test-support/ports.ts";
import { createUsageTotals } from "./usage-totals.ts";

const ACCOUNT = { mode: "test", stripeAccount: "acct_1" } as const;
let stores: Stores;

beforeAll(async () => {
  stores = await openStores();
});
afterEach(() => stores.reset());
afterAll(() => stores.close());

async function mark(watermarkAt: number): Promise<number> {
  const totals = createUsageTotals(stores.analytics, { streamId: 1, partitionCount: 2 });
  const { reported: feeds } = await totals.feeds();
  return markChanged({
    account: ACCOUNT,
    control: stores.control,
    totals,
    feeds,
    watermarkAt,
    bookingWindowMs: 900_000,
  });
}

/** Records that both partitions are done, the later one with its rows just before. */
function finish(partitions: readonly number[], meter = "tokens"): Promise<void> {
  return stores.analytics.insert({
    table: "backfills",
    columns: ["stream", "logPartition", "mode", "meter", "meterVersion", "ver"],
    rows: partitions.map((partition) => [1, partition, "test", meter, 1, 2]),
  });
}

const markedHours = async (): Promise<number[]> => {
  const rows = await stores.control.query<{ bucket_start: Date }>("SELECT bucket_start FROM report_due ORDER BY 1");
  return rows.map(({ bucket_start: startAt }) => startAt.getTime());
};

test("G5 usage that is backfilled hours after its activation is marked, and looked for no longer than needed", async () => {
  const clock = manualClock();
  const activatedAt = clock.now();
  const pipeline = createPipeline(stores.analytics, clock);
  await pipeline.activate("tokens");
  await finish([0]);
  expect(await mark(activatedAt + 5 * HOUR_MS)).toBe(0);
  // Booked at the activation, stored five hours later.
  const usedAt = activatedAt - 30 * HOUR_MS;
  await pipeline.use([{ customer: "cus_1", at: usedAt, quantity: "3", meter: "tokens" }]);
  expect(await mark(activatedAt + 5 * HOUR_MS)).toBe(1);
  expect(await markedHours()).toEqual([usedAt]);
  // The last rows may stand between two looks: the start moves only with the next look after the end.
  await pipeline.use([{ customer: "cus_1", at: usedAt + HOUR_MS, quantity: "4", meter: "tokens" }]);
  await finish([1]);
  await mark(activatedAt + 6 * HOUR_MS);
  expect(await markedHours()).toEqual([usedAt, usedAt + HOUR_MS]);
  expect(await mark(activatedAt + 6 * HOUR_MS)).toBe(0);
});
