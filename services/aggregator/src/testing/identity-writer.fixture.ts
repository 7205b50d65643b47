/**
 * A process that stores the identities of a plan and their progress, says so, and goes on storing what comes after until it is
 * killed: `identity-writer.fixture.ts FOLDER PLAN`.
 */
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { createResultStore } from "../result-store.ts";
import { hashSeedOf, type IdentityPlan, insertSql, PARTITIONS, STREAM_ID } from "./identity-shapes.ts";

/** Rows of one INSERT … SELECT. */
const CHUNK_ROWS = 4_000_000;
/** Rows of one insert behind progress: small, so that the kill meets one under way. */
const LATER_ROWS = 500;

const [folder = "", planText = ""] = process.argv.slice(2);
const plan = JSON.parse(planText) as IdentityPlan;
const { store: analytics } = await openClickHouse({ path: folder });
await migrateClickHouse(analytics, new URL("../../../../infra/clickhouse", import.meta.url).pathname);
for (let from = 0; from < plan.written; from += CHUNK_ROWS)
  await analytics.execute(insertSql(plan, from, Math.min(CHUNK_ROWS, plan.written - from)));
const store = createResultStore({
  analytics,
  stream: { streamId: STREAM_ID, partitionCount: PARTITIONS, bookingWindowSeconds: 900, hashSeed: hashSeedOf(plan) },
  clock: { now: () => plan.clockAt * 1_000 },
  writer: "writer",
});
await store.recordProgress(
  Array.from({ length: PARTITIONS }, (_, partition) => ({
    partition,
    nextOffset: plan.written,
    logClockAt: plan.clockAt * 1_000,
    lastRecord: 0n,
    counted: 0,
  })),
);
for (let from = plan.written; ; from += LATER_ROWS) {
  const begin = plan.written + ((from - plan.written) % plan.later);
  await analytics.execute(insertSql(plan, begin, Math.min(LATER_ROWS, plan.written + plan.later - begin)));
  process.stdout.write("stored\n");
}
