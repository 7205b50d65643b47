import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { access, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { kafkaJars } from "./kafka-jars.ts";
import { answersMetadata } from "./kafka-probe.ts";
import { freePort } from "./free-port.ts";
import { type LocalServer, startServer } from "./local-server.ts";

const HEAP = "-Xmx512m";

const run = promisify(execFile);

/** Where the broker keeps everything, and how it is reached. */
export interface StartKafkaOptions {
  /** Data, configuration and `broker.log`; created when absent, used again when it holds a broker's data. */
  readonly folder: string;
  /** Default: a free one. */
  readonly port?: number;
  /** Where the jars are kept. Default `~/.cache/tallyhouse`. */
  readonly cacheFolder?: string;
}

/** A running broker. */
export interface LocalKafka extends LocalServer {
  /** For `KAFKA_BROKERS`. */
  readonly brokers: string;
}

/**
 * Starts one real Apache Kafka broker (KRaft, loopback only) and resolves when it answers requests. No Docker: Java, and
 * Maven the first time.
 * @throws {Error} when Java or Maven is missing, or the broker ends before it answers (with the end of its log).
 */
export async function startKafka(options: StartKafkaOptions): Promise<LocalKafka> {
  const jars = await kafkaJars(options.cacheFolder);
  const port = options.port ?? (await freePort());
  await mkdir(options.folder, { recursive: true });
  const configPath = join(options.folder, "server.properties");
  await writeFile(configPath, serverProperties({ folder: options.folder, port, controllerPort: await freePort() }));
  await format({ folder: options.folder, jars, configPath });
  const flags = [HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
  const server = await startServer({
    name: `Kafka on port ${port}`,
    command: "java",
    args: [...flags, "-cp", join(jars, "*"), "kafka.Kafka", configPath],
    logPath: join(options.folder, "broker.log"),
    isAnswering: () => answersMetadata(port),
  });
  return Object.assign(server, { brokers: `127.0.0.1:${port}` });
}

function serverProperties(place: { folder: string; port: number; controllerPort: number }): string {
  return `${[
    "process.roles=broker,controller",
    "node.id=1",
    `controller.quorum.voters=1@127.0.0.1:${place.controllerPort}`,
    `listeners=PLAINTEXT://127.0.0.1:${place.port},CONTROLLER://127.0.0.1:${place.controllerPort}`,
    `advertised.listeners=PLAINTEXT://127.0.0.1:${place.port}`,
    "controller.listener.names=CONTROLLER",
    "inter.broker.listener.name=PLAINTEXT",
    `log.dirs=${join(place.folder, "data")}`,
    "auto.create.topics.enable=false",
    // One broker: everything internal has one replica, and few partitions so that a start is quick.
    "offsets.topic.replication.factor=1",
    "offsets.topic.num.partitions=4",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "transaction.state.log.num.partitions=4",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "group.initial.rebalance.delay.ms=0",
    // After a SIGKILL the broker waits for its own old session: 4 s instead of 12 s until the port opens.
    "broker.session.timeout.ms=2000",
    "broker.heartbeat.interval.ms=500",
  ].join("\n")}\n`;
}

async function format(place: { folder: string; jars: string; configPath: string }): Promise<void> {
  const isFormatted = await access(join(place.folder, "data", "meta.properties")).then(
    () => true,
    () => false,
  );
  if (isFormatted) return;
  // Kafka's ids are 22 characters of URL-safe base64; "A" in front, since a dash would read as an option.
  const clusterId = `A${randomBytes(16).toString("base64url").slice(1)}`;
  const tool = ["kafka.tools.StorageTool", "format", "--cluster-id", clusterId, "--config", place.configPath];
  await run("java", ["-cp", join(place.jars, "*"), ...tool]);
}
