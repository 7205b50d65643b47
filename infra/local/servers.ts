/**
 * Real servers for a developer: `npm run servers`, or `npm run servers -- --postgres=5432 --redis` for some of them and a
 * chosen port. Keeps their data in `.servers/` (or SERVERS_FOLDER), prints the variables to paste, and stops all on Ctrl-C.
 */
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { resolve } from "node:path";
import { usesContainers } from "./container.ts";
import { parseServerFlag, SERVER_NAMES, startServers } from "./servers-by-name.ts";

const flags = process.argv.slice(2);
const wanted = (flags.length === 0 ? SERVER_NAMES.map((name) => `--${name}`) : flags).map(parseServerFlag);
const servers = wanted.filter((server) => server !== null);
if (servers.length < wanted.length) {
  process.stderr.write(`usage: npm run servers -- ${SERVER_NAMES.map((name) => `[--${name}[=PORT]]`).join(" ")}\n`);
  process.exit(2);
}

const folder = resolve(process.env["SERVERS_FOLDER"] ?? ".servers");
await mkdir(folder, { recursive: true });
const stopped = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stopped.abort());

const running = await startServers(folder, servers);
for (const [variable, address] of Object.entries(running.environment))
  process.stdout.write(`export ${variable}=${address}\n`);
const end = (await usesContainers())
  ? "Ctrl-C removes the containers and their data."
  : `Data is below ${folder}. Ctrl-C stops the servers.`;
process.stderr.write(`${end}\n`);
if (!stopped.signal.aborted) await once(stopped.signal, "abort");
await running.stop();
