/**
 * Every stage, ready to be loaded: with the embedded log one process of `tallyhouse start`; with Kafka a gateway, an aggregator,
 * a reporter, a console and the emulator as processes of their own on real servers. Both bill the emulator.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { AnalyticsStore } from "@tallyhouse/domain";
import { freePort } from "@tallyhouse/infra/local/free-port.ts";
import { openStoppedFolder } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { type ProcessName, startWorld } from "../integration/world.ts";
import type { BenchPlace } from "./bench-place.ts";
import { audited } from "./proof.ts";

const TOKEN = "svc_live_th_benchbenchbenchbench";
const BIN = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
const METERS = new URL("../../examples/meters.yaml", import.meta.url);
const START_TIMEOUT_MS = 60_000;
const PROCESSES: readonly ProcessName[] = ["gateway1", "aggregator1", "reporter", "console", "emulator"];
/** So that late usage is at the emulator in seconds, and no limit of Stripe's stands between. What is not named has its default. */
const SETTINGS = {
  LOG_LEVEL: "warn",
  BOOKING_WINDOW_SECONDS: "15",
  REPORT_LATENESS_SECONDS: "0",
  REPORT_INTERVAL_MS: "10000",
  EMULATOR_LIMITS: "off",
  SEND_RATE_PER_SECOND: "2000",
  CALL_RATE_PER_SECOND: "2000",
} as const;

/** What the proof looks at; nothing is written any more. */
export interface ProofPorts {
  readonly analytics: AnalyticsStore;
  /** What the audit finds to differ; empty is clean. */
  audit(): Promise<readonly string[]>;
}

export interface BenchPipeline {
  readonly url: string;
  readonly token: string;
  readonly emulatorUrl: string;
  /** Of the services and of the servers that were started here. */
  readonly pids: Readonly<Record<string, number>>;
  readonly partitions: number;
  /** Adapters and their versions. */
  readonly engines: string;
  /** Everything waits and due work is empty before this is called. The embedded process is stopped for it. */
  openProof(): Promise<ProofPorts>;
}

/** Starts it; the place ends it. */
export function startPipeline(place: BenchPlace): Promise<BenchPipeline> {
  return place.env["KAFKA_BROKERS"] === undefined ? startEmbedded(place) : startSeparate(place);
}

async function startEmbedded(place: BenchPlace): Promise<BenchPipeline> {
  const [port, emulatorPort] = [await freePort(), await freePort()];
  const env = {
    ...place.env,
    ...SETTINGS,
    TALLYHOUSE_DATA: join(place.folder, "data"),
    TALLYHOUSE_PORT: String(port),
    TALLYHOUSE_EMULATOR_PORT: String(emulatorPort),
    TALLYHOUSE_SQL_PORT: "off",
    TALLYHOUSE_INGEST_KEY: TOKEN,
  };
  const child = spawn(process.execPath, [BIN, "start"], { env, stdio: ["ignore", "ignore", "inherit"] });
  const killOnExit = (): void => void child.kill("SIGKILL");
  process.once("exit", killOnExit);
  const ended = once(child, "exit").finally(() => process.off("exit", killOnExit));
  place.onEnd(() => {
    child.kill("SIGKILL");
    return ended;
  });
  const url = `http://127.0.0.1:${port}`;
  await until(async () => child.exitCode !== null || (await fetch(`${url}/readyz`)).ok, {
    timeoutMs: START_TIMEOUT_MS,
    what: "standalone is ready",
  });
  return {
    url,
    token: TOKEN,
    emulatorUrl: `http://127.0.0.1:${emulatorPort}`,
    pids: { standalone: child.pid ?? 0 },
    partitions: 16,
    engines: "embedded log, chDB, PGlite",
    async openProof() {
      child.kill("SIGTERM");
      await ended;
      const ports = await openStoppedFolder(env);
      place.onEnd(() => ports.close());
      return { analytics: ports.analytics, audit: () => audited(ports, env) };
    },
  };
}

async function startSeparate(place: BenchPlace): Promise<BenchPipeline> {
  const { KAFKA_BROKERS: brokers = "", CLICKHOUSE_URL: clickhouseUrl = "", POSTGRES_URL: postgresUrl = "" } = place.env;
  const world = await startWorld({
    name: "bench",
    servers: { brokers, clickhouseUrl, postgresUrl },
    metersFile: readFileSync(METERS, "utf8"),
    settings: SETTINGS,
    names: PROCESSES,
  });
  place.onEnd(() => world.end());
  const pids = Object.fromEntries(PROCESSES.map((name) => [name.replace(/\d$/, ""), world.processes[name].pid ?? 0]));
  return {
    url: world.gatewayUrls[0],
    token: world.token,
    emulatorUrl: world.emulatorUrl,
    pids: { ...place.serverPids, ...pids },
    partitions: world.ports.log.partitionCount,
    engines: "Kafka (one broker), ClickHouse engine over HTTP, PostgreSQL",
    openProof: () => Promise.resolve({ analytics: world.ports.analytics, audit: () => auditByCommand(world) }),
  };
}

/** As an operator would: exit code 1 when rows differ, and the table of what does. */
async function auditByCommand(world: {
  command(args: readonly string[]): Promise<string>;
}): Promise<readonly string[]> {
  try {
    await world.command(["audit"]);
    return [];
  } catch (error) {
    const { stdout, stderr } = error as { readonly stdout?: string; readonly stderr?: string };
    return [`tallyhouse audit: ${stdout ?? ""}${stderr ?? String(error)}`];
  }
}
