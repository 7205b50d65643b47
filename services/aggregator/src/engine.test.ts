/** What the engine and its schema must not do with rows that the design relies on. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore } from "@tallyhouse/domain";
import { MemoryLog, until } from "@tallyhouse/testkit";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import type { Aggregator } from "./aggregator.ts";
import { createResultStore, type ResultStore } from "./result-store.ts";
import { storeWith } from "./testing/faults.ts";
import {
  activation,
  aggregatorOn,
  controlRecord,
  HOUR_MS,
  idsOf,
  ManualClock,
  NOON,
  STREAM,
  usageRecord,
} from "./testing/scenario.ts";

const INFRA = new URL("../../../infra/clickhouse", import.meta.url).pathname;
/** One hour of horizon: within one day, and so within one part of the table, an identity can be counted twice. */
const HOUR_OF_HORIZON = { DEDUPE_HORIZON_HOURS: 1, MAX_AGE_HOURS: 0.5, MAX_AHEAD_SECONDS: 300 };

let folder: string;
let analytics: AnalyticsStore;
let close: () => Promise<void>;
const clock = new ManualClock();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-engine-"));
  const opened = await openClickHouse({ path: folder });
  analytics = opened.store;
  close = () => opened.close();
  await migrateClickHouse(analytics, INFRA);
});
afterEach(async () => {
  for (const table of ["raw_events", "identities", "rollup", "control_records", "progress"])
    await analytics.execute(`TRUNCATE TABLE ${table}`);
});
afterAll(async () => {
  await close();
  await rm(folder, { recursive: true });
});

function emptyLog(): MemoryLog {
  clock.at = NOON + 24 * HOUR_MS;
  return new MemoryLog({ partitionCount: STREAM.partitionCount, clock, isManual: true });
}

function realStore(): ResultStore {
  return createResultStore({ analytics, stream: STREAM, clock, writer: "test" });
}

/** An aggregator with the hour of horizon, all of whose partitions are open. */
async function openOn(log: MemoryLog, store = realStore(), stream = STREAM): Promise<Aggregator> {
  const aggregator = aggregatorOn({ log, store, clock }, { ...HOUR_OF_HORIZON, stream });
  await log.subscribe(aggregator.partitions);
  await Promise.race([
    aggregator.failed,
    until(() => aggregator.status().partitions.every(({ state }) => state !== "opening"), { timeoutMs: 60_000 }),
  ]);
  return aggregator;
}

/** Folds and stores everything in the log. */
async function runToEnd(log: MemoryLog): Promise<void> {
  const aggregator = await openOn(log);
  const isDone = (): boolean =>
    aggregator
      .status()
      .partitions.every(({ partition, storedOffset }) => storedOffset === log.entries(partition).length);
  while (!isDone()) {
    for (let partition = 0; partition < STREAM.partitionCount; partition += 1) await log.deliver(partition);
    await aggregator.flush();
  }
}

async function statuses(): Promise<string[]> {
  const rows = await analytics.select<{ status: string }>(
    "SELECT toString(status) AS status FROM raw_events FINAL WHERE logPartition = 0 ORDER BY logOffset",
  );
  return rows.map(({ status }) => status);
}

test("G2 an identity that a zombie counted again, beyond the horizon, is still found where it was counted first", async () => {
  const [id = ""] = idsOf(0, 1);
  const log = emptyLog();
  log.appendAt(NOON, usageRecord({ id, occurredAt: NOON }));
  log.appendAt(NOON + HOUR_MS / 2, usageRecord({ id, occurredAt: NOON }));
  log.appendAt(NOON + 2 * HOUR_MS, usageRecord({ id, occurredAt: NOON + 2 * HOUR_MS }));
  let isDying = false;
  const store = realStore();
  const dying = storeWith(store, {
    recordProgress: (rows) => (isDying ? Promise.reject(new Error("killed")) : store.recordProgress(rows)),
  });
  const zombie = await openOn(log, dying);
  await log.deliver(0, 1);
  await zombie.flush();
  await log.deliver(0, 2);
  isDying = true;
  await expect(zombie.flush()).rejects.toThrow("killed");
  await analytics.execute("OPTIMIZE TABLE identities FINAL");
  await runToEnd(log);
  expect(await statuses()).toEqual(["counted", "duplicate", "counted"]);
  // The successor decided the second record again, and found what the first one was.
  const decisions = await analytics.select<{ decisions: string }>(
    "SELECT toString(uniqExact(status)) AS decisions FROM raw_events WHERE logPartition = 0 AND logOffset = 1",
  );
  expect(decisions).toEqual([{ decisions: "1" }]);
});

test("G1 G2 rows that were lost and are folded again are stored again, although the engine has seen equal blocks", async () => {
  const [id = ""] = idsOf(0, 1);
  const log = emptyLog();
  log.appendAt(NOON, usageRecord({ id, occurredAt: NOON }));
  await runToEnd(log);
  // An operator's repair: progress is lowered, and the log is folded again.
  await analytics.execute("ALTER TABLE identities DELETE WHERE true SETTINGS mutations_sync = 1");
  await analytics.execute("TRUNCATE TABLE progress");
  await runToEnd(log);
  log.appendAt(NOON + HOUR_MS / 2, usageRecord({ id, occurredAt: NOON }));
  await runToEnd(log);
  expect(await statuses()).toEqual(["counted", "duplicate"]);
});

test("G2 another hash seed halts: no retry would be recognised", async () => {
  const [id = ""] = idsOf(0, 1);
  const log = emptyLog();
  log.appendAt(NOON, usageRecord({ id, occurredAt: NOON }));
  await runToEnd(log);
  const other = { ...STREAM, hashSeed: Buffer.from("0123456789abcdeF") };
  await expect(openOn(log, realStore(), other)).rejects.toMatchObject({ code: "STREAM_MISMATCH", action: "halt" });
  // With the seed of before it goes on.
  log.appendAt(NOON, usageRecord({ id, occurredAt: NOON }));
  await runToEnd(log);
  expect(await statuses()).toEqual(["counted", "duplicate"]);
});

test("G3 a meter that was activated a quarter of a century ago counts after every merge and restart", async () => {
  const [first = "", second = ""] = idsOf(0, 2);
  const log = emptyLog();
  for (const partition of [0, 1]) log.appendAt(Date.UTC(2001, 10, 20), controlRecord(activation(), partition));
  log.appendAt(NOON, usageRecord({ id: first, occurredAt: NOON }));
  // Raw rows of 2001 leave by their own TTL; those below progress must be younger than that.
  log.appendAt(NOON, controlRecord({ kind: "tick" }, 1));
  await runToEnd(log);
  await analytics.execute("OPTIMIZE TABLE control_records FINAL");
  log.appendAt(NOON + 60_000, usageRecord({ id: second, occurredAt: NOON }));
  await runToEnd(log);
  const counted = await analytics.select<{ counted: string }>(
    "SELECT toString(sum(counted)) AS counted FROM rollup FINAL",
  );
  expect(counted).toEqual([{ counted: "2" }]);
});
