/**
 * Runs a command with ClickHouse over HTTP: `node infra/local/run-with-clickhouse.ts -- command arguments…`. Starts the
 * front over chDB on a temporary folder unless CLICKHOUSE_URL names a server already, and ends with the command's exit code.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { startClickHouse } from "./clickhouse.ts";

const [separator, command, ...args] = process.argv.slice(2);
if (separator !== "--" || command === undefined) {
  process.stderr.write("usage: run-with-clickhouse.ts -- command arguments…\n");
  process.exit(2);
}

const given = process.env["CLICKHOUSE_URL"] ?? "";
const folder = await mkdtemp(join(tmpdir(), "tallyhouse-clickhouse-"));
try {
  if (given === "") {
    const clickhouse = await startClickHouse({ folder });
    process.stderr.write(`ClickHouse answers at ${clickhouse.url}\n`);
    try {
      process.exitCode = await runCommand(command, args, clickhouse.url);
    } finally {
      await clickhouse.stop();
    }
  } else {
    process.exitCode = await runCommand(command, args, given);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function runCommand(program: string, programArgs: readonly string[], url: string): Promise<number> {
  const child = spawn(program, programArgs, { stdio: "inherit", env: { ...process.env, CLICKHOUSE_URL: url } });
  // The command decides how to end; the front is stopped after it, whatever it decides.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => void child.kill(signal));
  const [code, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 1 : constants.signals[signal]);
}
