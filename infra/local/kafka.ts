import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { access, mkdir, open, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { kafkaJars } from "./kafka-jars.ts";
import { answersMetadata } from "./kafka-probe.ts";

const HEAP = "-Xmx512m";
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;
const PROBE_PAUSE_MS = 100;
const LOG_TAIL_CHARS = 2_000;

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
export interface LocalKafka {
  /** For `KAFKA_BROKERS`. */
  readonly brokers: string;
  /** Of the process that runs now; changes with {@link LocalKafka.restart}. */
  readonly pid: number;
  /** Orderly stop; SIGKILL after 15 s. Safe to repeat. */
  stop(): Promise<void>;
  /** SIGKILL at once. */
  kill(): void;
  /** Starts again on the same data and port, after `kill` or `stop`; a running broker is stopped first. */
  restart(): Promise<void>;
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
  let child = await startBroker({ folder: options.folder, jars, configPath, port });

  const stop = async (): Promise<void> => {
    if (hasEnded(child)) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const killer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await ended;
    clearTimeout(killer);
  };
  return {
    brokers: `127.0.0.1:${port}`,
    get pid() {
      return child.pid ?? 0;
    },
    stop,
    kill: () => {
      child.kill("SIGKILL");
    },
    restart: async () => {
      // After kill() the old process may still be ending, and holds the port and the data's lock until then.
      if (child.killed && !hasEnded(child)) await once(child, "exit");
      await stop();
      child = await startBroker({ folder: options.folder, jars, configPath, port });
    },
  };
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
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

async function startBroker(place: {
  folder: string;
  jars: string;
  configPath: string;
  port: number;
}): Promise<ChildProcess> {
  const logPath = join(place.folder, "broker.log");
  const log = await open(logPath, "a");
  const flags = [HEAP, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
  const child = spawn("java", [...flags, "-cp", join(place.jars, "*"), "kafka.Kafka", place.configPath], {
    stdio: ["ignore", log.fd, log.fd],
  });
  await log.close();
  // A test that dies must not leave a broker behind.
  const killOnExit = (): void => void child.kill("SIGKILL");
  process.once("exit", killOnExit);
  child.once("exit", () => process.off("exit", killOnExit));
  child.on("error", killOnExit);

  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!(await answersMetadata(place.port))) {
    if (hasEnded(child) || performance.now() > deadline) {
      child.kill("SIGKILL");
      const tail = (await readFile(logPath, "utf8")).slice(-LOG_TAIL_CHARS);
      throw new Error(`Kafka below ${place.folder} does not answer on port ${place.port}; its log ends:\n${tail}`);
    }
    await sleep(PROBE_PAUSE_MS);
  }
  return child;
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no free port");
  return address.port;
}
