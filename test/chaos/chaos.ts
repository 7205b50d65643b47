/**
 * `npm run chaos -- --seed S --kills K`: faults of every kind on the real engine and broker under load, then the proof that
 * nothing was lost and nothing counted twice. A plan of many kills runs in several worlds one after another, each proven at
 * its end; `--from-kill N` goes on with the same plan in a fresh world. Ends with one JSON object; exit code 1 on any difference.
 */
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { floorTo, HOUR_MS } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { startWorld, type World } from "../integration/world.ts";
import { ChaosLoad } from "./load.ts";
import { AGGREGATORS, Faults } from "./faults.ts";
import { ChaosCorrections } from "./corrections.ts";
import { openGroupOffsets } from "./group-offsets.ts";
import { InsertProxy } from "./insert-proxy.ts";
import { LateMeters } from "./late-meters.ts";
import { chaosOptions } from "./options.ts";
import { planFaults, type PlannedFault } from "./plan.ts";
import { prove } from "./proof.ts";
import { RecoveryWatch } from "./recovery.ts";
import { newTally, printTally, type Tally } from "./tally.ts";
import { type ChaosServers, startServers } from "./servers.ts";
import { UsageSource } from "./usage-source.ts";

const METERS_FILE = readFileSync(new URL("meters.yaml", import.meta.url), "utf8");
const LOGS = new URL("../../.test-results/chaos/", import.meta.url).pathname;
const FAULTS_AT_ONCE_MAX = 4;
const WAIT_MS = 50;
const RECOVERY_MAX_MS = 600_000;
const MINUTE_MS = 60_000;
const EVENTS_PER_FAULT = 10_000;

// Faults take hold of processes of this machine: strace, SIGSTOP, a disk of their own.
process.env["LOCAL_SERVERS"] = "processes";
// One listener for each process and server, so that none outlives a run that dies.
process.setMaxListeners(100);
// An exit that is asked for ends them too.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));
const options = chaosOptions(process.argv.slice(2));
mkdirSync(LOGS, { recursive: true });
const logPath = join(LOGS, `seed-${options.seed}-from-${options.fromKill}.log`);
const say = (line: string): void => {
  const stamped = `${new Date().toISOString()} ${line}`;
  appendFileSync(logPath, `${stamped}\n`);
  process.stderr.write(`${stamped}\n`);
};
const print = (line: string): void => {
  appendFileSync(logPath, `${line}\n`);
  process.stdout.write(`${line}\n`);
};

const wholePlan = planFaults(options);
const eventsPerFault = options.events === 0 ? EVENTS_PER_FAULT : Math.ceil(options.events / wholePlan.length);
const plan = wholePlan.slice(options.fromKill);
const tally = newTally(options);
const endsAt = options.minutes === 0 ? Number.POSITIVE_INFINITY : performance.now() + options.minutes * MINUTE_MS;
for (let first = 0; first < plan.length && performance.now() < endsAt; first += options.worldKills) {
  const faults = plan.slice(first, first + options.worldKills);
  if (!(await runWorld(faults, tally))) break;
}
printTally(tally, print);
process.exit(tally.differences.length === 0 && tally.emptyPoints().length === 0 ? 0 : 1);

/** One world from its start to its proof; false when something differed, and its data is kept. */
async function runWorld(faults: readonly PlannedFault[], tally: Tally): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-chaos-"));
  const servers = await startServers(folder, { smallDisk: faults.some(({ point }) => point.kind === "disk-full") });
  let isExact = false;
  try {
    const origin = new URL(servers.clickhouse.url).origin;
    const proxies = {
      aggregator1: await InsertProxy.start(origin),
      aggregator2: await InsertProxy.start(origin),
    };
    const world = await startWorld({
      name: "chaos",
      servers: {
        brokers: servers.kafka.brokers,
        clickhouseUrl: servers.clickhouse.url,
        postgresUrl: servers.postgres.url,
      },
      metersFile: METERS_FILE,
      settings: { REPORT_INTERVAL_MS: "3000", BOOKING_WINDOW_SECONDS: "15" },
      settingsOf: (name, env) => {
        const aggregator = AGGREGATORS.find((each) => each === name);
        if (aggregator === undefined) return {};
        const url = new URL(String(env["CLICKHOUSE_URL"]));
        url.port = String(proxies[aggregator].port);
        return { CLICKHOUSE_URL: url.href };
      },
    });
    try {
      isExact = await torment({ world, servers, proxies, faults, tally });
    } finally {
      await (isExact ? world.end() : Promise.all(Object.values(world.processes).map((each) => each.end())));
      await Promise.all(Object.values(proxies).map((proxy) => proxy.close()));
    }
  } finally {
    await servers.stop();
    if (isExact) rmSync(folder, { recursive: true, force: true });
    else say(`the data is kept in ${folder}; disk.img, where there is one, holds ClickHouse's`);
  }
  return isExact;
}

