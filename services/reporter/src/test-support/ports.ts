import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore, ControlStore } from "@tallyhouse/domain";
import { openMigratedPglite } from "@tallyhouse/postgres/test-template";

const INFRA = join(import.meta.dirname, "../../../../infra");

/** The real control store, opened once per test file. */
export interface Ledger {
  readonly control: ControlStore;
  /** Empties every table of the reporter. */
  reset(): Promise<void>;
  close(): Promise<void>;
}

export async function openLedger(): Promise<Ledger> {
  const folder = await mkdtemp(join(tmpdir(), "reporter-"));
  const postgres = await openMigratedPglite(join(folder, "postgres"), join(INFRA, "postgres"));
  return {
    control: postgres.store,
    async reset() {
      await postgres.store.execute(
        "TRUNCATE usage_report, report_due, reporter_state, stripe_meter_map, stripe_customer_map, unbilled, unbilled_state",
      );
    },
    async close() {
      await postgres.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The real analytics store as well. */
export interface Stores extends Ledger {
  readonly analytics: AnalyticsStore;
}

export async function openStores(): Promise<Stores> {
  const folder = await mkdtemp(join(tmpdir(), "reporter-"));
  const clickhouse = await openClickHouse({ path: folder });
  await migrateClickHouse(clickhouse.store, join(INFRA, "clickhouse"));
  const ledger = await openLedger();
  return {
    analytics: clickhouse.store,
    control: ledger.control,
    async reset() {
      await ledger.reset();
      for (const table of ["rollup", "progress", "control_records", "backfills"]) {
        await clickhouse.store.execute(`TRUNCATE TABLE ${table}`);
      }
    },
    async close() {
      await ledger.close();
      await clickhouse.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
