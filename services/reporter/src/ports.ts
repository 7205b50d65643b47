/** Opens what a reporter in a process of its own runs on: a ClickHouse server and PostgreSQL. */
import { openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore, ControlStore } from "@tallyhouse/domain";
import { openPostgres } from "@tallyhouse/postgres";
import { type Component, heldOpen } from "@tallyhouse/runtime";
import type { ReporterProcessConfig } from "./config.ts";

export interface OpenedPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  /** What to close, in the order of opening. */
  readonly opened: readonly Component[];
}

/** @throws {TallyhouseError} STORE_UNAVAILABLE: the process ends and is started anew. */
export async function openPorts(config: ReporterProcessConfig): Promise<OpenedPorts> {
  const control = await openPostgres({ url: config.POSTGRES_URL });
  const analytics = await openClickHouse({ url: config.CLICKHOUSE_URL });
  return {
    analytics: analytics.store,
    control: control.store,
    opened: [heldOpen("control store", control), heldOpen("analytics store", analytics)],
  };
}
