/**
 * `npm run bench:insert`: CPU of AnalyticsStore.insert per row, by table, in the process and over HTTP. Inserts of a flush's size,
 * one after another, merges stopped; then the stored rows are counted and summed in SQL. To compare two encodings, run it
 * at two commits.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { migrateClickHouse, openClickHouse, type OpenedClickHouse } from "@tallyhouse/clickhouse";
import type { AnalyticsValue } from "@tallyhouse/domain";
import { startClickHouse } from "@tallyhouse/infra/local/clickhouse.ts";
import { benchOptions, printFigures } from "./options.ts";
import { usageStream } from "./usage-stream.ts";

/** Rows of one insert: a full flush. */
const ROWS_PER_INSERT = 20_000;
/** Inserts before the clock runs: the engine's caches fill and the encoder is compiled. */
const WARM_INSERTS = 3;
/** `/proc` counts in hundredths of a second. */
const TICK_MICROSECONDS = 10_000;
const MIGRATIONS = join(import.meta.dirname, "../../infra/clickhouse");
const DAY_MS = 86_400_000;

type Row = readonly AnalyticsValue[];
interface Shape {
  readonly table: string;
  readonly columns: string;
  readonly row: (input: { n: number; id: string; customer: string; data: string; at: number }) => Row;
}

/** A number of 64 bits that differs from its neighbours in all of them. */
const hashOf = (n: number): bigint => BigInt.asUintN(64, BigInt(n + 1) * 0x9e37_79b9_7f4a_7c15n);

/** Every rollup row has a key of its own: the engine would make one row of two with equal keys. */
const KEYS_PER_WINDOW = 50;
const windowOf = (n: number): number => 900 * (2_000_000 + Math.floor(n / KEYS_PER_WINDOW));

const SHAPES: readonly Shape[] = [
  {
    table: "raw_events",
    columns:
      "stream logPartition logOffset mode customer source id type occurredAt receivedAt bookedAt decidedAt status reason payloadHash payload",
    row: ({ n, id, customer, data, at }) => [
      1,
      n % 16,
      n,
      "live",
      customer,
      "bench",
      id,
      "llm.request",
      at,
      at + 5,
      at + 9,
      0,
      "counted",
      "",
      hashOf(n),
      data,
    ],
  },
  {
    table: "identities",
    columns: "stream logPartition fpHigh fpLow logOffset bookedAt payloadCheck",
    row: ({ n, at }) => [1, n % 16, hashOf(n), n % 2 ** 32, n, Math.floor(at / 1_000), n % 65_521],
  },
  {
    table: "rollup",
    columns:
      "mode customer meter meterVersion windowStart dims stream logPartition lane bookedStart ver counted voided sumQty minQty maxQty lastQty lastAt lastOffset",
    row: ({ n, customer, at }) => [
      "live",
      customer,
      n % 2 === 0 ? "input_tokens" : "output_tokens",
      1,
      windowOf(n),
      [`model-${n % KEYS_PER_WINDOW}`],
      1,
      n % 16,
      0,
      Math.floor(at / 900_000) * 900,
      n,
      17,
      0,
      `${n * 31}`,
      "1",
      `${n % 4_000}.5`,
      `${n % 977}`,
      at,
      n,
    ],
  },
];

const options = benchOptions({ events: 200_000, seconds: 600 });
const figures: Record<string, string | number> = { bench: "insert", rowsPerInsert: ROWS_PER_INSERT };
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-"));
try {
  const embedded = await openClickHouse({ path: join(folder, "embedded") });
  await measure("embedded", embedded, () => 0);
  const server = await startClickHouse({ folder: join(folder, "front") });
  try {
    await measure("http", await openClickHouse({ url: server.url }), () => cpuOf(server.pid));
  } finally {
    await server.stop();
  }
  printFigures({ ...figures, seed: options.seed, rows: options.events, cores: cpus().length });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** `engineCpu`: microseconds of an engine that is not in this process. */
async function measure(road: string, opened: OpenedClickHouse, engineCpu: () => number): Promise<void> {
  const { store } = opened;
  await migrateClickHouse(store, MIGRATIONS);
  for (const { table, columns: names, row } of SHAPES) {
    const columns = names.split(" ");
    await store.execute(`SYSTEM STOP MERGES ${table}`);
    const all = rowsOf(row);
    const inserts = Math.ceil(options.events / ROWS_PER_INSERT);
    for (let warm = 0; warm < WARM_INSERTS; warm += 1)
      await store.insert({ table, columns, rows: all.slice(0, ROWS_PER_INSERT) });
    await store.execute(`TRUNCATE TABLE ${table}`);
    const [engineBefore, before, startedAt] = [engineCpu(), process.cpuUsage(), performance.now()];
    for (let n = 0; n < inserts; n += 1)
      await store.insert({ table, columns, rows: all.slice(n * ROWS_PER_INSERT, (n + 1) * ROWS_PER_INSERT) });
    const { user, system } = process.cpuUsage(before);
    const seconds = (performance.now() - startedAt) / 1_000;
    const engine = engineCpu() - engineBefore;
    await prove({ opened, table, rows: all.length });
    figures[`${road} ${table} µs`] = Number(((user + system + engine) / all.length).toFixed(2));
    if (engine > 0) figures[`${road} ${table} µs of the engine`] = Number((engine / all.length).toFixed(2));
    figures[`${road} ${table} rowsPerSecond`] = Math.round(all.length / seconds);
  }
  await opened.close();
}

function rowsOf(row: Shape["row"]): Row[] {
  const rows: Row[] = [];
  // A day ahead, so that no TTL meets them; ten seconds for each thousand.
  const from = Date.now() + DAY_MS;
  for (const { id, customer, text } of usageStream({ seed: options.seed, nowAt: from })) {
    const n = rows.length;
    if (n === options.events) break;
    rows.push(row({ n, id, customer, data: text.slice(text.indexOf('{"input'), -1), at: from + n * 10 }));
  }
  return rows;
}

async function prove(input: { opened: OpenedClickHouse; table: string; rows: number }): Promise<void> {
  const { opened, table, rows } = input;
  const offset = table === "rollup" ? "lastOffset" : "logOffset";
  const [found] = await opened.store.select<{ rows: string; sum: string }>(
    `SELECT toString(count()) AS rows, toString(sum(${offset})) AS sum FROM ${table}`,
  );
  if (found?.rows !== String(rows) || found.sum !== String((rows * (rows - 1)) / 2))
    throw new Error(`not proven: ${JSON.stringify(found)} of ${rows} rows in ${table}`);
}

function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * TICK_MICROSECONDS;
}
