/**
 * `npm run bench:audit -- --events 1000000 --seconds 600`: how long an audit of so many raw rows takes. The tables are filled by the engine
 * itself, as an aggregator would have filled them: a tenth duplicates, two meters, eight partitions, a thousand customers; booked within
 * `--seconds`, two days when absent, which gives nearly every usage event a rollup row of its own. Prints one JSON object.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { runAudit } from "@tallyhouse/console";
import type { AnalyticsStore } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { benchOptions } from "./options.ts";

const { events: rows, seconds: SPAN_SECONDS } = benchOptions({ events: 1_000_000, seconds: 2 * 86_400 });
const PARTITIONS = 8;
const WINDOW_SECONDS = 900;
const MIGRATIONS = new URL("../../infra/clickhouse", import.meta.url).pathname;
const METERS = [
  meterVersion({ meter: "tokens", rule: { dimensions: { model: "/model" } } }),
  meterVersion({ meter: "requests", rule: { aggregation: "count", value: undefined } }),
];

const folder = await mkdtemp(join(tmpdir(), "tallyhouse-bench-audit-"));
const opened = await openClickHouse({ path: join(folder, "clickhouse") });
try {
  await migrateClickHouse(opened.store, MIGRATIONS);
  await fill(opened.store);
  const [size] = await opened.store.select<Record<"raw" | "rollup" | "ends", string>>(
    `SELECT (SELECT toString(count()) FROM raw_events) AS raw, (SELECT toString(count()) FROM rollup) AS rollup,
       (SELECT arrayStringConcat(groupArray(toString(nextOffset)), ',') FROM (SELECT nextOffset FROM progress ORDER BY logPartition)) AS ends`,
  );
  const ends = (size?.ends ?? "").split(",").map(Number);
  const cpuBefore = process.cpuUsage();
  /** CPU at the beginning of each check. */
  const begun = new Map<string, number>();
  const startedAt = performance.now();
  const report = await runAudit(
    {
      analytics: opened.store,
      log: {
        partitionCount: PARTITIONS,
        bounds: (partition) => Promise.resolve({ earliestOffset: 0, endOffset: ends[partition] ?? 0 }),
      },
    },
    {
      stream: {
        streamId: 1,
        partitionCount: PARTITIONS,
        bookingWindowSeconds: WINDOW_SECONDS,
        predecessors: [],
        horizonSeconds: 840 * 3_600,
        maxAgeSeconds: 816 * 3_600,
        maxAheadSeconds: 300,
      },
      redirectWaitMs: 0,
      onProgress: ({ check }) => {
        if (!begun.has(check)) begun.set(check, cpuSecondsSince(cpuBefore));
      },
    },
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  const cpuSeconds = cpuSecondsSince(cpuBefore);
  const figures = {
    raw: Number(size?.raw),
    rollup: Number(size?.rollup),
    isClean: report.isClean,
    seconds: Number(seconds.toFixed(1)),
    cpuSeconds: Number(cpuSeconds.toFixed(1)),
    cpuMicrosPerRow: Number(((cpuSeconds * 1e6) / rows).toFixed(2)),
    peakRssMiB: Math.round(process.resourceUsage().maxRSS / 1_024),
    cores: cpus().length,
    cpuMicrosPerRowOf: Object.fromEntries(
      [...begun].map(([check, at], index, all) => {
        const until = all[index + 1]?.[1] ?? cpuSeconds;
        return [check, Number((((until - at) * 1e6) / rows).toFixed(2))];
      }),
    ),
  };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
  if (!report.isClean)
    process.stdout.write(`${JSON.stringify(report.checks.flatMap(({ examples }) => examples.slice(0, 2)))}\n`);
  process.exitCode = report.isClean ? 0 : 1;
} finally {
  await opened.close();
  await rm(folder, { recursive: true });
}

function cpuSecondsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

