/**
 * Tallyhouse as its operators run it: two gateways, two aggregators, a reporter, a console and the emulator as processes of
 * their own, on the servers that the environment names. A topic, a group and two databases of its own for each world, so
 * that a rerun on the same servers is clean.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { openClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsStore, ControlStore, EventLog } from "@tallyhouse/domain";
import { deleteTopic, openKafkaLog } from "@tallyhouse/eventlog";
import { freePort } from "@tallyhouse/infra/local/free-port.ts";
import { openPostgres } from "@tallyhouse/postgres";
import { applyMeters } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import { type ProcessSettings, SupervisedProcess } from "../support/supervised-process.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const COMMAND = join(ROOT, "services/standalone/bin/tallyhouse.mjs");
const LOGS = join(ROOT, ".test-results/integration-logs");
const RAN_AGAINST = join(ROOT, ".test-results/integration-ran-against.txt");
const PARTITION_COUNT = 8;
const READY_TIMEOUT_MS = 60_000;

/** Addresses of the servers a world runs on. */
export interface Servers {
  readonly brokers: string;
  readonly clickhouseUrl: string;
  readonly postgresUrl: string;
}

/** The servers of the environment. Fails, never skips. */
export function serversOfEnvironment(): Servers {
  const read = (name: string): string => {
    const value = process.env[name];
    if (value === undefined || value === "") throw new Error(`${name} is not set: run npm run test:integration`);
    return value;
  };
  return {
    brokers: read("KAFKA_BROKERS"),
    clickhouseUrl: read("CLICKHOUSE_URL"),
    postgresUrl: read("POSTGRES_URL"),
  };
}

const NAMES = ["gateway1", "gateway2", "aggregator1", "aggregator2", "reporter", "console", "emulator"] as const;
export type ProcessName = (typeof NAMES)[number];

export interface World {
  readonly processes: Readonly<Record<ProcessName, SupervisedProcess>>;
  readonly gatewayUrls: readonly [string, string];
  readonly emulatorUrl: string;
  readonly token: string;
  readonly brokers: string;
  readonly topic: string;
  /** Opened by the test for itself: they read what the processes wrote. */
  readonly ports: { readonly analytics: AnalyticsStore; readonly control: ControlStore; readonly log: EventLog };
  /** Runs `tallyhouse` with the world's environment; rejects when it fails. */
  command(args: readonly string[]): Promise<string>;
  /** Resolves when every process that was started, or each that is named, answers `/readyz` with 200. */
  untilReady(names?: readonly ProcessName[]): Promise<void>;
  /** Ends every process and removes the topic and both databases. */
  end(): Promise<void>;
}

