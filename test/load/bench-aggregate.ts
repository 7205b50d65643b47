/**
 * `npm run bench:aggregate`: log → counted. The log is filled first; the clock runs from the aggregator's start, warm-up
 * included, until progress covers the last record; then everything is counted again in SQL and audited.
 */
import { randomBytes } from "node:crypto";
import process from "node:process";
import { AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { openClickHouse } from "@tallyhouse/clickhouse";
import { encodeControl, type EventLog, type LogRecord, partitionOfKey, recordKeyOf } from "@tallyhouse/domain";
import { deleteTopic } from "@tallyhouse/eventlog";
import { createLogger, createMetrics, parseConfig, runComponents } from "@tallyhouse/runtime";
import { openStoppedFolder } from "@tallyhouse/standalone";
import { meterVersion, until } from "@tallyhouse/testkit";
import { type BenchPlace, runBench } from "./bench-place.ts";
import { benchOptions, rounded } from "./options.ts";
import { microsecondsPerEvent, ProcessWatch } from "./processes.ts";
import { audited, type Expected, proveCounted } from "./proof.ts";
import { usageStream } from "./usage-stream.ts";

const APPEND_RECORDS = 5_000;
const METERS = [
  meterVersion({ meter: "input_tokens" }),
  meterVersion({ meter: "output_tokens", rule: { value: "/outputTokens" } }),
];
const options = benchOptions({ events: 300_000, seconds: 600, audit: ["full", "count"] });

await runBench({ name: "aggregate", options, servers: ["kafka", "clickhouse"] }, async (place) => {
  const env = { ...place.env, TALLYHOUSE_DATA: place.folder, TALLYHOUSE_SQL_PORT: "off", LOG_LEVEL: "error" };
  await useOwnDatabase(env, place);
  const ports = await openStoppedFolder(env);
  place.onEnd(() => ports.close());
  const { log, analytics, clock, secrets } = ports;
  const controlKey = { name: "bench", secret: randomBytes(32) };
  await activateMeters(log, controlKey);
  const { events, ...expected } = await fill(log, clock.now());
  const records = await endOf(log);

  const logger = createLogger({ level: "error", name: "bench" });
  const stream = {
    streamId: 1,
    partitionCount: log.partitionCount,
    bookingWindowSeconds: 900,
    hashSeed: secrets.hashSeed,
  };
  const aggregator = buildAggregator(
    { ...parseConfig(AggregatorConfigSchema, env), stream, controlKeys: [controlKey] },
    { log, analytics, clock, random: () => 0.5, logger, metrics: createMetrics() },
  );
  const stopper = new AbortController();
  const watch = new ProcessWatch({ ...place.serverPids, aggregator: process.pid });
  const startedAt = performance.now();
  const done = runComponents({ components: [aggregator], signal: stopper.signal, log: logger });
  await until(
    async () => {
      const [progress] = await analytics.select<{ nextOffsets: string }>(
        "SELECT toString(sum(nextOffset)) AS nextOffsets FROM progress FINAL",
      );
      return Number(progress?.nextOffsets ?? 0) >= records;
    },
    { timeoutMs: options.seconds * 1_000, what: "progress covers the log" },
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  const { cpuSeconds, memoryMegabytes } = watch.stop();
  stopper.abort();
  await done;
  const differences = await proveCounted(analytics, expected);
  const isFull = options.audit === "full";
  if (isFull && differences.length === 0) differences.push(...(await audited(ports, env)));
  return {
    events,
    counted: expected.identities,
    seconds: rounded(seconds, 2),
    eventsPerSecond: Math.round(events / seconds),
    warmUp: "included",
    cpuMicrosecondsPerEvent: microsecondsPerEvent(cpuSeconds, events),
    cpuSeconds,
    memoryMegabytes,
    partitions: log.partitionCount,
    customers: 1_000,
    meters: METERS.length,
    engines: `${options.log === "kafka" ? "Kafka, one broker" : "embedded log"}, ${ports.adapters["analytics"]?.replace(/ at .*/, " over HTTP")}`,
    proof: isFull ? "counts, sum and audit A1 to A8" : "counts and sum",
    isProven: differences.length === 0,
    differences,
  };
});

/** A database of its own on the server, if there is one. */
async function useOwnDatabase(env: NodeJS.ProcessEnv, place: BenchPlace): Promise<void> {
  const { CLICKHOUSE_URL: url, KAFKA_BROKERS: brokers, KAFKA_TOPIC: topic } = env;
  if (url === undefined || brokers === undefined || topic === undefined) return;
  const database = `tallyhouse_bench_${randomBytes(6).toString("hex")}`;
  const server = await openClickHouse({ url });
  place.onEnd(() => server.close());
  await server.store.execute(`CREATE DATABASE ${database}`);
  place.onEnd(() => server.store.execute(`DROP DATABASE ${database}`));
  place.onEnd(() => deleteTopic({ brokers: brokers.split(","), clientId: "bench", topic }));
  env["CLICKHOUSE_URL"] = Object.assign(new URL(url), { pathname: `/${database}` }).href;
}

async function activateMeters(log: EventLog, key: { name: string; secret: Buffer }): Promise<void> {
  for (let partition = 0; partition < log.partitionCount; partition += 1) {
    await log.append(
      METERS.map((version) => encodeControl({ fact: { kind: "meter.activate", ...version }, partition, key })),
    );
  }
}

/** Appends the usage events; what must be found of them afterwards. */
async function fill(log: EventLog, nowAt: number): Promise<Expected & { readonly events: number }> {
  const sum = { identities: 0, inputTokens: 0, events: 0 };
  let batch: LogRecord[] = [];
  for (const { id, text, customer, inputTokens, isRepeat } of usageStream({ seed: options.seed, nowAt })) {
    if (sum.events === options.events) break;
    sum.events += 1;
    if (!isRepeat) sum.identities += 1;
    if (!isRepeat) sum.inputTokens += inputTokens;
    const key = recordKeyOf({ mode: "live", customer, source: "bench", id });
    batch.push({ partition: partitionOfKey(key, log.partitionCount), key, value: Buffer.from(text), headers: {} });
    if (batch.length < APPEND_RECORDS) continue;
    await log.append(batch);
    batch = [];
  }
  if (batch.length > 0) await log.append(batch);
  return { ...sum, stored: sum.events };
}

async function endOf(log: EventLog): Promise<number> {
  const bounds = await Promise.all(Array.from({ length: log.partitionCount }, (_, partition) => log.bounds(partition)));
  return bounds.reduce((sum, { endOffset }) => sum + endOffset, 0);
}
