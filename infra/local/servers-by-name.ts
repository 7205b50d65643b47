import { join } from "node:path";
import { startClickHouse } from "./clickhouse.ts";
import { startKafka } from "./kafka.ts";
import type { LocalServer } from "./local-server.ts";
import { startPostgres } from "./postgres.ts";
import { startRedis } from "./redis.ts";

/** What can be asked for by name. */
interface NamedServer {
  /** The environment variable that carries its address. */
  readonly variable: string;
  start(place: { folder: string; port?: number }): Promise<{ server: LocalServer; address: string }>;
}

const SERVERS: Readonly<Record<string, NamedServer>> = {
  kafka: {
    variable: "KAFKA_BROKERS",
    async start(place) {
      const server = await startKafka(place);
      return { server, address: server.brokers };
    },
  },
  postgres: {
    variable: "POSTGRES_URL",
    async start(place) {
      const server = await startPostgres(place);
      return { server, address: server.url };
    },
  },
  clickhouse: {
    variable: "CLICKHOUSE_URL",
    async start(place) {
      const server = await startClickHouse(place);
      return { server, address: server.url };
    },
  },
  redis: {
    variable: "REDIS_URL",
    async start(place) {
      const server = await startRedis(place);
      return { server, address: server.url };
    },
  },
};

/** Every name, in the order of starting. */
export const SERVER_NAMES: readonly string[] = Object.keys(SERVERS);

/** A server that somebody asked for; without a port it takes a free one. */
export interface WantedServer {
  readonly name: string;
  readonly port?: number;
}

/** Reads `--name` or `--name=PORT`; null for anything else. */
export function parseServerFlag(flag: string): WantedServer | null {
  const [, name = "", port] = /^--([a-z]+)(?:=(\d{1,5}))?$/.exec(flag) ?? [];
  if (!SERVER_NAMES.includes(name)) return null;
  return port === undefined ? { name } : { name, port: Number(port) };
}

/** Servers that run. */
export interface RunningServers {
  /** Variable → address, as the processes of the product read them. */
  readonly environment: Readonly<Record<string, string>>;
  /** Name → process. */
  readonly pids: Readonly<Record<string, number>>;
  /** Stops all, the last started first. */
  stop(): Promise<void>;
}

/**
 * Starts the servers one after another, each on its own folder below `folder`.
 * @throws {Error} of the first that does not start; the others are stopped.
 */
export async function startServers(folder: string, wanted: readonly WantedServer[]): Promise<RunningServers> {
  const environment: Record<string, string> = {};
  const pids: Record<string, number> = {};
  const running: LocalServer[] = [];
  const stop = async (): Promise<void> => {
    for (let server = running.pop(); server !== undefined; server = running.pop()) await server.stop();
  };
  try {
    for (const { name, port } of wanted) {
      const named = SERVERS[name];
      if (named === undefined) throw new Error(`no server is called ${name}`);
      const place = { folder: join(folder, name), ...(port === undefined ? {} : { port }) };
      const { server, address } = await named.start(place);
      running.push(server);
      environment[named.variable] = address;
      pids[name] = server.pid;
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { environment, pids, stop };
}
