import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { access, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { containerRecipe, IMAGES, usesContainers } from "./container.ts";
import { kafkaJars } from "./kafka-jars.ts";
import { answersMetadata } from "./kafka-probe.ts";
import { freePort } from "./free-port.ts";
import { type LocalServer, startServer } from "./local-server.ts";

const HEAP = "-Xmx512m";
/** Inside a container. */
const CONTROLLER_PORT = 9_093;

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
 * Starts one real Apache Kafka broker (KRaft, loopback only) and resolves when it answers requests: the official image where
 * containers run (container.ts), else Java, and Maven the first time.
 * @throws {Error} when Java or Maven is missing, or the broker ends before it answers (with the end of its log).
 */
export async function startKafka(options: StartKafkaOptions): Promise<LocalKafka> {
  const port = options.port ?? (await freePort());
  await mkdir(options.folder, { recursive: true });
  const logPath = join(options.folder, "broker.log");
  const isAnswering = (): Promise<boolean> => answersMetadata(port);
  const common = { name: `Kafka on port ${port}`, logPath, isAnswering };
  if (await usesContainers()) {
    const server = await startServer({ ...common, ...(await containerOf(port)) });
    return Object.assign(server, { brokers: `127.0.0.1:${port}` });
  }
  const jars = await kafkaJars(options.cacheFolder);
  const configPath = join(options.folder, "server.properties");
  const place = { host: "127.0.0.1", port, controllerPort: await freePort(), data: join(options.folder, "data") };
  await writeFile(configPath, `${serverProperties(place).join("\n")}\n`);
  await format({ folder: options.folder, jars, configPath });
  const flags = [HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
  const server = await startServer({
    ...common,
    command: "java",
    args: [...flags, "-cp", join(jars, "*"), "kafka.Kafka", configPath],
  });
  return Object.assign(server, { brokers: `127.0.0.1:${port}` });
}

/** The image takes every property as a variable. Inside, the broker listens everywhere: the published port is on loopback. */
function containerOf(port: number) {
  const properties = serverProperties({ host: "", port, controllerPort: CONTROLLER_PORT, data: "/var/lib/kafka/data" });
  const environment = Object.fromEntries(
    properties.map((line) => {
      const [name = "", ...value] = line.split("=");
      return [`KAFKA_${name.toUpperCase().replaceAll(".", "_")}`, value.join("=")];
    }),
  );
  return containerRecipe({
    image: IMAGES.kafka,
    port,
    insidePort: port,
    environment: { ...environment, KAFKA_HEAP_OPTS: HEAP },
  });
}

function serverProperties(place: { host: string; port: number; controllerPort: number; data: string }): string[] {
  const { host, port, controllerPort, data } = place;
  return [
    "process.roles=broker,controller",
    "node.id=1",
    `controller.quorum.voters=1@127.0.0.1:${controllerPort}`,
    `listeners=PLAINTEXT://${host}:${port},CONTROLLER://${host}:${controllerPort}`,
    `advertised.listeners=PLAINTEXT://127.0.0.1:${port}`,
    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "controller.listener.names=CONTROLLER",
    "inter.broker.listener.name=PLAINTEXT",
    `log.dirs=${data}`,
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
  ];
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
