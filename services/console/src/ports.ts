/** Opens what a console in a process of its own runs on: Kafka, a ClickHouse server and PostgreSQL. */
import { openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore, Authenticator, ControlStore, EventLog } from "@tallyhouse/domain";
import { openKafkaLog } from "@tallyhouse/eventlog";
import { createServiceTokenDirectory, openPostgres } from "@tallyhouse/postgres";
import { type Component, heldOpen, type Logger } from "@tallyhouse/runtime";
import type { ConsoleProcessConfig } from "./config.ts";

export interface OpenedPorts {
  readonly log: EventLog;
  readonly analytics: AnalyticsStore;
  readonly background: AnalyticsStore;
  readonly control: ControlStore;
  readonly authenticator: Authenticator;
  /** What to close, in the order of opening. */
  readonly opened: readonly Component[];
}

/** @throws {TallyhouseError} LOG_UNAVAILABLE, LOG_MISCONFIGURED, STORE_UNAVAILABLE: the process ends and is started anew. */
export async function openPorts(config: ConsoleProcessConfig, logger: Logger): Promise<OpenedPorts> {
  const control = await openPostgres({ url: config.POSTGRES_URL });
  const analytics = await openClickHouse({ url: config.CLICKHOUSE_URL });
  const events = await openKafkaLog({
    brokers: config.KAFKA_BROKERS,
    clientId: "tallyhouse-console",
    topic: config.KAFKA_TOPIC,
    partitionCount: config.LOG_PARTITIONS,
    // It only appends and asks for bounds: no group is ever joined.
    groupId: "tallyhouse-console",
    ownership: "fixed",
    logger,
  });
  return {
    log: events.log,
    analytics: analytics.store,
    background: analytics.background,
    control: control.store,
    authenticator: createServiceTokenDirectory(control.store, config.TOKEN_PEPPER),
    opened: [heldOpen("control store", control), heldOpen("analytics store", analytics), heldOpen("event log", events)],
  };
}
