/** The servers that a developer starts: `npm run servers`. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { startRedis } from "@tallyhouse/infra/local/redis.ts";
import { openPostgres } from "@tallyhouse/postgres";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";

const SERVERS = new URL("../../infra/local/servers.ts", import.meta.url).pathname;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tallyhouse-servers-"));
  await chmod(folder, 0o711);
});
afterAll(async () => rm(folder, { recursive: true, force: true }));

/** Sends one inline command to Redis and returns its answer. */
async function askRedis(url: string, command: string): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = createConnection({ host: hostname, port: Number(port) });
  try {
    socket.write(`${command}\r\n`);
    const [bytes] = (await once(socket, "data")) as [Buffer];
    return bytes.toString("utf8").trim();
  } finally {
    socket.destroy();
  }
}

/** `npm run servers` with these flags; resolves with its addresses and a way to end it as Ctrl-C does. */
async function startScript(flags: readonly string[]) {
  const child = spawn(process.execPath, [SERVERS, ...flags], {
    // A container's data lasts as long as the command.
    env: { ...process.env, SERVERS_FOLDER: folder, LOCAL_SERVERS: "processes" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "close");
  let printed = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (printed += chunk));
  await until(() => printed.split("\n").length > flags.length, {
    timeoutMs: 60_000,
    what: "an address of each server",
  });
  const addresses = Object.fromEntries(
    [...printed.matchAll(/^export (\w+)=(.*)$/gm)].map(([, name = "", address = ""]) => [name, address]),
  );
  const interrupt = async (): Promise<number | null> => {
    child.kill("SIGINT");
    const [code] = (await ended) as [number | null];
    return code;
  };
  return { addresses, interrupt };
}

test("Redis starts, is killed, and starts again, empty, at the same address", async () => {
  const redis = await startRedis({ folder: join(folder, "alone") });
  const killedPid = redis.pid;
  expect(await askRedis(redis.url, "SET key value")).toBe("+OK");
  redis.kill();
  await redis.restart();
  expect(redis.pid).not.toBe(killedPid);
  expect(await askRedis(redis.url, "GET key")).toBe("$-1");
  await redis.stop();
  await expect(askRedis(redis.url, "PING")).rejects.toMatchObject({ code: "ECONNREFUSED" });
});

test("npm run servers prints addresses that work, stops on Ctrl-C, and keeps what PostgreSQL holds", async () => {
  const first = await startScript(["--postgres", "--redis"]);
  const url = first.addresses["POSTGRES_URL"] ?? "";
  const written = await openPostgres({ url });
  await written.store.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)");
  await written.close();
  expect(await askRedis(first.addresses["REDIS_URL"] ?? "", "PING")).toBe("+PONG");
  expect(await first.interrupt()).toBe(0);
  await expect(openPostgres({ url })).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });

  const { port } = new URL(url);
  const second = await startScript([`--postgres=${port}`]);
  expect(second.addresses).toEqual({ POSTGRES_URL: url });
  const read = await openPostgres({ url });
  expect(await read.store.query("SELECT n FROM kept")).toEqual([{ n: 7 }]);
  await read.close();
  expect(await second.interrupt()).toBe(0);
}, 120_000);

test("an unknown server is refused with the names of the known ones", async () => {
  const child = spawn(process.execPath, [SERVERS, "--oracle"], { stdio: ["ignore", "ignore", "pipe"] });
  const [message, [code]] = (await Promise.all([text(child.stderr), once(child, "exit")])) as [string, [number]];
  expect(code).toBe(2);
  expect(message).toContain("--postgres");
});
