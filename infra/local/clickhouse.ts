/** ClickHouse without a server: the HTTP front over chDB (clickhouse-front.ts) in a process of its own. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { freePort } from "./free-port.ts";
import { type LocalServer, startServer } from "./local-server.ts";

const PROBE_TIMEOUT_MS = 1_000;
/** Each statement that runs holds one thread of Node's pool, and files need some too: 8 statements + 8. */
const THREADS = 16;
const FRONT = join(import.meta.dirname, "clickhouse-front.ts");

/** Where the data is kept, and who may ask. */
export interface StartClickHouseOptions {
  /** Data and `front.log`; created when absent, used again when it holds data. */
  readonly folder: string;
  /** Default: a free one. */
  readonly port?: number;
  /** With it, every request must name this user and {@link password}; without, everybody on this machine may ask. */
  readonly username?: string;
  readonly password?: string;
}

/** A running front. */
export interface LocalClickHouse extends LocalServer {
  /** For `CLICKHOUSE_URL`; with user and password when there are any. */
  readonly url: string;
}

/**
 * Starts the front on loopback and resolves when it answers `/ping`.
 * @throws {Error} when it ends before it answers (with the end of its log): the folder is in use, or the port is.
 */
export async function startClickHouse(options: StartClickHouseOptions): Promise<LocalClickHouse> {
  const port = options.port ?? (await freePort());
  await mkdir(options.folder, { recursive: true });
  const server = await startServer({
    name: `The ClickHouse front on port ${port}`,
    // Node reads the size of its pool before its first line of JavaScript.
    command: "env",
    args: [`UV_THREADPOOL_SIZE=${THREADS}`, process.execPath, FRONT, JSON.stringify({ ...options, port })],
    logPath: join(options.folder, "front.log"),
    isAnswering: () => answersPing(port),
  });
  const url = new URL(`http://127.0.0.1:${port}`);
  url.username = options.username ?? "";
  url.password = options.password ?? "";
  return Object.assign(server, { url: url.href });
}

async function answersPing(port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/ping`, { signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    return (await answer.text()) === "Ok.\n";
  } catch {
    // Not yet: the caller asks again, or reports the log.
    return false;
  }
}
