import { setTimeout as sleep } from "node:timers/promises";
import { TallyhouseError } from "@tallyhouse/domain";
import kafkajs, { type Admin } from "kafkajs";
import { createKafka, hasProtocolCode, KAFKA_RETRY, type KafkaClientOptions, unavailable } from "./kafka-client.ts";
import { RECORD_BYTES_MAX } from "./record-size.ts";

const HOUR_MS = 3_600_000;
const RETENTION_HOURS = 168;
/** Packing of a foreign producer that kafkajs cannot read would crash every consumer: the broker must repack it. */
const READABLE_COMPRESSION = new Set(["zstd", "gzip", "uncompressed"]);
/** UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER. @see https://kafka.apache.org/protocol#protocol_error_codes (read 2026-11) */
const NOT_READY_CODES = new Set<unknown>([3, 5, 6]);
const CREATED_ATTEMPTS = 50;
const CREATED_PAUSE_MS = 100;

/** What the log contract demands of a topic. */
export interface TopicRequirements {
  readonly topic: string;
  readonly partitionCount: number;
  /** Default 168 (7 days), never less in production. */
  readonly retentionHours?: number;
}

/** See {@link ensureTopic}. */
export interface EnsureTopicOptions extends KafkaClientOptions, TopicRequirements {
  /** Default: the broker's `default.replication.factor`. Production: 3. */
  readonly replicationFactor?: number;
  /** Default: the broker's. Production: 2. */
  readonly minInSyncReplicas?: number;
  /** How the broker stores batches, whatever producers send. Default `zstd`. */
  readonly compressionType?: "zstd" | "gzip";
}

/**
 * Creates the topic when it is absent, and checks the one that is there. Never changes an existing topic: `alterConfigs`
 * would reset every setting that it does not name. Safe to repeat.
 * @throws {TallyhouseError} LOG_MISCONFIGURED (halt) naming everything that is wrong; LOG_UNAVAILABLE (retry).
 */
export async function ensureTopic(options: EnsureTopicOptions): Promise<void> {
  const { topic, partitionCount, replicationFactor, minInSyncReplicas } = options;
  await withAdmin(options, async (admin) => {
    const configEntries = [
      { name: "message.timestamp.type", value: "LogAppendTime" },
      { name: "cleanup.policy", value: "delete" },
      { name: "retention.ms", value: String((options.retentionHours ?? RETENTION_HOURS) * HOUR_MS) },
      { name: "compression.type", value: options.compressionType ?? "zstd" },
    ];
    if (minInSyncReplicas !== undefined) {
      configEntries.push({ name: "min.insync.replicas", value: String(minInSyncReplicas) });
    }
    const replication = replicationFactor === undefined ? {} : { replicationFactor };
    const topics = [{ topic, numPartitions: partitionCount, configEntries, ...replication }];
    // kafkajs's own wait for leaders fails when the broker does not know the topic yet; checkTopic waits.
    await admin.createTopics({ topics, waitForLeaders: false });
    await checkTopic(admin, options);
  });
}

/** Removes the topic with all its records: for demonstrations and tests. An absent one is fine. */
export async function deleteTopic(options: KafkaClientOptions & { readonly topic: string }): Promise<void> {
  await withAdmin(options, async (admin) => {
    if ((await admin.listTopics()).includes(options.topic)) await admin.deleteTopics({ topics: [options.topic] });
  });
}

/** @throws {TallyhouseError} LOG_MISCONFIGURED (halt) when the topic is absent or breaks the log contract. */
export async function checkTopic(admin: Admin, wanted: TopicRequirements): Promise<void> {
  const { topic } = wanted;
  const partitions = await partitionsOf(admin, topic);
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic }],
  });
  const configs = new Map(resources[0]?.configEntries.map((entry) => [entry.configName, entry.configValue]));
  const problems = topicProblems(wanted, { replicaCounts: partitions.map(({ replicas }) => replicas.length), configs });
  if (problems.length > 0) {
    throw misconfigured(`topic ${topic} does not fit: ${problems.join("; ")}. Nothing was changed.`);
  }
}

/** Everything that is wrong with a topic, one sentence part each; empty when it fits. Pure. */
export function topicProblems(
  wanted: TopicRequirements,
  found: { readonly replicaCounts: readonly number[]; readonly configs: ReadonlyMap<string, string> },
): string[] {
  const { replicaCounts, configs } = found;
  const problems: string[] = [];
  const demand = (name: string, isRight: (value: string) => boolean, must: string): void => {
    const value = configs.get(name) ?? "unknown";
    if (!isRight(value)) problems.push(`${name} is ${value} and must be ${must}`);
  };
  if (replicaCounts.length !== wanted.partitionCount) {
    problems.push(`it has ${replicaCounts.length} partitions and the stream has ${wanted.partitionCount}`);
  }
  demand("message.timestamp.type", (value) => value === "LogAppendTime", "LogAppendTime");
  demand("cleanup.policy", (value) => value === "delete", "delete");
  demand("compression.type", (value) => READABLE_COMPRESSION.has(value), [...READABLE_COMPRESSION].join(", "));
  const retentionMs = (wanted.retentionHours ?? RETENTION_HOURS) * HOUR_MS;
  demand("retention.ms", (value) => value === "-1" || Number(value) >= retentionMs, `at least ${retentionMs}, or -1`);
  demand("max.message.bytes", (value) => Number(value) >= RECORD_BYTES_MAX, `at least ${RECORD_BYTES_MAX}`);
  // A broker acknowledges with fewer replicas than min.insync.replicas when the topic has no more than that.
  const replicasMin = Math.min(...replicaCounts);
  demand("min.insync.replicas", (value) => Number(value) <= replicasMin, `at most ${replicasMin}, its replica count`);
  return problems;
}

async function partitionsOf(admin: Admin, topic: string): Promise<readonly { replicas: number[] }[]> {
  // A topic just created reaches the broker's metadata, and gets its leaders, a moment later.
  for (let attempt = 1; ; attempt += 1) {
    const partitions = await readyPartitions(admin, topic);
    if (partitions !== null) return partitions;
    if (attempt === CREATED_ATTEMPTS) throw misconfigured(`topic ${topic} does not exist, or has no leaders`);
    await sleep(CREATED_PAUSE_MS);
  }
}

/** `null` while the topic is unknown or a partition has no leader that answers. */
async function readyPartitions(admin: Admin, topic: string): Promise<readonly { replicas: number[] }[] | null> {
  if (!(await admin.listTopics()).includes(topic)) return null;
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    // Metadata names a leader before that broker knows that it leads. A produce request then appends some of its partitions
    // and is sent again whole, and a fetch makes kafkajs rejoin: harmless, but not how a stream should begin.
    await admin.fetchTopicOffsets(topic);
    return topics[0]?.partitions ?? null;
  } catch (error) {
    if (hasProtocolCode(error, NOT_READY_CODES)) return null;
    throw error;
  }
}

async function withAdmin(options: KafkaClientOptions, use: (admin: Admin) => Promise<void>): Promise<void> {
  const admin = createKafka(options).admin({ retry: KAFKA_RETRY });
  try {
    await admin.connect();
    await use(admin);
  } catch (error) {
    if (error instanceof TallyhouseError) throw error;
    throw unavailable(`Kafka at ${options.brokers.join(", ")} does not answer`, error);
  } finally {
    await admin.disconnect();
  }
}

function misconfigured(message: string): TallyhouseError {
  return new TallyhouseError({ code: "LOG_MISCONFIGURED", action: "halt", message });
}