/** The tables as an aggregator leaves them. Offset 0 and 1 of each partition activate the meters. */
async function fill(store: AnalyticsStore): Promise<void> {
  const startAt = Math.floor(Date.now() / 86_400_000) * 86_400 - 3 * 86_400;
  const booked = `toDateTime64(${startAt} + intDiv(number * ${SPAN_SECONDS}, ${rows}), 3, 'UTC')`;
  const original = "if(number % 10 = 9, number - 1, number)";
  await store.execute(`CREATE TABLE sent (n UInt64, original UInt64, partition UInt16, offset UInt64, bookedAt DateTime64(3, 'UTC'))
    ENGINE = MergeTree ORDER BY (partition, offset)`);
  for (let from = 0; from < rows; from += 1_000_000) {
    await store.execute(`INSERT INTO sent
      SELECT number, ${original} AS original, kafkaMurmurHash(concat('live/cus_', toString(original % 1000), '/api/evt-', toString(original))) % ${PARTITIONS} AS home,
        row_number() OVER (PARTITION BY home ORDER BY number) + 1 AS place, ${booked}
      FROM numbers(${from}, ${Math.min(1_000_000, rows - from)})`);
  }
  await store.execute(`CREATE TABLE placed ENGINE = MergeTree ORDER BY (partition, offset) AS
    SELECT n, original, partition, row_number() OVER (PARTITION BY partition ORDER BY n) + 1 AS offset, bookedAt FROM sent`);
  const data = `concat('{"inputTokens":', toString(original % 4096), ',"model":"model-', toString(original % 7), '","outputTokens":', toString(original % 512), ',"region":"eu-west-', toString(original % 3), '","requestId":"', hex(sipHash128(original)), '"}')`;
  await store.execute(`INSERT INTO raw_events SELECT 1, partition, offset, 'live', concat('cus_', toString(original % 1000)), 'api',
    concat('evt-', toString(original)), 'llm.request', toDateTime64(${startAt} + intDiv(original * ${SPAN_SECONDS}, ${rows}), 3, 'UTC'), bookedAt, bookedAt, 0,
    if(n = original, 'counted', 'duplicate'), '', sipHash64(original), ${data} FROM placed`);
  await store.execute(`INSERT INTO identities SELECT 1, partition, sipHash64('id', n), toUInt32(n % 4294967296), offset, bookedAt,
    toUInt32(bitAnd(sipHash64(original), 4294967295)) FROM placed WHERE n = original`);
  for (const [index, version] of METERS.entries()) {
    const body = JSON.stringify({ mode: "live", meter: version.meter, version: 1, rule: version.rule }).replaceAll(
      "'",
      "''",
    );
    const all = `SELECT number AS partition, toDateTime64(${startAt}, 3, 'UTC') AS bookedAt FROM numbers(${PARTITIONS})`;
    await store.execute(
      `INSERT INTO control_records SELECT 1, partition, ${index}, bookedAt, 'meter.activate', '', '${body}' FROM (${all})`,
    );
    await store.execute(`INSERT INTO raw_events SELECT 1, partition, ${index}, 'none', '', '', '', '', 0, bookedAt, bookedAt, 0, 'control',
      'meter.activate', 0, '${body}' FROM (${all})`);
    const [dims, quantity] =
      index === 0
        ? ["[concat('model-', toString(original % 7))]", "original % 4096"]
        : ["CAST([], 'Array(String)')", "1"];
    await store.execute(`INSERT INTO rollup SELECT 'live', concat('cus_', toString(original % 1000)) AS customer, '${version.meter}', 1,
      toDateTime(toStartOfFifteenMinutes(bookedAt), 'UTC') AS windowStart, ${dims} AS dims, 1, partition, 0, windowStart AS bookedStart,
      max(offset) + 1, count(), 0, sum(toDecimal128(${quantity}, 9)), min(${quantity}), max(${quantity}),
      argMax(${quantity}, offset), max(bookedAt), max(offset)
      FROM placed WHERE n = original GROUP BY customer, windowStart, dims, partition`);
  }
  await store.execute(
    `INSERT INTO progress SELECT 1, partition, max(offset) + 1, max(bookedAt), 1, countIf(n = original), 'bench', 0 FROM placed GROUP BY partition`,
  );
}
