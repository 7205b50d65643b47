/**
 * `npm run bench:explain -- --events N --customers N --seed S`: how long it takes to explain a statement of the largest customer, who has
 * a tenth of all usage events of a month. The month is stored by SQL (stored-usage.ts); the statement is counted and sealed as the
 * reporter does, then asked for through the console's HTTP application: lines, windows, usage events, the export, which is written
 * to a file and handed to tools/verify-statement.py. The last line is one JSON object with every figure.
 */
import { spawnSync } from "node:child_process";
import { createWriteStream, mkdtempSync, rmSync, statSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import {
  buildStatement,
  countPeriod,
  statementDigest,
  type StatementDocument,
  statementText,
} from "@tallyhouse/billing";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { buildConsole, ConsoleConfigSchema } from "@tallyhouse/console";
import { type AnalyticsStore, assert, type ControlStore, DAY_MS, floorTo, HOUR_MS } from "@tallyhouse/domain";
import { migratePostgres, openPglite } from "@tallyhouse/postgres";
import type { RatedPlan } from "@tallyhouse/pricing";
import { createLogger, createMetrics, systemClock } from "@tallyhouse/runtime";
import { MemoryLog } from "@tallyhouse/testkit";
import { readDefinitions, readVersionVector, readWatermark } from "@tallyhouse/usage";
import { numberOptions } from "./month-options.ts";
import { printFigures, quantile } from "./options.ts";
import { LARGEST_CUSTOMER, MONTH_DAYS, MONTH_STREAM, storeActivations, storeDay } from "./stored-usage.ts";

const INFRA = fileURLToPath(new URL("../../infra", import.meta.url));
const VERIFIER = fileURLToPath(new URL("../../tools/verify-statement.py", import.meta.url));
const TOKEN = "svc_live_th_benchbenchbenchbench";
const HEADERS = { authorization: `Bearer ${TOKEN}` };
const ASKS = 20;
const MINUTE_MS = 60_000;

const options = numberOptions({ events: 1_000_000, customers: 1_000, seed: 1 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-explain-"));
try {
  await run();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function run(): Promise<void> {
  const clickhouse = await openClickHouse({ path: join(folder, "clickhouse") });
  const postgres = await openPglite({ path: join(folder, "postgres") });
  const analytics = clickhouse.store;
  await migrateClickHouse(analytics, join(INFRA, "clickhouse"));
  await migratePostgres(postgres.store, join(INFRA, "postgres"));
  // A day in the past: its last usage event is what the watermark stands at.
  const fromAt = floorTo(systemClock.now(), DAY_MS) - MONTH_DAYS * DAY_MS;
  const month = { ...options, fromAt };
  const offsets = await storeActivations(analytics, month);
  let stored = 0;
  for (let day = 0; day < MONTH_DAYS; day += 1) stored += await storeDay(analytics, { month, day, offsets });
  say(`${stored} usage events stored`);
  const sealing = await timed(() => seal(analytics, postgres.store, fromAt));
  const document = sealing.result;
  const events = document.totals.reduce((sum, total) => sum + total.events, 0);
  say(`sealed ${document.id} over ${events} counted values in ${sealing.seconds} s`);
  const { app } = await openConsole(analytics, postgres.store);
  const url = await app.listen({ host: "127.0.0.1", port: 0 });
  const figures = await askAll(url, document);
  const file = join(folder, "export.jsonl");
  const exporting = await timed(() => download(`${url}/v1/invoices/${document.id}/export`, file));
  const verifying = await timed(async () => verify(file, statementDigest(statementText(document))));
  say(verifying.result);
  await app.close();
  await postgres.close();
  await clickhouse.close();
  printFigures({
    bench: "explain",
    ...options,
    stored,
    customerValues: events,
    sealSeconds: sealing.seconds,
    ...figures,
    exportSeconds: exporting.seconds,
    exportMegabytes: Math.round(statSync(file).size / 1_000_000),
    verifySeconds: verifying.seconds,
    peakRssMegabytes: Math.round(process.resourceUsage().maxRSS / 1_000),
    cores: cpus().length,
  });
}

function planOf(): RatedPlan {
  const price = { model: "per_unit", unit: "0.00001" } as const;
  const item = (key: string, meter: string, models: readonly string[]) => ({
    key,
    meter,
    meterVersion: 1,
    where: models.length === 0 ? {} : { model: models },
    included: null,
    price,
  });
  return {
    plan: "bench@1",
    currency: "usd",
    fee: "49",
    items: [
      item("input_large", "input_tokens", ["large"]),
      item("input_small", "input_tokens", ["small"]),
      item("output", "output_tokens", []),
    ],
  };
}

/** As the reporter seals: counted twice, with digests, from a period that cuts windows on both sides. */
async function seal(analytics: AnalyticsStore, control: ControlStore, fromAt: number): Promise<StatementDocument> {
  const period = { startAt: fromAt + 7 * MINUTE_MS, endAt: fromAt + 28 * DAY_MS - HOUR_MS - 8 * MINUTE_MS };
  const cutAt = fromAt + 28 * DAY_MS;
  const watermarkAt = await readWatermark(analytics, MONTH_STREAM);
  assert(watermarkAt !== null && watermarkAt >= cutAt, "the month is stored");
  const definitions = await readDefinitions(analytics, MONTH_STREAM, { mode: "live" });
  const question = { mode: "live", customer: LARGEST_CUSTOMER, period, cutAt, plan: planOf() } as const;
  const count = await countPeriod(analytics, { watermarkAt, definitions }, question);
  assert(count.kind === "counted", `a counted period: ${count.kind}`);
  const document = buildStatement({
    ...question,
    ...count,
    // No month: the bench's own calendar.
    period: { ...period, anchorAt: period.startAt, interval: "month", isCutShort: true },
    closing: { latenessSeconds: 3_600, bookingWindowSeconds: MONTH_STREAM.bookingWindowSeconds },
    versionVector: {
      stream: MONTH_STREAM.streamId,
      offsets: await readVersionVector(analytics, MONTH_STREAM, cutAt),
    },
  });
  const text = statementText(document);
  await control.query(
    `INSERT INTO statement (id, mode, customer_id, seq, period_start, period_end, plan_key, plan_version, currency, cut_at, total, body,
       digest, sealed_at)
     VALUES ($1, 'live', $2, 0, $3::timestamptz, $4::timestamptz, 'bench', 1, 'usd', $5::timestamptz, $6::text::numeric, $7::text::json, $8,
       $5::timestamptz)`,
    [
      document.id,
      document.customer,
      document.period.start,
      document.period.end,
      document.cut,
      document.total,
      text,
      statementDigest(text),
    ],
  );
  return document;
}

async function openConsole(analytics: AnalyticsStore, control: ControlStore) {
  return buildConsole(
    {
      ...ConsoleConfigSchema.parse({}),
      stream: MONTH_STREAM,
      controlKey: { name: "bench", secret: Buffer.from(TOKEN) },
    },
    {
      analytics,
      control,
      log: new MemoryLog({ partitionCount: MONTH_STREAM.partitionCount, clock: systemClock }),
      authenticator: { verify: (token) => Promise.resolve(token === TOKEN ? { mode: "live" } : null) },
      clock: systemClock,
      logger: createLogger({ level: "error", name: "bench" }),
      metrics: createMetrics(),
    },
  );
}

/** Every question of every line, turn by turn. */
async function askAll(url: string, { id, plan }: StatementDocument): Promise<Record<string, number>> {
  const base = `${url}/v1/invoices/${id}/explain`;
  const get = async (query: string) => {
    const answer = await fetch(`${base}?${query}`, { headers: HEADERS });
    const body = (await answer.json()) as { data?: { start?: string }[]; next?: string | null; lines?: object[] };
    assert(answer.status === 200 && (body.data ?? body.lines ?? []).length > 0, `an explanation: ${answer.status}`);
    return body;
  };
  const lines = plan.items.map(({ key }) => key);
  const starts = new Map<string, string>();
  const cursors = new Map<string, string>();
  const questions: Record<string, (line: string) => Promise<unknown>> = {
    statement: () => get(""),
    windows: async (line) => {
      const { data = [] } = await get(`line=${line}`);
      starts.set(line, data[Math.floor(data.length / 2)]?.start ?? "");
    },
    windowEvents: (line) => get(`line=${line}&window=${starts.get(line) ?? ""}`),
    firstEvents: async (line) => {
      cursors.set(line, (await get(`line=${line}&window=all`)).next ?? "");
    },
    nextEvents: (line) => get(`line=${line}&window=all&cursor=${cursors.get(line) ?? ""}`),
  };
  const figures: Record<string, number> = {};
  for (const [name, ask] of Object.entries(questions)) {
    const allMs: number[] = [];
    for (let turn = 0; turn < ASKS; turn += 1)
      allMs.push((await timed(() => ask(lines[turn % lines.length] ?? ""))).seconds * 1_000);
    allMs.sort((a, b) => a - b);
    figures[`${name}P50Ms`] = Math.round(quantile(allMs, 0.5));
    figures[`${name}MaxMs`] = Math.round(allMs.at(-1) ?? 0);
    say(`${name}: ${figures[`${name}P50Ms`]} ms, at most ${figures[`${name}MaxMs`]} ms`);
  }
  return figures;
}

async function download(from: string, file: string): Promise<void> {
  const answer = await fetch(from, { headers: HEADERS });
  assert(answer.status === 200 && answer.body !== null, `an export: ${answer.status}`);
  await pipeline(Readable.fromWeb(answer.body), createWriteStream(file));
}

function verify(file: string, digest: string): string {
  const { status, stdout, stderr } = spawnSync("python3", [VERIFIER, file, "--digest", digest], { encoding: "utf8" });
  assert(status === 0, `the verifier refuses: ${stdout}${stderr}`);
  return stdout.trim();
}

async function timed<Result>(
  run: () => Promise<Result>,
): Promise<{ readonly result: Result; readonly seconds: number }> {
  const startedAt = performance.now();
  const result = await run();
  return { result, seconds: Number(((performance.now() - startedAt) / 1_000).toFixed(3)) };
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
