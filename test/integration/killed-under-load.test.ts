/**
 * kill -9 of each process and of each server under load, at two moments (KILLS = pairs of them, default 1): while it works, and
 * while it comes back. Nothing accepted is lost, nothing counts twice, everything recovers by itself. SEED chooses the
 * moments. The servers are this test's own, because it kills them; the oracle is tools/recount.py over what was sent.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { DAY_MS, floorTo, formatInstant, HOUR_MS } from "@tallyhouse/domain";
import { startClickHouse } from "@tallyhouse/infra/local/clickhouse.ts";
import { startKafka } from "@tallyhouse/infra/local/kafka.ts";
import { startPostgres } from "@tallyhouse/infra/local/postgres.ts";
import { pause } from "@tallyhouse/runtime";
import { type DemoEvent, seededRandom } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import { expect, test } from "vitest";
import { createLoadClient, type LoadClient } from "../support/load-client.ts";
import { untilFolded, untilReported } from "../support/pipeline-status.ts";
import { countedIds, emulatorTotals, readTruth, recount, storedTotals } from "../support/recount.ts";
import { type ProcessName, startWorld, type World } from "./world.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const PAIRS = Number(process.env["KILLS"] ?? 1);
const LANES = 4;
const REST_MS = 100;
/** More than the load sends in the whole run. */
const EVENTS = 250_000 * PAIRS;
/** 202s between a recovery and the next kill: load flows. */
const FLOWING_EVENTS = 100;
const MOMENT_MAX_MS = 1_200;
const RECOVERY_MAX_MS = 90_000;
const METERS_FILE = new URL("../../examples/meters.yaml", import.meta.url);

/** What is killed. `kill` resolves when it is gone, `comeBack` starts what nobody supervises. */
interface Victim {
  readonly name: string;
  kill(): Promise<void>;
  comeBack(): Promise<void>;
  /** Who must name it in `/readyz`, as which part. */
  readonly namedBy?: { readonly process: ProcessName; readonly part: string };
}

test(
  `G1 G2 G3 G5 G9 everything killed under load, nothing lost, nothing twice (SEED=${SEED} KILLS=${PAIRS})`,
  { timeout: 240_000 + 240_000 * PAIRS },
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "tallyhouse-killed-"));
    // PostgreSQL runs as another user when we are root, and must come through here to its own folder.
    chmodSync(folder, 0o711);
    const local = await startServers(folder);
    try {
      const world = await startWorld({
        name: "killed",
        servers: local.servers,
        metersFile: readFileSync(METERS_FILE, "utf8"),
        settings: { REPORT_INTERVAL_MS: "3000" },
      });
      try {
        await killEverything(world, local.victims);
      } finally {
        await world.end();
      }
    } finally {
      await local.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  },
);

async function killEverything(world: World, servers: readonly Victim[]): Promise<void> {
  const random = seededRandom(SEED);
  const events = loadEvents(Date.now());
  const client = createLoadClient({
    urls: world.gatewayUrls,
    token: world.token,
    events,
    lanes: LANES,
    restMs: REST_MS,
  });
  const over = new AbortController();
  const load = client.run(over.signal);
  const processes = (Object.keys(world.processes) as ProcessName[])
    .filter((name) => !name.endsWith("2"))
    .map((name) => processVictim(world, name));
  const hits = new Map<string, number>();
  for (const victim of [...processes, ...servers]) {
    for (let pair = 0; pair < PAIRS; pair += 1) {
      for (const moment of ["at work", "coming back"] as const) {
        await killOnce({ world, client, victim, moment, random });
        const point = `${victim.name}, ${moment}`;
        hits.set(point, (hits.get(point) ?? 0) + 1);
      }
    }
  }
  over.abort();
  await load;
  printHits(world, hits, client);
  expect([...hits.values()].filter((count) => count !== PAIRS)).toEqual([]);
  await proveTotals(world, client, events);
}

async function proveTotals(world: World, client: LoadClient, events: readonly DemoEvent[]): Promise<void> {
  const target = { url: world.gatewayUrls[0], token: world.token };
  await untilFolded(target);
  const { ids, repeated } = await countedIds(world.ports.analytics);
  const lost = [...client.acknowledged].filter((id) => !ids.has(id));
  const invented = [...ids].filter((id) => !client.sent.has(id));
  expect({ lost, repeated, invented }).toEqual({ lost: [], repeated: [], invented: [] });
  await client.resendUnanswered();
  await untilFolded(target);
  await untilReported(target);
  const oracle = recount(events.filter((event) => client.sent.has(event.id)));
  expect(await storedTotals(world.ports.analytics)).toEqual(oracle);
  expect(emulatorTotals(await readTruth(world.emulatorUrl))).toEqual(oracle);
}

