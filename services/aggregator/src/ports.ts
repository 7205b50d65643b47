/** Opens what an aggregator in a process of its own runs on: Kafka and a ClickHouse server. */
import { hostname } from "node:os";
import { openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore, EventLog } from "@tallyhouse/domain";
import { openKafkaLog } from "@tallyhouse/eventlog";
import { type Component, heldOpen, type Logger } from "@tallyhouse/runtime";
import type { AggregatorProcessConfig } from "./config.ts";

export interface OpenedPorts {
  readonly log: EventLog;
  readonly analytics: AnalyticsStore;
  /** What to close, in the order of opening. */
  readonly opened: readonly Component[];
}

/** @throws {TallyhouseError} LOG_UNAVAILABLE, LOG_MISCONFIGURED, STORE_UNAVAILABLE: the process ends and is started anew. */
export async function openPorts(config: AggregatorProcessConfig, logger: Logger): Promise<OpenedPorts> {
  const analytics = await openClickHouse({ url: config.CLICKHOUSE_URL });
  const events = await openKafkaLog({
    brokers: config.KAFKA_BROKERS,
    clientId: "tallyhouse-aggregator",
    topic: config.KAFKA_TOPIC,
    partitionCount: config.LOG_PARTITIONS,
    groupId: config.KAFKA_GROUP,
    ownership: "group",
    instance: config.AGGREGATOR_INSTANCE ?? `${hostname()}:${config.AGGREGATOR_PORT}`,
    logger,
  });
  return {
    log: events.log,
    analytics: analytics.store,
    opened: [heldOpen("analytics store", analytics), heldOpen("event log", events)],
  };
}
