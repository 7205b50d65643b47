import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { createConnection } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { containerRecipe, IMAGES, usesContainers } from "./container.ts";
import { installDebianPackage } from "./debian-package.ts";
import { freePort } from "./free-port.ts";
import { type LocalServer, type ServerRecipe, startServer } from "./local-server.ts";

const PROBE_TIMEOUT_MS = 1_000;
/** Inside a container. */
const REDIS_PORT = 6_379;

const run = promisify(execFile);

/** Where the server writes its log. */
export interface StartRedisOptions {
  /** `redis.log`; created when absent. */
  readonly folder: string;
  /** Default: a free one. */
  readonly port?: number;
}

/** A running server. It keeps nothing: after `kill`, `stop` or `restart` it is empty. */
export interface LocalRedis extends LocalServer {
  /** For `REDIS_URL`. */
  readonly url: string;
}

/**
 * Starts one real Redis (loopback only, nothing on disk) and resolves when it answers. The official image where
 * containers run (container.ts), else the Debian package, which is installed when it is missing and we are root.
 * @throws {Error} when there is no Redis, or it ends before it answers (with the end of its log).
 */
export async function startRedis(options: StartRedisOptions): Promise<LocalRedis> {
  const { folder } = options;
  const port = options.port ?? (await freePort());
  await mkdir(folder, { recursive: true });
  const server = await startServer({
    name: `Redis on port ${port}`,
    ...((await usesContainers()) ? await containerOf(port) : await processOf(folder, port)),
    logPath: join(folder, "redis.log"),
    isAnswering: () => answersPing(port),
  });
  return Object.assign(server, { url: `redis://127.0.0.1:${port}` });
}

function containerOf(port: number) {
  return containerRecipe({ image: IMAGES.redis, port, insidePort: REDIS_PORT, environment: {} });
}

async function processOf(folder: string, port: number): Promise<Pick<ServerRecipe, "command" | "args">> {
  if (!(await isInstalled())) await installDebianPackage("redis-server");
  return {
    command: "redis-server",
    args: ["--bind", "127.0.0.1", "--port", String(port), "--dir", folder, "--save", "", "--appendonly", "no"],
  };
}

async function isInstalled(): Promise<boolean> {
  return run("redis-server", ["--version"]).then(
    () => true,
    () => false,
  );
}

/** True for `+PONG`; one that still loads answers `-LOADING`. */
async function answersPing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: "127.0.0.1", port });
    const end = (isAnswered: boolean): void => {
      socket.destroy();
      resolve(isAnswered);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => end(false));
    socket.on("error", () => end(false));
    socket.on("close", () => end(false));
    socket.on("connect", () => socket.write("PING\r\n"));
    socket.on("data", (bytes) => end(bytes.toString("latin1").startsWith("+PONG")));
  });
}
