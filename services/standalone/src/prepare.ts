/** One-shots that prepare real servers for the separate services. Each is safe to repeat, and so may run at every deployment. */
import { type Environment, parseConfig, SharedSettingsSchema } from "@tallyhouse/runtime";
import { z } from "zod";
import { StandaloneConfigSchema } from "./config.ts";
import {
  CLICKHOUSE_MIGRATIONS,
  createServiceTokenDirectory,
  ensureTopic,
  migrateClickHouse,
  migratePostgres,
  openClickHouse,
  openPostgres,
  POSTGRES_MIGRATIONS,
} from "./ports.ts";

const MigrateSchema = SharedSettingsSchema.pick({ CLICKHOUSE_URL: true, POSTGRES_URL: true }).partial();
const TopicSchema = SharedSettingsSchema.pick({ KAFKA_BROKERS: true, KAFKA_TOPIC: true, LOG_PARTITIONS: true }).extend({
  /** Replicas of a topic that is made; default: the broker's own. Production: 3. */
  KAFKA_REPLICATION_FACTOR: z.coerce.number().int().min(1).max(100).optional(),
  /** Replicas that must have a record before it is acknowledged; default: the broker's own. Production: 2. */
  KAFKA_MIN_INSYNC_REPLICAS: z.coerce.number().int().min(1).max(100).optional(),
});
const TokenSchema = SharedSettingsSchema.pick({ POSTGRES_URL: true, TOKEN_PEPPER: true }).extend({
  /** The service token that is made valid. */
  TALLYHOUSE_INGEST_KEY: StandaloneConfigSchema.in.shape.TALLYHOUSE_INGEST_KEY.unwrap(),
});

/**
 * Applies what is pending to each server that the environment names.
 * @returns one sentence for each; none when no server is named.
 * @throws {TallyhouseError} CONFIG_INVALID, STORE_UNAVAILABLE, MIGRATION_MISMATCH: what was applied before stays.
 */
export async function migrateServers(env: Environment): Promise<string[]> {
  const { CLICKHOUSE_URL: clickhouseUrl, POSTGRES_URL: postgresUrl } = parseConfig(MigrateSchema, env);
  const done: string[] = [];
  if (postgresUrl !== undefined) {
    const { store, close } = await openPostgres({ url: postgresUrl });
    const applied = await migratePostgres(store, POSTGRES_MIGRATIONS).finally(close);
    done.push(`PostgreSQL is up to date (${applied.length} applied).`);
  }
  if (clickhouseUrl !== undefined) {
    const { store, close } = await openClickHouse({ url: clickhouseUrl });
    const applied = await migrateClickHouse(store, CLICKHOUSE_MIGRATIONS).finally(close);
    done.push(`ClickHouse is up to date (${applied.length} applied).`);
  }
  return done;
}

/**
 * Makes the topic, or checks the one that is there; an existing topic is never changed.
 * @throws {TallyhouseError} CONFIG_INVALID, LOG_UNAVAILABLE, LOG_MISCONFIGURED naming everything that is wrong with the topic.
 */
export async function prepareTopic(env: Environment): Promise<string> {
  const config = parseConfig(TopicSchema, env);
  const { KAFKA_REPLICATION_FACTOR: replicationFactor, KAFKA_MIN_INSYNC_REPLICAS: minInSyncReplicas } = config;
  await ensureTopic({
    brokers: config.KAFKA_BROKERS,
    clientId: "tallyhouse-topic",
    topic: config.KAFKA_TOPIC,
    partitionCount: config.LOG_PARTITIONS,
    ...(replicationFactor === undefined ? {} : { replicationFactor }),
    ...(minInSyncReplicas === undefined ? {} : { minInSyncReplicas }),
  });
  return `Topic ${config.KAFKA_TOPIC} is there, with ${config.LOG_PARTITIONS} partitions.`;
}

/**
 * Makes the token of the environment valid. Only its hash is stored; one that was revoked stays revoked.
 * @throws {TallyhouseError} CONFIG_INVALID, STORE_UNAVAILABLE.
 */
export async function addToken(env: Environment): Promise<string> {
  const config = parseConfig(TokenSchema, env);
  const { store, close } = await openPostgres({ url: config.POSTGRES_URL });
  await createServiceTokenDirectory(store, config.TOKEN_PEPPER).add(config.TALLYHOUSE_INGEST_KEY).finally(close);
  return "The token is known.";
}
