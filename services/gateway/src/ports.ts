/** Opens what a gateway in a process of its own runs on: Kafka and PostgreSQL. */
import type { Authenticator, EventLog } from "@tallyhouse/domain";
import { openKafkaLog } from "@tallyhouse/eventlog";
import { createServiceTokenDirectory, openPostgres } from "@tallyhouse/postgres";
import { type Component, heldOpen, type Logger } from "@tallyhouse/runtime";
import type { GatewayProcessConfig } from "./config.ts";

export interface OpenedPorts {
  readonly log: EventLog;
  readonly authenticator: Authenticator;
  /** Parts that `/readyz` asks beside the log and the console. */
  readonly probes: Readonly<Record<string, () => Promise<unknown>>>;
  /** What to close, in the order of opening. */
  readonly opened: readonly Component[];
}

/** @throws {TallyhouseError} LOG_UNAVAILABLE, LOG_MISCONFIGURED, STORE_UNAVAILABLE: the process ends and is started anew. */
export async function openPorts(config: GatewayProcessConfig, logger: Logger): Promise<OpenedPorts> {
  const control = await openPostgres({ url: config.POSTGRES_URL });
  const events = await openKafkaLog({
    brokers: config.KAFKA_BROKERS,
    clientId: "tallyhouse-gateway",
    topic: config.KAFKA_TOPIC,
    partitionCount: config.LOG_PARTITIONS,
    // It only appends: no group is ever joined.
    groupId: "tallyhouse-gateway",
    ownership: "fixed",
    logger,
  });
  return {
    log: events.log,
    authenticator: createServiceTokenDirectory(control.store, config.TOKEN_PEPPER),
    probes: { controlStore: () => control.store.query("SELECT 1") },
    opened: [heldOpen("control store", control), heldOpen("event log", events)],
  };
}
