/**
 * What every benchmark runs in: a folder of its own, and with `--log kafka` real servers, those of the environment or, where
 * it names none, some that are started here. Whatever ends the benchmark (its end, an error, Ctrl-C), nothing is left over.
 */
import { randomUUID } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { constants, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { startServers } from "@tallyhouse/infra/local/servers-by-name.ts";
import { type BenchOptions, type Figures, printFigures } from "./options.ts";

const VARIABLES = { kafka: "KAFKA_BROKERS", clickhouse: "CLICKHOUSE_URL", postgres: "POSTGRES_URL" } as const;
export type ServerName = keyof typeof VARIABLES;

/** Where a benchmark runs. */
export interface BenchPlace {
  /** Removed at the end. */
  readonly folder: string;
  /** For the product: addresses of the servers and a topic of its own with `--log kafka`; no address at all without. */
  readonly env: Readonly<NodeJS.ProcessEnv>;
  /** Server → process, of the servers that were started here. */
  readonly serverPids: Readonly<Record<string, number>>;
  /** Called at the end, the last one first. */
  onEnd(release: () => unknown): void;
}

/**
 * Runs a benchmark, prints its figures on the last line and sets the exit code: 1 when it failed, or when its `isProven` is
 * false. SIGINT and SIGTERM release everything first; a second one kills at once.
 */
export async function runBench(
  input: { name: string; options: BenchOptions; servers: readonly ServerName[] },
  body: (place: BenchPlace) => Promise<Figures>,
): Promise<void> {
  const { name, options } = input;
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-"));
  // PostgreSQL runs as another user when we are root, and must come through here to its own folder.
  chmodSync(folder, 0o711);
  // Whatever else is made for a time, here or in a child, goes with it.
  process.env["TMPDIR"] = folder;
  const removeFolder = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
  const releases: (() => unknown)[] = [removeFolder];
  const releaseAll = async (): Promise<void> => {
    for (let release = releases.pop(); release !== undefined; release = releases.pop()) await release();
  };
  const ending = endOnSignal(releaseAll, removeFolder);
  try {
    const { env, serverPids } = await openServers(input, { folder, releases });
    const figures = await body({ folder, env, serverPids, onEnd: (release) => void releases.push(release) });
    await releaseAll();
    const { seed, log } = options;
    printFigures({ bench: name, log, seed, ...figures, cores: cpus().length, node: process.versions.node });
    if (figures["isProven"] !== true) process.exitCode = 1;
  } catch (error) {
    // What a signal takes away is missed by whoever still runs.
    if (ending.aborted) return;
    process.exitCode = 1;
    process.stderr.write(`bench:${name} failed: ${error instanceof Error ? error.stack : String(error)}\n`);
    await releaseAll();
  }
}

/**
 * Children end by themselves when this process exits, so the folder goes after them.
 * @returns aborted from the first signal on.
 */
function endOnSignal(releaseAll: () => Promise<void>, removeFolder: () => void): AbortSignal {
  const ending = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      const exit = (): never => {
        process.once("exit", removeFolder);
        process.exit(128 + constants.signals[signal]);
      };
      for (const again of ["SIGINT", "SIGTERM"] as const) process.on(again, exit);
      ending.abort();
      void releaseAll().finally(exit);
    });
  }
  return ending.signal;
}

async function openServers(
  input: { options: BenchOptions; servers: readonly ServerName[] },
  place: { folder: string; releases: (() => unknown)[] },
): Promise<Pick<BenchPlace, "env" | "serverPids">> {
  const env: NodeJS.ProcessEnv = { ...process.env, KAFKA_TOPIC: `usage.events.v1.bench-${randomUUID()}` };
  if (input.options.log === "embedded") {
    for (const variable of Object.values(VARIABLES)) delete env[variable];
    return { env, serverPids: {} };
  }
  for (const [server, variable] of Object.entries(VARIABLES))
    if (!input.servers.includes(server as ServerName)) delete env[variable];
  const missing = input.servers.filter((server) => (env[VARIABLES[server]] ?? "") === "");
  const started = await startServers(
    join(place.folder, "servers"),
    missing.map((name) => ({ name })),
  );
  place.releases.push(() => started.stop());
  return { env: { ...env, ...started.environment }, serverPids: started.pids };
}