/** One kill while load flows, and the wait until everything is well again. */
async function killOnce(input: {
  world: World;
  client: LoadClient;
  victim: Victim;
  moment: "at work" | "coming back";
  random: () => number;
}): Promise<void> {
  const { world, client, victim, moment, random } = input;
  const isFlowing = async (): Promise<void> => {
    const before = client.acknowledged.size;
    await until(() => client.acknowledged.size >= before + FLOWING_EVENTS, {
      timeoutMs: RECOVERY_MAX_MS,
      what: `load flows around ${victim.name}`,
    });
  };
  await isFlowing();
  // time passes here: the moment of the kill is the random choice under test, not a condition.
  await pause(random() * MOMENT_MAX_MS);
  await victim.kill();
  if (victim.namedBy !== undefined && moment === "at work") await untilNamed(world, victim.namedBy);
  await victim.comeBack();
  if (moment === "coming back") {
    // time passes here: somewhere in its start, or just after.
    await pause(random() * MOMENT_MAX_MS);
    await victim.kill();
    await victim.comeBack();
  }
  await world.untilReady();
  await isFlowing();
}

/** G9: a process whose server is gone is unready within 30 s and names it. */
async function untilNamed(world: World, named: { process: ProcessName; part: string }): Promise<void> {
  const { url } = world.processes[named.process].settings;
  await until(
    async () => {
      const answer = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(5_000) });
      const { parts } = (await answer.json()) as { parts: Record<string, string> };
      return answer.status === 503 && parts[named.part] !== "ok";
    },
    { timeoutMs: 30_000, what: `${named.process} names ${named.part}` },
  );
}

function processVictim(world: World, name: ProcessName): Victim {
  const { [name]: victim } = world.processes;
  // Its supervisor starts it again.
  const kill = async (): Promise<void> => void (await victim.kill());
  return { name, kill, comeBack: () => Promise.resolve() };
}

async function startServers(folder: string) {
  const [kafka, clickhouse, postgres] = await Promise.all([
    startKafka({ folder: join(folder, "kafka") }),
    startClickHouse({ folder: join(folder, "clickhouse") }),
    startPostgres({ folder: join(folder, "postgres") }),
  ]);
  const all = { kafka, clickhouse, postgres };
  const victimOf = (name: keyof typeof all, namedBy: NonNullable<Victim["namedBy"]>): Victim => ({
    name,
    namedBy,
    kill: async () => all[name].kill(),
    comeBack: () => all[name].restart(),
  });
  return {
    servers: { brokers: kafka.brokers, clickhouseUrl: clickhouse.url, postgresUrl: postgres.url },
    victims: [
      victimOf("kafka", { process: "gateway1", part: "eventLog" }),
      victimOf("clickhouse", { process: "aggregator1", part: "analyticsStore" }),
      victimOf("postgres", { process: "gateway1", part: "controlStore" }),
    ],
    stop: async () => {
      await Promise.all([kafka.stop(), clickhouse.stop(), postgres.stop()]);
    },
  };
}

function printHits(world: World, hits: ReadonlyMap<string, number>, client: LoadClient): void {
  const rows = [...hits].map(([point, count]) => `  ${point.padEnd(28)} ${count}`);
  const ends = Object.entries(world.processes).filter(([, { unexpectedEnds }]) => unexpectedEnds > 0);
  console.log(
    [
      `hits per kill point, of ${client.acknowledged.size} accepted and ${client.sent.size} sent usage events:`,
      ...rows,
      "ends of other processes on the way, each followed by a start:",
      ...ends.map(([name, { unexpectedEnds }]) => `  ${name.padEnd(28)} ${unexpectedEnds}`),
    ].join("\n"),
  );
}

/** 6 customers and 4 hours of yesterday: many events for each reported hour, few hours to report. */
function loadEvents(nowAt: number): DemoEvent[] {
  const random = seededRandom(SEED);
  const noonAt = floorTo(nowAt, DAY_MS) - DAY_MS / 2;
  return Array.from({ length: EVENTS }, (_, n) => ({
    id: `load-${n}`,
    source: "load",
    customer: `cust-${Math.floor(random() * 6)}`,
    type: "llm.request",
    time: formatInstant(noonAt + Math.floor(random() * 4 * HOUR_MS)),
    data: { inputTokens: Math.floor(random() * 4_000), outputTokens: Math.floor(random() * 500), model: "small" },
  }));
}
