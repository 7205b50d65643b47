/**
 * Runs a command with a real Kafka: `node infra/local/run-with-kafka.ts -- command arguments…`. Starts a broker on a
 * temporary folder, sets KAFKA_BROKERS, runs the command, stops the broker, and ends with the command's exit code.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { startKafka } from "./kafka.ts";

const [separator, command, ...args] = process.argv.slice(2);
if (separator !== "--" || command === undefined) {
  process.stderr.write("usage: run-with-kafka.ts -- command arguments…\n");
  process.exit(2);
}

const folder = await mkdtemp(join(tmpdir(), "tallyhouse-kafka-"));
try {
  const kafka = await startKafka({ folder });
  process.stderr.write(`Kafka answers at ${kafka.brokers}\n`);
  try {
    process.exitCode = await runCommand(command, args, kafka.brokers);
  } finally {
    await kafka.stop();
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function runCommand(command: string, args: readonly string[], brokers: string): Promise<number> {
  const child = spawn(command, args, { stdio: "inherit", env: { ...process.env, KAFKA_BROKERS: brokers } });
  // The command decides how to end; the broker is stopped after it, whatever it decides.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => void child.kill(signal));
  const [code, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 1 : constants.signals[signal]);
}
