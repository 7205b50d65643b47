/**
 * Runs a command with real servers: `node infra/local/run-with.ts --kafka --postgres -- command arguments…`. Starts those that
 * are named, on a temporary folder, sets the variables that carry their addresses, runs the command, stops the servers, and
 * ends with the command's exit code.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { parseServerFlag, SERVER_NAMES, startServers } from "./servers-by-name.ts";

const args = process.argv.slice(2);
const separatorAt = args.indexOf("--");
const flags = args.slice(0, Math.max(0, separatorAt));
const [command, ...rest] = args.slice(separatorAt + 1);
const wanted = flags.map(parseServerFlag).filter((server) => server !== null);
if (command === undefined || wanted.length === 0 || wanted.length < flags.length) {
  const names = SERVER_NAMES.map((name) => `[--${name}[=PORT]]`).join(" ");
  process.stderr.write(`usage: run-with.ts ${names} -- command arguments…\n`);
  process.exit(2);
}

const folder = await mkdtemp(join(tmpdir(), "tallyhouse-servers-"));
// PostgreSQL runs as another user when we are root, and must come through here to its own folder.
await chmod(folder, 0o711);
try {
  const servers = await startServers(folder, wanted);
  process.stderr.write(`running: ${Object.keys(servers.environment).join(", ")}\n`);
  try {
    process.exitCode = await runCommand(command, rest, servers.environment);
  } finally {
    await servers.stop();
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function runCommand(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<number> {
  const child = spawn(command, args, { stdio: "inherit", env: { ...process.env, ...environment } });
  // The command decides how to end; the servers are stopped after it, whatever it decides.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => void child.kill(signal));
  const [code, signal] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 1 : constants.signals[signal]);
}
