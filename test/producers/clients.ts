/** Producers of three families, none of which shares code with Tallyhouse: kafkajs, the Java client, librdkafka. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import { kafkaJars } from "@tallyhouse/infra/local/kafka-jars.ts";
import kafkajs from "kafkajs";
import type { ProducedRecord } from "./usage.ts";
import type { Target } from "./world.ts";

/** Sends everything and resolves when the client says that all of it is acknowledged. */
export type Produce = (target: Target, records: readonly ProducedRecord[]) => Promise<void>;

const KEY_END = "\t";
const TEXT_LINE = /[\t\n]/;

/** kafkajs with one of its partitioners, and one of the codecs it has built in. */
export function kafkajsProducer(options: {
  partitioner: "DefaultPartitioner" | "LegacyPartitioner";
  compression?: "GZIP" | "None";
}): Produce {
  return async ({ brokers, topic }, records) => {
    const kafka = new kafkajs.Kafka({ brokers: brokers.split(","), clientId: "kafkajs-producer", logLevel: 0 });
    const producer = kafka.producer({
      allowAutoTopicCreation: false,
      createPartitioner: kafkajs.Partitioners[options.partitioner],
    });
    await producer.connect();
    const compression = kafkajs.CompressionTypes[options.compression ?? "None"];
    await producer.send({ topic, acks: -1, compression, messages: [...records] });
    await producer.disconnect();
  };
}

/** Kafka's own console producer, which is the Java client with default settings: idempotent, acks=all. */
export function javaProducer(
  codec: "none" | "gzip" | "snappy" | "lz4" | "zstd",
  properties: readonly string[] = [],
): Produce {
  return async ({ brokers, topic }, records) => {
    const jvm = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", join(await kafkaJars(), "*")];
    const target = ["--bootstrap-server", brokers, "--topic", topic, "--compression-codec", codec];
    const reader = ["--reader-property", "parse.key=true", "--reader-property", `key.separator=${KEY_END}`];
    const settings = properties.flatMap((property) => ["--command-property", property]);
    const args = [...jvm, "org.apache.kafka.tools.ConsoleProducer", ...target, ...reader, ...settings];
    await run("java", { args, input: linesOf(records) });
  };
}

/** kcat, which is librdkafka; `settings` as after its -X. */
export function kcatProducer(
  codec: "none" | "gzip" | "snappy" | "lz4" | "zstd",
  settings: readonly string[] = [],
): Produce {
  return async ({ brokers, topic }, records) => {
    await requireKcat();
    const target = ["-P", "-b", brokers, "-t", topic, "-K", KEY_END, "-z", codec];
    await run("kcat", {
      args: [...target, ...settings.flatMap((setting) => ["-X", setting])],
      input: linesOf(records),
    });
  };
}

/** @throws {Error} saying what to install, when there is no kcat. */
export async function requireKcat(): Promise<void> {
  await promisify(execFile)("kcat", ["-V"]).catch((cause: unknown) => {
    throw new Error("the command kcat does not run: install the Debian package kcat (apt-get install kcat)", { cause });
  });
}

function linesOf(records: readonly ProducedRecord[]): string {
  for (const { key, value } of records)
    if (TEXT_LINE.test(key) || TEXT_LINE.test(value)) throw new Error(`no single line: ${key}`);
  return records.map(({ key, value }) => `${key}${KEY_END}${value}\n`).join("");
}

/** Runs a command on a text. @throws {Error} with what it said, when it fails. */
export async function run(
  command: string,
  options: { args: readonly string[]; input?: string; env?: Readonly<Record<string, string>>; cwd?: string },
): Promise<string> {
  const { args, input = "", env = {}, cwd } = options;
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ["pipe", "pipe", "pipe"],
    ...(cwd === undefined ? {} : { cwd }),
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (part: string) => {
      said += part;
    });
  }
  child.stdin.end(input);
  const [code] = (await once(child, "close")) as [number | null];
  // kcat and the console producer end with 0 after some failures: then what they say is an error.
  if (code !== 0 || /error|failed/i.test(said)) throw new Error(`${command} ended with ${code}: ${said}`);
  return said;
}
