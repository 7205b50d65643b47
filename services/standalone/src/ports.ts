/** Opens what standalone runs on: embedded parts by default, the real ones where a variable names them. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore, ControlStore, EventLog, OpenedEventLog } from "@tallyhouse/domain";
import { ensureTopic, openEmbeddedLog, openKafkaLog } from "@tallyhouse/eventlog";
import {
  createServiceTokenDirectory,
  migratePostgres,
  openPglite,
  type ServiceTokenDirectory,
} from "@tallyhouse/postgres";
import { type Clock, type Logger, systemClock } from "@tallyhouse/runtime";
import type { StandaloneConfig } from "./config.ts";
import { type FolderSecrets, openSecrets, pinStream } from "./data-folder.ts";

// Other files of this service take them from here: only this one names adapters.
export { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
export { deleteTopic, ensureTopic } from "@tallyhouse/eventlog";
export { createServiceTokenDirectory, generateServiceToken, migratePostgres, openPostgres } from "@tallyhouse/postgres";

/** Everything below the services, opened and migrated. */
export interface StandalonePorts {
  readonly log: EventLog;
  readonly logFailed: Promise<never>;
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly tokens: ServiceTokenDirectory;
  readonly secrets: FolderSecrets;
  readonly clock: Clock;
  /** Set by the composer when the aggregator exists: below these offsets the embedded log may forget old segments. */
  readonly storedOffsets: { of(partition: number): number };
  /** Part → adapter, as the start prints it. */
  readonly adapters: Readonly<Record<string, string>>;
  /** Closes in reverse order of opening. Safe to repeat. */
  close(): Promise<void>;
}

export const CLICKHOUSE_MIGRATIONS = new URL("../../../infra/clickhouse/", import.meta.url).pathname;
export const POSTGRES_MIGRATIONS = new URL("../../../infra/postgres/", import.meta.url).pathname;

/**
 * Opens the folder's ClickHouse first: its lock is the lock of the whole folder, and a kill frees it. Then everything else.
 * @throws {TallyhouseError} DATA_FOLDER_IN_USE, STREAM_MISMATCH, LOG_…: nothing stays open.
 */
export async function openPorts(config: StandaloneConfig, logger: Logger): Promise<StandalonePorts> {
  const folder = config.TALLYHOUSE_DATA;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const opened: (() => Promise<void>)[] = [];
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= closeAll(opened));
  try {
    const clickhouse = await openClickHouse({ path: join(folder, "clickhouse") });
    opened.push(() => clickhouse.close());
    pinStream(folder, {
      log: config.KAFKA_BROKERS === undefined ? "embedded" : `kafka ${config.KAFKA_TOPIC}`,
      partitionCount: config.LOG_PARTITIONS,
      bookingWindowSeconds: config.BOOKING_WINDOW_SECONDS,
    });
    const secrets = openSecrets(folder, config.CONTROL_SIGNING_KEY);
    // Side by side: the one is work of the engine's threads, the other of ours.
    const [postgres] = await Promise.all([
      openPglite({ path: join(folder, "postgres") }),
      migrateClickHouse(clickhouse.store, CLICKHOUSE_MIGRATIONS),
    ]);
    opened.push(() => postgres.close());
    await migratePostgres(postgres.store, POSTGRES_MIGRATIONS);
    const storedOffsets = { of: (_partition: number): number => 0 };
    const events = await openLog({ config, logger, storedOffsets });
    opened.push(() => events.close());
    return {
      log: events.log,
      logFailed: events.failed,
      analytics: clickhouse.store,
      control: postgres.store,
      tokens: createServiceTokenDirectory(postgres.store, secrets.tokenPepper),
      secrets,
      clock: systemClock,
      storedOffsets,
      adapters: {
        "event log":
          config.KAFKA_BROKERS === undefined
            ? "embedded"
            : `Kafka at ${config.KAFKA_BROKERS}, topic ${config.KAFKA_TOPIC}`,
        analytics: `ClickHouse ${clickhouse.engineVersion} in the process`,
        control: `PostgreSQL ${postgres.serverVersion} in the process`,
        billing: "Stripe emulator",
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openLog(input: {
  config: StandaloneConfig;
  logger: Logger;
  storedOffsets: StandalonePorts["storedOffsets"];
}): Promise<OpenedEventLog> {
  const { config, logger, storedOffsets } = input;
  if (config.KAFKA_BROKERS === undefined) {
    return openEmbeddedLog({
      folder: join(config.TALLYHOUSE_DATA, "log"),
      name: "usage.events.v1",
      partitionCount: config.LOG_PARTITIONS,
      fsync: config.LOG_FSYNC,
      progressOf: (partition) => storedOffsets.of(partition),
      clock: systemClock,
    });
  }
  const brokers = config.KAFKA_BROKERS.split(",").map((broker) => broker.trim());
  const topic = { brokers, clientId: "tallyhouse", topic: config.KAFKA_TOPIC, partitionCount: config.LOG_PARTITIONS };
  await ensureTopic(topic);
  // One process owns every partition: a private group with a fixed assignment rejoins in seconds after a kill.
  return openKafkaLog({
    ...topic,
    ownership: "fixed",
    groupId: "tallyhouse-standalone",
    logger,
  });
}

async function closeAll(opened: (() => Promise<void>)[]): Promise<void> {
  for (let release = opened.pop(); release !== undefined; release = opened.pop()) await release();
}
