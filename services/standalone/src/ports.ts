/** Opens what standalone runs on: embedded parts by default, the real ones where a variable names them. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import {
  migrateClickHouse,
  openClickHouse,
  type OpenedClickHouse,
  openReadOnlySql,
  type ReadOnlySql,
} from "@tallyhouse/clickhouse";
import type { AnalyticsStore, ControlStore, EventLog, OpenedEventLog } from "@tallyhouse/domain";
import { ensureTopic, openEmbeddedLog, openKafkaLog } from "@tallyhouse/eventlog";
import {
  createServiceTokenDirectory,
  migratePostgres,
  openControlStore,
  type ServiceTokenDirectory,
} from "@tallyhouse/postgres";
import { type Clock, type Logger, systemClock } from "@tallyhouse/runtime";
import type { StandaloneConfig } from "./config.ts";
import { type FolderSecrets, openSecrets, pinStream } from "./data-folder.ts";
import { lockFolder } from "./folder-lock.ts";

// Other files of this service take them from here: only this one names adapters.
export { migrateClickHouse, openClickHouse, type ReadOnlySql } from "@tallyhouse/clickhouse";
export { deleteTopic, ensureTopic } from "@tallyhouse/eventlog";
export { createServiceTokenDirectory, generateServiceToken, migratePostgres, openPostgres } from "@tallyhouse/postgres";

/** Everything below the services, opened and migrated. */
export interface StandalonePorts {
  readonly log: EventLog;
  readonly logFailed: Promise<never>;
  readonly analytics: AnalyticsStore;
  /** A connection of its own for the analysts' endpoint; absent when that is off. */
  readonly readOnlySql: ReadOnlySql | undefined;
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
 * Locks the folder first; a kill frees the lock. Then everything else.
 * @throws {TallyhouseError} DATA_FOLDER_IN_USE, STREAM_MISMATCH, LOG_…: nothing stays open.
 */
export async function openPorts(config: StandaloneConfig, logger: Logger): Promise<StandalonePorts> {
  const folder = config.TALLYHOUSE_DATA;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const opened: (() => Promise<void>)[] = [];
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= closeAll(opened));
  try {
    opened.push(lockFolder(folder));
    const clickhouse = await openAnalytics(config);
    opened.push(() => clickhouse.close());
    pinStream(folder, {
      streamId: config.STREAM_ID,
      predecessors: config.STREAM_PREDECESSORS,
      log: config.KAFKA_BROKERS === undefined ? "embedded" : `kafka ${config.KAFKA_TOPIC}`,
      analytics: config.CLICKHOUSE_URL === undefined ? "embedded" : "server",
      partitionCount: config.LOG_PARTITIONS,
      bookingWindowSeconds: config.BOOKING_WINDOW_SECONDS,
    });
    const secrets = openSecrets(folder, config.CONTROL_SIGNING_KEY);
    // Side by side: the one is work of the engine's threads, the other of ours.
    const [postgres] = await Promise.all([
      openControlStore(
        config.POSTGRES_URL === undefined ? { path: join(folder, "postgres") } : { url: config.POSTGRES_URL },
      ),
      migrateClickHouse(clickhouse.store, CLICKHOUSE_MIGRATIONS),
    ]);
    opened.push(() => postgres.close());
    // After the migrations: it learns which tables there are. A server has read-only users of its own.
    const hasAnalysts = config.TALLYHOUSE_SQL_PORT !== "off" && config.CLICKHOUSE_URL === undefined;
    const readOnlySql = hasAnalysts ? await openReadOnlySql({ path: join(folder, "clickhouse") }) : undefined;
    if (readOnlySql !== undefined) opened.push(() => readOnlySql.close());
    await migratePostgres(postgres.store, POSTGRES_MIGRATIONS);
    const storedOffsets = { of: (_partition: number): number => 0 };
    const events = await openLog({ config, logger, storedOffsets });
    opened.push(() => events.close());
    return {
      log: events.log,
      logFailed: events.failed,
      analytics: clickhouse.store,
      readOnlySql,
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
        analytics: `ClickHouse ${clickhouse.engineVersion} ${clickhousePlace(config.CLICKHOUSE_URL)}`,
        control: `PostgreSQL ${postgres.serverVersion} ${postgres.place}`,
        billing: "Stripe emulator",
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openAnalytics({
  CLICKHOUSE_URL: url,
  TALLYHOUSE_DATA: folder,
}: StandaloneConfig): Promise<OpenedClickHouse> {
  return openClickHouse(url === undefined ? { path: join(folder, "clickhouse") } : { url });
}

/** Host and database of the URL, never its password. */
function clickhousePlace(url: string | undefined): string {
  if (url === undefined) return "in the process";
  const { host, pathname } = new URL(url);
  return `at ${host}${pathname === "/" ? "" : pathname}`;
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
