/**
 * Folds the golden log into the engine's folder in steps of its own, and prints a digest of each table. Arguments: folder, records of a
 * batch, batches of a flush, and the flush after which it kills itself (0: none).
 */
import { createHash } from "node:crypto";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { until } from "@tallyhouse/testkit";
import { createBackfillStore } from "../backfill-store.ts";
import { createResultStore } from "../result-store.ts";
import { goldenLog } from "./golden-log.ts";
import { aggregatorOn, STREAM } from "./scenario.ts";

const [folder = "", ...numbers] = process.argv.slice(2);
const [batchRecords = 1, batchesPerFlush = 1, killedAfter = 0] = numbers.map(Number);

const opened = await openClickHouse({ path: folder });
const analytics = opened.store;
await migrateClickHouse(analytics, new URL("../../../../infra/clickhouse", import.meta.url).pathname);
const { log, clock } = goldenLog();
const store = createResultStore({ analytics, stream: STREAM, clock, writer: String(process.pid) });
const backfills = createBackfillStore({ analytics, stream: STREAM });
const aggregator = aggregatorOn({ log, store, backfills, clock });
await log.subscribe(aggregator.partitions);
const isOpen = (): boolean => aggregator.status().partitions.every(({ state }) => state !== "opening");
await Promise.race([aggregator.failed, until(isOpen)]);
for (let flushes = 1; !isStored(); flushes += 1) {
  for (let batch = 0; batch < batchesPerFlush; batch += 1)
    for (let partition = 0; partition < log.partitionCount; partition += 1) await log.deliver(partition, batchRecords);
  await aggregator.flush();
  await aggregator.backfill();
  if (flushes === killedAfter) process.kill(process.pid, "SIGKILL");
}

/** Everything but `ver`, which says after how many records a row was written, and that is the flushes' doing. */
const TABLES = {
  raw_events: "SELECT * FROM raw_events FINAL ORDER BY logPartition, logOffset",
  identities: "SELECT * FROM identities FINAL ORDER BY logPartition, logOffset",
  control_records: "SELECT * FROM control_records FINAL ORDER BY logPartition, logOffset",
  backfills: "SELECT * FROM backfills FINAL ORDER BY ALL",
  rollup: "SELECT * EXCEPT ver FROM rollup FINAL ORDER BY ALL",
  rollup_uniq: "SELECT * FROM rollup_uniq FINAL ORDER BY ALL",
};
const digests: Record<string, string> = {};
for (const [table, sql] of Object.entries(TABLES)) {
  const rows = await analytics.select<object>(sql);
  const digest = createHash("sha256").update(JSON.stringify(rows)).digest("hex").slice(0, 16);
  digests[table] = `${rows.length} rows, ${digest}`;
}
const statuses = await analytics.select<{ status: string; rows: string }>(
  "SELECT toString(status) AS status, toString(count()) AS rows FROM raw_events FINAL GROUP BY status ORDER BY status",
);
await opened.close();
process.stdout.write(JSON.stringify({ digests, statuses: statuses.map(({ status, rows }) => `${status} ${rows}`) }));
process.exit(0);

function isStored(): boolean {
  return aggregator
    .status()
    .partitions.every(({ partition, storedOffset }) => storedOffset === log.entries(partition).length);
}