/** Starts a world with the meters of the file; resolves when everything is ready and the meters count. */
export async function startWorld(input: {
  name: string;
  servers: Servers;
  metersFile: string;
  settings?: NodeJS.ProcessEnv;
  /** What one process gets instead of what all get. */
  settingsOf?: (process: ProcessName, env: Readonly<NodeJS.ProcessEnv>) => NodeJS.ProcessEnv;
  /** The processes to start; all of them when absent. A gateway and the console are always needed. */
  names?: readonly ProcessName[];
}): Promise<World> {
  const { servers, name, names = NAMES } = input;
  const unique = randomBytes(6).toString("hex");
  const topic = `usage.events.v1.${name}-${unique}`;
  const places = await createDatabases(servers, `tallyhouse_${unique}`);
  const token = `svc_live_th_${randomBytes(16).toString("hex")}`;
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-world-"));
  const ports = Object.fromEntries(await Promise.all(NAMES.map(async (each) => [each, await freePort()] as const)));
  const urlOf = (each: ProcessName): string => `http://127.0.0.1:${ports[each]}`;
  const env: NodeJS.ProcessEnv = {
    PATH: process.env["PATH"],
    // As in the image: the first command fills it, and every start after it takes half the time.
    NODE_COMPILE_CACHE: join(folder, "compiled"),
    LOG_LEVEL: "warn",
    KAFKA_BROKERS: servers.brokers,
    KAFKA_TOPIC: topic,
    KAFKA_GROUP: topic,
    CLICKHOUSE_URL: places.clickhouseUrl,
    POSTGRES_URL: places.postgresUrl,
    CONSOLE_URL: urlOf("console"),
    LOG_PARTITIONS: String(PARTITION_COUNT),
    BOOKING_WINDOW_SECONDS: "5",
    STREAM_HASH_SEED: randomBytes(16).toString("hex"),
    CONTROL_SIGNING_KEY: randomBytes(32).toString("hex"),
    TOKEN_PEPPER: randomBytes(32).toString("hex"),
    TALLYHOUSE_INGEST_KEY: token,
    STRIPE_API_URL: urlOf("emulator"),
    STRIPE_LIVE_SECRET_KEY: "sk_live_integration",
    REPORT_AUTO_MAP: "true",
    REPORT_LATENESS_SECONDS: "0",
    REPORT_INTERVAL_MS: "500",
    VERIFY_SETTLE_SECONDS: "1",
    SEND_RATE_PER_SECOND: "2000",
    CALL_RATE_PER_SECOND: "2000",
    ...input.settings,
  };
  const client = { TALLYHOUSE_URL: urlOf("gateway1"), TALLYHOUSE_TOKEN: token };
  const command = async (args: readonly string[]): Promise<string> =>
    (await promisify(execFile)(process.execPath, [COMMAND, ...args], { env: { ...env, ...client } })).stdout;
  await Promise.all([command(["migrate"]), command(["topic"])]);
  await command(["token", "add"]);
  const envOf = (each: ProcessName) => ({ ...env, ...input.settingsOf?.(each, env) });
  const processes = startProcesses({ name, names, envOf, ports, urlOf, folder });
  const opened = await openPorts(servers, { ...places, topic });
  const world: World = {
    processes,
    gatewayUrls: [urlOf("gateway1"), urlOf("gateway2")],
    emulatorUrl: urlOf("emulator"),
    token,
    brokers: servers.brokers,
    topic,
    ports: opened.ports,
    command,
    untilReady: async (awaited = names) => {
      await Promise.all(awaited.map((each) => untilReady(processes[each])));
    },
    async end() {
      await Promise.all(Object.values(processes).map((each) => each.end()));
      await opened.close();
      await deleteTopic({ brokers: [servers.brokers], clientId: "test", topic });
      await places.drop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
  try {
    await world.untilReady();
    await applyMeters({ url: world.gatewayUrls[0], token }, input.metersFile);
    return world;
  } catch (error) {
    await world.end();
    throw new Error(`the world did not start; its processes' logs are in ${join(LOGS, name)}`, { cause: error });
  }
}

/** The emulator has no `/readyz`; its page answers when it does. */
async function untilReady({ settings }: SupervisedProcess): Promise<void> {
  const path = settings.name === "emulator" ? "/" : "/readyz";
  let last = "no answer";
  await until(
    async () => {
      const answer = await fetch(`${settings.url}${path}`, { signal: AbortSignal.timeout(5_000) });
      last = await answer.text();
      return answer.ok;
    },
    { timeoutMs: READY_TIMEOUT_MS, what: `${settings.name} is ready` },
  ).catch((error: unknown) => {
    throw new Error(`${settings.name} is not ready, and last said: ${last}; log: ${settings.logPath}`, {
      cause: error,
    });
  });
}

function startProcesses(input: {
  name: string;
  names: readonly ProcessName[];
  envOf: (name: ProcessName) => NodeJS.ProcessEnv;
  ports: Readonly<Record<string, number>>;
  urlOf: (name: ProcessName) => string;
  folder: string;
}): Readonly<Record<ProcessName, SupervisedProcess>> {
  const logs = join(LOGS, input.name);
  rmSync(logs, { recursive: true, force: true });
  mkdirSync(logs, { recursive: true });
  const settingsOf = (name: ProcessName): ProcessSettings => {
    const service = name === "emulator" ? "stripe-emulator" : name.replace(/\d$/, "");
    const port = String(input.ports[name]);
    const args = ["--port", port, "--data", join(input.folder, "stripe"), "--limits", "off"];
    return {
      name,
      program: join(ROOT, `services/${service}/src/main.ts`),
      args: name === "emulator" ? args : [],
      env: { ...input.envOf(name), [`${service.toUpperCase()}_PORT`]: port },
      url: input.urlOf(name),
      logPath: join(logs, `${name}.log`),
    };
  };
  const processes = Object.fromEntries(NAMES.map((name) => [name, new SupervisedProcess(settingsOf(name))] as const));
  for (const each of input.names) processes[each]?.start();
  return processes as Record<ProcessName, SupervisedProcess>;
}

/** A database on each server, and how to remove them. */
async function createDatabases(servers: Servers, database: string) {
  const withDatabase = (url: string): string => {
    const place = new URL(url);
    place.pathname = `/${database}`;
    return place.href;
  };
  const onBoth = async (postgresSql: string, clickhouseSql: string): Promise<void> => {
    const postgres = await openPostgres({ url: servers.postgresUrl });
    const clickhouse = await openClickHouse({ url: servers.clickhouseUrl });
    try {
      await postgres.store.query(postgresSql);
      await clickhouse.store.execute(clickhouseSql);
    } finally {
      await Promise.all([postgres.close(), clickhouse.close()]);
    }
  };
  await onBoth(`CREATE DATABASE ${database}`, `CREATE DATABASE ${database}`);
  return {
    postgresUrl: withDatabase(servers.postgresUrl),
    clickhouseUrl: withDatabase(servers.clickhouseUrl),
    drop: () => onBoth(`DROP DATABASE ${database} WITH (FORCE)`, `DROP DATABASE ${database}`),
  };
}

async function openPorts(servers: Servers, places: { postgresUrl: string; clickhouseUrl: string; topic: string }) {
  const postgres = await openPostgres({ url: places.postgresUrl });
  const clickhouse = await openClickHouse({ url: places.clickhouseUrl });
  const kafka = await openKafkaLog({
    brokers: [servers.brokers],
    clientId: "test",
    topic: places.topic,
    partitionCount: PARTITION_COUNT,
    groupId: "test",
    ownership: "fixed",
  });
  // For the closing table of the suite.
  const ranAgainst = [
    `event log   Kafka at ${servers.brokers}`,
    `analytics   ClickHouse ${clickhouse.engineVersion} over HTTP`,
    `control     PostgreSQL ${postgres.serverVersion}`,
    "billing     the Stripe emulator as a process of its own",
    "services    gateway x2, aggregator x2, reporter, console: one process each",
  ];
  writeFileSync(RAN_AGAINST, `${ranAgainst.join("\n")}\n`);
  return {
    ports: { analytics: clickhouse.store, control: postgres.store, log: kafka.log },
    close: async () => {
      await Promise.all([kafka.close(), clickhouse.close(), postgres.close()]);
    },
  };
}
