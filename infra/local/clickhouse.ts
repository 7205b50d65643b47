/** ClickHouse: the official image where containers run, else the HTTP front over chDB (clickhouse-front.ts) in a process of its own. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { containerRecipe, IMAGES, usesContainers } from "./container.ts";
import { freePort } from "./free-port.ts";
import { type LocalServer, type ServerRecipe, startServer } from "./local-server.ts";

const PROBE_TIMEOUT_MS = 1_000;
/** Inside a container. */
const HTTP_PORT = 8_123;
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
  /** The front itself is meant, whatever else runs here. */
  readonly isFront?: boolean;
}

/** A running front. */
export interface LocalClickHouse extends LocalServer {
  /** For `CLICKHOUSE_URL`; with user and password when there are any. */
  readonly url: string;
}

/**
 * Starts it on loopback and resolves when it answers `/ping`.
 * @throws {Error} when it ends before it answers (with the end of its log): the folder is in use, or the port is.
 */
export async function startClickHouse(options: StartClickHouseOptions): Promise<LocalClickHouse> {
  const port = options.port ?? (await freePort());
  await mkdir(options.folder, { recursive: true });
  const isContainer = options.isFront !== true && (await usesContainers());
  const server = await startServer({
    name: `ClickHouse on port ${port}`,
    ...(isContainer ? await containerOf(options, port) : frontOf(options, port)),
    logPath: join(options.folder, "front.log"),
    isAnswering: () => answersPing(port),
  });
  const url = new URL(`http://127.0.0.1:${port}`);
  url.username = options.username ?? "";
  url.password = options.password ?? "";
  return Object.assign(server, { url: url.href });
}

/** Without a name, the image's own user `default` may come from outside and needs no password. */
function containerOf({ username, password = "" }: StartClickHouseOptions, port: number) {
  const environment: Record<string, string> =
    username === undefined
      ? { CLICKHOUSE_SKIP_USER_SETUP: "1" }
      : {
          CLICKHOUSE_USER: username,
          CLICKHOUSE_PASSWORD: password,
          CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT: "1",
        };
  return containerRecipe({ image: IMAGES.clickhouse, port, insidePort: HTTP_PORT, environment });
}

function frontOf(
  { folder, username, password }: StartClickHouseOptions,
  port: number,
): Pick<ServerRecipe, "command" | "args"> {
  const settings = { folder, username, password, port };
  // Node reads the size of its pool before its first line of JavaScript.
  return {
    command: "env",
    args: [`UV_THREADPOOL_SIZE=${THREADS}`, process.execPath, FRONT, JSON.stringify(settings)],
  };
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
