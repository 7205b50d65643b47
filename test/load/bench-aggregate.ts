/**
 * `npm run bench:aggregate`: log → counted. The log is filled first; the clock runs from the aggregator's start until
 * progress covers the last record; then the counted rows are counted again in SQL.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { AggregatorConfigSchema, buildAggregator } from "@tallyhouse/aggregator";
import { encodeControl, type LogRecord, type MeterVersion, partitionOfKey, recordKeyOf } from "@tallyhouse/domain";
import { createLogger, createMetrics, parseConfig, runComponents } from "@tallyhouse/runtime";
import { openStoppedFolder } from "@tallyhouse/standalone";
import { meterVersion, until } from "@tallyhouse/testkit";
import { benchOptions, printFigures } from "./options.ts";
import { usageStream } from "./usage-stream.ts";

const options = benchOptions({ events: 300_000, seconds: 600 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-"));
const logger = createLogger({ level: "error", name: "bench" });
const env = { ...process.env, TALLYHOUSE_DATA: folder, KAFKA_TOPIC: `usage.events.v1.bench-${randomUUID()}` };
const ports = await openStoppedFolder(options.log === "kafka" ? env : { ...env, KAFKA_BROKERS: "" });
try {
  const { log, analytics, clock, secrets } = ports;
  const controlKey = { name: "bench", secret: randomBytes(32) };
  const meters: MeterVersion[] = [
    meterVersion({ meter: "input_tokens" }),
    meterVersion({ meter: "output_tokens", rule: { value: "/outputTokens" } }),
  ];
  for (let partition = 0; partition < log.partitionCount; partition += 1) {
    await log.append(
      meters.map((version) =>
        encodeControl({ fact: { kind: "meter.activate", ...version }, partition, key: controlKey }),
      ),
    );
  }
  const identities = new Set<string>();
  let batch: LogRecord[] = [];
  let appended = 0;
  for (const { id, text, customer } of usageStream({ seed: options.seed, nowAt: clock.now() })) {
    if (appended === options.events) break;
    appended += 1;
    identities.add(id);
    const key = recordKeyOf({ mode: "live", customer, source: "bench", id });
    batch.push({ partition: partitionOfKey(key, log.partitionCount), key, value: Buffer.from(text), headers: {} });
    if (batch.length < 5_000) continue;
    await log.append(batch);
    batch = [];
  }
  if (batch.length > 0) await log.append(batch);
  const bounds = await Promise.all(Array.from({ length: log.partitionCount }, (_, partition) => log.bounds(partition)));
  const records = bounds.reduce((sum, { endOffset }) => sum + endOffset, 0);

  const stream = {
    streamId: 1,
    partitionCount: log.partitionCount,
    bookingWindowSeconds: 900,
    hashSeed: secrets.hashSeed,
  };
  const aggregator = buildAggregator(
    { ...parseConfig(AggregatorConfigSchema, process.env), stream, controlKeys: [controlKey] },
    { log, analytics, clock, random: () => 0.5, logger, metrics: createMetrics() },
  );
  const stopper = new AbortController();
  const cpuBefore = process.cpuUsage();
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
  const { user, system } = process.cpuUsage(cpuBefore);
  stopper.abort();
  await done;
  const [proof] = await analytics.select<{ counted: string; stored: string }>(
    "SELECT toString(countIf(status = 'counted')) AS counted, toString(countIf(status != 'control')) AS stored FROM raw_events FINAL",
  );
  if (Number(proof?.counted) !== identities.size || Number(proof?.stored) !== appended) {
    throw new Error(`not proven: ${JSON.stringify(proof)} of ${identities.size} identities in ${appended} records`);
  }
  printFigures({
    bench: "aggregate",
    log: options.log,
    seed: options.seed,
    events: appended,
    counted: identities.size,
    seconds: Number(seconds.toFixed(2)),
    eventsPerSecond: Math.round(appended / seconds),
    cpuMicrosecondsPerEvent: Number(((user + system) / appended).toFixed(2)),
    rssMegabytes: Math.round(process.memoryUsage.rss() / 1e6),
    cores: cpus().length,
  });
} finally {
  await ports.close();
  rmSync(folder, { recursive: true, force: true });
}
