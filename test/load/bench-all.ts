/**
 * `npm run bench:all`: every stage at once, from a load client over gateway, log, aggregator, tables and reporter to the emulator. Afterwards
 * every accepted usage event is found, the audit is clean and the emulator's totals equal the usage.
 */
import { floorTo, formatInstant, HOUR_MS } from "@tallyhouse/domain";
import { readStatus, untilFolded } from "../support/pipeline-status.ts";
import { pause } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { emulatorTotals, readTruth, storedTotals } from "../support/recount.ts";
import { runBench } from "./bench-place.ts";
import { type BenchPipeline, type ProofPorts, startPipeline } from "./bench-pipeline.ts";
import { type LoadFigures, startLoadClient } from "./load-process.ts";
import { benchOptions, rounded } from "./options.ts";
import { microsecondsPerEvent, ProcessWatch } from "./processes.ts";
import { proveCounted } from "./proof.ts";

/** The log may hold as much again as was counted meanwhile, and a busy machine may be slow. */
const TAIL_TIMEOUT_MS = 900_000;
/** A booking window of 15 s, two report rounds of 10 s, and what a busy machine adds. */
const BILLING_TIMEOUT_MS = 300_000;
const BILLING_POLL_MS = 1_000;
const options = benchOptions({
  events: 0,
  seconds: 600,
  rate: 0,
  batch: 100,
  connections: 16,
  audit: ["full", "count"],
});

await runBench({ name: "all", options, servers: ["kafka", "clickhouse", "postgres"] }, async (place) => {
  const pipeline = await startPipeline(place);
  const startAt = Date.now();
  const client = startLoadClient(pipeline, options, startAt);
  place.onEnd(() => client.stop());
  await client.started;
  const watch = new ProcessWatch(pipeline.pids);
  const startedAt = performance.now();
  const load = await client.ended;
  // At once: what is counted by now was counted beside the load.
  const { waiting } = await readStatus(pipeline);
  const seconds = (performance.now() - startedAt) / 1_000;
  const { cpuSeconds, memoryMegabytes } = watch.stop();
  await untilFolded(pipeline, TAIL_TIMEOUT_MS);
  const tailSeconds = (performance.now() - startedAt) / 1_000 - seconds;
  const billed = await untilBilled(pipeline, { ...load, startAt });
  const differences = await prove(await pipeline.openProof(), { load, billed });
  return {
    events: load.events,
    counted: load.identities,
    seconds: rounded(seconds, 2),
    eventsPerSecond: Math.round((load.events - waiting) / seconds),
    acceptedEventsPerSecond: Math.round(load.events / load.seconds),
    waitingAtEnd: waiting,
    tailSeconds: rounded(tailSeconds, 1),
    warmUp: "included",
    ratePerSecond: options.rate === 0 ? "as accepted" : options.rate,
    eventsPerRequest: options.batch,
    connections: options.connections,
    requestP50Ms: load.requestP50Ms,
    requestP99Ms: load.requestP99Ms,
    repeatedRequests: load.refusals,
    cpuSeconds: { ...cpuSeconds, client: load.cpuSeconds },
    cpuMicrosecondsPerEvent: microsecondsPerEvent(cpuSeconds, load.events),
    memoryMegabytes,
    reportedTotals: billed.totals.length,
    partitions: pipeline.partitions,
    customers: 1_020,
    meters: 3,
    engines: pipeline.engines,
    proof: `counts, sum, emulator = usage${options.audit === "full" ? ", audit A1 to A8" : ""}`,
    isProven: differences.length === 0,
    differences,
  };
});

/** Totals of hours that had ended before the load began: late usage, billed beside the load. */
interface Billed {
  readonly endedBefore: string;
  readonly totals: readonly string[];
}

/** Waits until every late token is at the emulator; the proof then compares each total. */
async function untilBilled(
  pipeline: BenchPipeline,
  load: { startAt: number; lateInputTokens: number },
): Promise<Billed> {
  const endedBefore = formatInstant(floorTo(load.startAt, HOUR_MS));
  let totals: readonly string[] = [];
  await until(
    async () => {
      // time passes here: each look reads everything that the emulator was ever sent.
      await pause(BILLING_POLL_MS);
      totals = emulatorTotals(await readTruth(pipeline.emulatorUrl)).filter((line) => hourOf(line) < endedBefore);
      const tokens = totals.filter((line) => line.split(",")[1] === "input_tokens");
      return tokens.reduce((sum, line) => sum + Number(line.split(",")[3]), 0) === load.lateInputTokens;
    },
    { timeoutMs: BILLING_TIMEOUT_MS, what: `${load.lateInputTokens} late tokens are billed` },
  );
  return { endedBefore, totals };
}

/** Of a line `customer,meter,hour,quantity`. */
function hourOf(line: string): string {
  return line.split(",")[2] ?? "";
}

async function prove(ports: ProofPorts, given: { load: LoadFigures; billed: Billed }): Promise<readonly string[]> {
  const { load, billed } = given;
  // A repeated request may have left its records twice.
  const differences = await proveCounted(ports.analytics, {
    ...load,
    stored: load.refusals === 0 ? load.events : null,
  });
  const used = (await storedTotals(ports.analytics)).filter((line) => hourOf(line) < billed.endedBefore);
  const atEmulator = new Set(billed.totals);
  const unequal = used.filter((line) => !atEmulator.has(line));
  if (unequal.length > 0 || used.length !== atEmulator.size) {
    differences.push(
      `${used.length} totals are used and ${atEmulator.size} billed; not billed so: ${unequal[0] ?? "none"}`,
    );
  }
  if (used.length === 0) differences.push("nothing was billed, so nothing was compared");
  if (options.audit === "full" && differences.length === 0) differences.push(...(await ports.audit()));
  return differences;
}
