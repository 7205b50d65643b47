/**
 * `npm run bench:ingest`: HTTP → durable. The gateway and its log run as a process of their own, this one sends. Afterwards standalone
 * counts the same log, and every event that was answered 202 must be found in raw_events by its identity. BENCH_PROFILE names a folder
 * for a CPU profile of the gateway.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { openStoppedFolder } from "@tallyhouse/standalone";
import { until } from "@tallyhouse/testkit";
import { openHttpLane } from "./http-lane.ts";
import { benchOptions, printFigures, quantile } from "./options.ts";
import { buildRequestPool, idInRound } from "./ingest-requests.ts";

const TOKEN = "svc_live_th_benchbenchbenchbench";
/** Of /proc/PID/stat: USER_HZ, 100 on every Linux that Node runs on. */
const CLOCK_TICKS_PER_SECOND = 100;
const COUNT_TIMEOUT_MS = 1_800_000;
const batchAt = process.argv.indexOf("--batch");
const eventsPerRequest = batchAt === -1 ? 100 : Number(process.argv.splice(batchAt, 2)[1]);
/** Enough that neither side waits for the other: a commit of the log takes a millisecond, whatever it holds. */
const connections = eventsPerRequest === 1 ? 64 : 16;
if (!Number.isInteger(eventsPerRequest) || eventsPerRequest < 1) throw new Error("--batch takes a whole number");
const options = benchOptions({ events: 100_000_000, seconds: 20 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-"));
const topic = `usage.events.v1.bench-${randomUUID()}`;
const brokers = options.log === "kafka" ? (process.env["KAFKA_BROKERS"] ?? "") : "";
if (options.log === "kafka" && brokers === "") throw new Error("--log kafka needs KAFKA_BROKERS");
const env = {
  ...process.env,
  TALLYHOUSE_DATA: folder,
  TALLYHOUSE_PORT: "0",
  TALLYHOUSE_INGEST_KEY: TOKEN,
  KAFKA_TOPIC: topic,
  KAFKA_BROKERS: brokers,
};
const children: ChildProcess[] = [];

/** Starts a Node program and reads its output up to the line that names its address. */
async function start(args: readonly string[]): Promise<{ child: ChildProcess; url: string; end(): Promise<void> }> {
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const exited = once(child, "exit");
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(line)?.[0];
    if (url === undefined || (args.includes("start") && !line.includes("/v1/events"))) continue;
    return {
      child,
      url,
      end: async () => {
        child.kill("SIGTERM");
        await exited;
      },
    };
  }
  throw new Error(`${args.join(" ")} ended before it listened`);
}

/** User and system time of a process with all its threads. */
function cpuSecondsOf(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
}

function residentMegabytesOf(pid: number | undefined): number {
  return Math.round(Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024);
}

/** Sends until time or events are over. Which requests of which rounds were answered 202 is `acknowledged`. */
async function load(url: string) {
  const pool = buildRequestPool({ ...options, nowAt: Date.now(), eventsPerRequest, token: TOKEN });
  const acknowledged: (readonly [round: number, index: number])[] = [];
  const latenciesMs: number[] = [];
  let sent = 0;
  let failed = 0;
  const requestsMax = Math.ceil(options.events / eventsPerRequest);
  const lanes = await Promise.all(Array.from({ length: connections }, () => openHttpLane(url)));
  const startedAt = performance.now();
  const endsAt = startedAt + options.seconds * 1_000;
  await Promise.all(
    lanes.map(async (lane) => {
      while (sent < requestsMax && performance.now() < endsAt) {
        const index = sent % pool.requests.length;
        const round = Math.floor(sent / pool.requests.length);
        sent += 1;
        const sentAt = performance.now();
        const status = await lane.send(pool.bytesOf(index, round));
        latenciesMs.push(performance.now() - sentAt);
        if (status === 202) acknowledged.push([round, index]);
        else failed += 1;
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  for (const lane of lanes) lane.close();
  return { pool, acknowledged, failed, seconds, latenciesMs: latenciesMs.sort((a, b) => a - b) };
}

/** Lets standalone count the log, then looks every answered identity up. @returns how many identities were found. */
async function prove({ pool, acknowledged }: Awaited<ReturnType<typeof load>>): Promise<number> {
  const bin = new URL("../../services/standalone/bin/tallyhouse.mjs", import.meta.url).pathname;
  const standalone = await start([bin, "start"]);
  const isCounted = async (): Promise<boolean> => {
    const answer = await fetch(`${standalone.url}/admin/v1/status`, { headers: { authorization: `Bearer ${TOKEN}` } });
    return ((await answer.json()) as { waiting: number }).waiting === 0;
  };
  await until(isCounted, { timeoutMs: COUNT_TIMEOUT_MS, what: "nothing waits in the log" });
  await standalone.end();
  const ports = await openStoppedFolder(env);
  let identities = 0;
  try {
    const rounds = Math.max(0, ...acknowledged.map(([round]) => round + 1));
    for (let round = 0; round < rounds; round += 1) {
      const rows = await ports.analytics.select<{ id: string }>(
        "SELECT id FROM raw_events FINAL WHERE status = 'counted' AND startsWith(id, {prefix:String})",
        { prefix: idInRound("", round) },
      );
      const stored = new Set(rows.map(({ id }) => id));
      const expected = new Set<string>();
      for (const [ofRound, index] of acknowledged) {
        if (ofRound !== round) continue;
        for (const id of pool.requests[index]?.ids ?? []) expected.add(idInRound(id, round));
      }
      const missing = [...expected].filter((id) => !stored.has(id)).length;
      if (missing > 0 || rows.length !== stored.size)
        throw new Error(`not proven: of ${expected.size} answered identities ${missing} are missing`);
      identities += expected.size;
    }
  } finally {
    await ports.close();
  }
  return identities;
}

try {
  const program = new URL("ingest-gateway.fixture.ts", import.meta.url).pathname;
  const profile =
    process.env["BENCH_PROFILE"] === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${process.env["BENCH_PROFILE"]}`];
  const gateway = await start([...profile, program, join(folder, "log"), brokers, topic]);
  const { pid } = gateway.child;
  const serverCpuBefore = cpuSecondsOf(pid);
  const result = await load(gateway.url);
  const serverCpuSeconds = cpuSecondsOf(pid) - serverCpuBefore;
  const serverRssMb = residentMegabytesOf(pid);
  await gateway.end();
  const identities = await prove(result);
  const events = result.acknowledged.length * eventsPerRequest;
  printFigures({
    bench: "ingest",
    log: options.log,
    seed: options.seed,
    events,
    identities,
    failedRequests: result.failed,
    seconds: Number(result.seconds.toFixed(2)),
    eventsPerSecond: Math.round(events / result.seconds),
    serverCpuMicrosPerEvent: Number(((serverCpuSeconds * 1e6) / events).toFixed(2)),
    serverRssMb,
    p50Ms: Number(quantile(result.latenciesMs, 0.5).toFixed(1)),
    p99Ms: Number(quantile(result.latenciesMs, 0.99).toFixed(1)),
    eventsPerRequest,
    eventBytesMean: result.pool.eventBytesMean,
    connections,
    cores: cpus().length,
  });
} finally {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
