/** A folder with a month of usage, for benchmarks. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { type AnalyticsStore, DAY_MS, floorTo } from "@tallyhouse/domain";
import { migratePostgres, openPglite } from "@tallyhouse/postgres";
import { systemClock } from "@tallyhouse/runtime";
import { openReadBench, type ReadBench } from "./read-bench.ts";
import { MONTH_DAYS, storeActivations, storeDay, type StoredMonth } from "./stored-usage.ts";

const INFRA = fileURLToPath(new URL("../../infra", import.meta.url));
/** What grows, and what it grows with. */
const TABLES = ["raw_events", "identities", "rollup"];

/** Stores of one month, and what asks them. */
export interface Month {
  readonly analytics: AnalyticsStore;
  readonly reads: ReadBench;
  /** Usage events stored so far. */
  stored(): number;
  /** Stores the month but its last day. Returns the seconds it took. */
  fill(): Promise<number>;
  /** Stores the last day in small inserts, beside whatever is asked, until it is stopped or the day is over. */
  ingest(): { stop(): Promise<number> };
  /** Merges every part. */
  merge(): Promise<void>;
  close(): Promise<void>;
}

/** Opens a fresh folder: ClickHouse in the process, or the server of CLICKHOUSE_URL, and PostgreSQL in the process. */
export async function openMonth(
  folder: string,
  size: Pick<StoredMonth, "events" | "customers" | "seed">,
): Promise<Month> {
  const url = process.env["CLICKHOUSE_URL"];
  const clickhouse = await openClickHouse(url === undefined ? { path: join(folder, "clickhouse") } : { url });
  const postgres = await openPglite({ path: join(folder, "postgres") });
  const analytics = clickhouse.store;
  await migrateClickHouse(analytics, join(INFRA, "clickhouse"));
  await migratePostgres(postgres.store, join(INFRA, "postgres"));
  const month = { ...size, fromAt: floorTo(systemClock.now(), DAY_MS) - MONTH_DAYS * DAY_MS };
  const reads = await openReadBench({ analytics, control: postgres.store }, month);
  let offsets: number[] = [];
  let stored = 0;
  const store = async (day: number, part = { number: 0, of: 1 }): Promise<void> => {
    stored += await storeDay(analytics, { month, day, offsets, part });
  };
  return {
    analytics,
    reads,
    stored: () => stored,
    async fill() {
      const startedAt = performance.now();
      offsets = await storeActivations(analytics, month);
      for (let day = 0; day < MONTH_DAYS - 1; day += 1) await store(day);
      return (performance.now() - startedAt) / 1_000;
    },
    ingest() {
      const before = stored;
      const stop = new AbortController();
      const done = (async () => {
        // As many parts as flushes of 250 ms would make in four minutes, one after another.
        for (let number = 0; number < 1_000 && !stop.signal.aborted; number += 1)
          await store(MONTH_DAYS - 1, { number, of: 1_000 });
      })();
      return {
        async stop() {
          stop.abort();
          await done;
          return stored - before;
        },
      };
    },
    async merge() {
      for (const table of TABLES) await analytics.execute(`OPTIMIZE TABLE ${table} FINAL`);
    },
    async close() {
      await reads.close();
      await clickhouse.close();
      await postgres.close();
    },
  };
}