/** Load and faults side by side, then the proof. */
async function torment(input: {
  world: World;
  servers: ChaosServers;
  proxies: Readonly<Record<(typeof AGGREGATORS)[number], InsertProxy>>;
  faults: readonly PlannedFault[];
  tally: Tally;
}): Promise<boolean> {
  const { world, servers, proxies, faults: planned, tally } = input;
  const [firstFault] = planned;
  const worldSeed = options.seed * 10_000 + (firstFault?.number ?? 0);
  const baseAt = floorTo(Date.now(), HOUR_MS);
  const source = new UsageSource(worldSeed, baseAt);
  say(`world of faults ${firstFault?.number} to ${planned.at(-1)?.number}, usage seed ${worldSeed}, base ${baseAt}`);
  const over = new AbortController();
  const watch = new RecoveryWatch(world.ports.log, world.ports.analytics);
  const watching = watch.run(over.signal);
  const { log } = world.ports;
  const load = await ChaosLoad.open({
    source,
    gatewayUrls: world.gatewayUrls,
    token: world.token,
    brokers: world.brokers,
    topic: world.topic,
    partitionCount: log.partitionCount,
    seed: worldSeed,
    ratePerSecond: options.ratePerSecond,
    backlog: () => watch.backlog(),
  });
  const corrections = new ChaosCorrections({
    urls: world.gatewayUrls,
    token: world.token,
    source,
    seed: worldSeed,
    pick: (random) => load.pickAcknowledged(random),
  });
  const offsets = await openGroupOffsets(world);
  const lateMeters = new LateMeters({ urls: world.gatewayUrls, token: world.token, metersFile: METERS_FILE });
  const faults = new Faults({ world, servers, proxies, watch, offsets, lateMeters });
  const loading = new AbortController();
  const running = Promise.all([load.run(loading.signal), corrections.run(loading.signal)]);
  try {
    await carryOut(planned, { faults, load, tally });
    await untilRecovered(watch);
    loading.abort();
    await running;
    const proof = await prove({ world, load, corrections, source, lateMeters: lateMeters.keys });
    tally.addWorld({ faults, watch, load, proof, processes: world.processes });
    for (const line of proof.differences) say(`DIFFERENCE ${line}`);
    say(`world proven: ${JSON.stringify({ ...proof, differences: proof.differences.length })}`);
    return proof.differences.length === 0;
  } finally {
    loading.abort();
    over.abort();
    await Promise.allSettled([running, watching, offsets.close(), load.close()]);
  }
}

/** Each fault when its time and its share of the usage events have come; some at once. */
async function carryOut(
  planned: readonly PlannedFault[],
  { faults, load, tally }: { faults: Faults; load: ChaosLoad; tally: Tally },
): Promise<void> {
  const active = new Set<Promise<void>>();
  let failure: unknown = null;
  for (const [index, fault] of planned.entries()) {
    load.allow((index + 2) * eventsPerFault);
    // time passes here: the moment of a fault is random.
    await pause(2 * fault.gapShare * options.gapMs);
    while (load.made < index * eventsPerFault || active.size >= FAULTS_AT_ONCE_MAX) {
      // time passes here: the plan's ratio of faults to usage events, and its bound of faults at once.
      await pause(WAIT_MS);
      if (failure !== null) break;
    }
    if (failure !== null || performance.now() > endsAt) break;
    say(`fault ${fault.number}: ${JSON.stringify(fault.point)}, ${load.figures.acknowledged} accepted`);
    tally.begin(fault);
    const done: Promise<void> = faults
      .run(fault)
      .catch((error: unknown) => {
        failure ??= new Error(`fault ${fault.number} could not be carried out`, { cause: error });
      })
      .finally(() => active.delete(done));
    active.add(done);
  }
  await Promise.all(active);
  if (failure !== null) throw failure;
}

async function untilRecovered(watch: RecoveryWatch): Promise<void> {
  const deadline = performance.now() + RECOVERY_MAX_MS;
  while (watch.unrecovered().length > 0) {
    if (performance.now() > deadline) throw new Error(`never recovered: ${watch.unrecovered().join("; ")}`);
    // time passes here: polling.
    await pause(WAIT_MS);
  }
}
