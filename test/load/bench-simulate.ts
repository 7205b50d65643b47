/**
 * `npm run bench:simulate -- --events N --customers N --seed S --odd PERCENT`: how long a what-if over a month takes. The month is
 * stored by SQL (stored-usage.ts) in embedded stores; every customer has a plan of four priced items, `--odd` percent of them from an
 * odd second on, so that their edges are read from raw usage events. The last line is one JSON object with every figure.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BillingPorts, simulate, type SimulationQuestion, type Trial } from "@tallyhouse/billing";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import { assert, type ControlStore, DAY_MS, floorTo } from "@tallyhouse/domain";
import { parsePlansFile } from "@tallyhouse/plans";
import { migratePostgres, openPglite } from "@tallyhouse/postgres";
import { systemClock } from "@tallyhouse/runtime";
import { numberOptions } from "./month-options.ts";
import { printFigures, rounded } from "./options.ts";
import { customerName, MONTH_DAYS, MONTH_METERS, MONTH_STREAM, storeActivations, storeDay } from "./stored-usage.ts";

const INFRA = fileURLToPath(new URL("../../infra", import.meta.url));
const RUNS = 2;
const fileOf = (fee: string, unit: string): string => `schema: tallyhouse.plans/1
defaults: {currency: usd}
plans:
  pro:
    price: "${fee}"
    items:
      input: {meter: input_tokens, included: "1000", policy: overage, price: {model: graduated, tiers: [{upTo: "100000", unit: "${unit}"}, {upTo: inf, unit: "0.00001"}]}}
      output_small: {meter: output_tokens, where: {model: small}, policy: overage, price: {model: per_unit, unit: "0.00005"}}
      output_large: {meter: output_tokens, where: {model: large}, policy: overage, price: {model: package, size: "1000", price: "0.09"}}
`;

function planOf(fee: string, unit: string): { body: string; trial: Trial } {
  const reading = parsePlansFile(fileOf(fee, unit));
  assert(reading.kind === "plans", `a good file: ${JSON.stringify(reading)}`);
  const [plan] = reading.file.plans;
  assert(plan !== undefined, "one plan");
  const meterVersions = Object.fromEntries(MONTH_METERS.map(({ meter, version }) => [meter, version]));
  const trial = { plans: new Map([[plan.key, { plan, meterVersions }]]), moves: new Map<string, string>() };
  return { body: JSON.stringify({ plan, meterVersions }), trial };
}

/** One plan, and every customer on it from the start of the month; `odd` percent of them 34 minutes and 56 seconds later. */
async function storeCustomers(
  control: ControlStore,
  { customers, odd, fromAt }: { readonly customers: number; readonly odd: number; readonly fromAt: number },
): Promise<void> {
  const at = new Date(fromAt).toISOString();
  await control.query(
    `INSERT INTO catalogue_version (mode, kind, key, version, digest, body, created_at, created_by)
     VALUES ('live', 'plan', 'pro', 1, repeat('0', 64), $1::json, $2::timestamptz, 'bench')`,
    [planOf("49", "0.00002").body, at],
  );
  const names = Array.from({ length: customers }, (_, n) => customerName(n));
  await control.query(
    `INSERT INTO customer (mode, customer_id, name, zone, created_at, created_by)
     SELECT 'live', id, id, 'UTC', $2::timestamptz, 'bench' FROM unnest($1::text[]) AS id`,
    [names, at],
  );
  await control.query(
    `INSERT INTO customer_assignment (mode, customer_id, plan_key, effective_at, anchor_at, decided_at, actor, reason)
     SELECT 'live', id, 'pro', begins, begins, $2::timestamptz, 'bench', 'bench' FROM (
       SELECT id, $2::timestamptz + CASE WHEN n % 100 < $3::integer THEN interval '34 minutes 56 seconds' ELSE interval '0' END AS begins
       FROM unnest($1::text[]) WITH ORDINALITY AS named (id, n)) AS assigned`,
    [names, at, odd],
  );
}

/** One what-if, with a digest of all its lines. */
async function measure(ports: BillingPorts, question: SimulationQuestion) {
  const [startedAt, before] = [performance.now(), process.cpuUsage()];
  const digest = createHash("sha256");
  let customers = 0;
  for await (const line of simulate(ports, question)) {
    digest.update(JSON.stringify(line));
    if (line.kind === "customers") customers += line.customers.length;
    assert(line.kind !== "skipped", "every period is read");
  }
  const used = process.cpuUsage(before);
  const figures = {
    seconds: rounded((performance.now() - startedAt) / 1_000, 2),
    cpuSeconds: rounded((used.user + used.system) / 1_000_000, 2),
    digest: digest.digest("hex"),
    customers,
  };
  process.stderr.write(`${JSON.stringify(figures)}\n`);
  return figures;
}

const options = numberOptions({ events: 1_000_000, customers: 10_000, seed: 1, odd: 10 });
const folder = mkdtempSync(join(tmpdir(), "tallyhouse-bench-simulate-"));
try {
  const clickhouse = await openClickHouse({ path: join(folder, "clickhouse") });
  const postgres = await openPglite({ path: join(folder, "postgres") });
  try {
    await migrateClickHouse(clickhouse.store, join(INFRA, "clickhouse"));
    await migratePostgres(postgres.store, join(INFRA, "postgres"));
    const month = { ...options, fromAt: floorTo(systemClock.now(), DAY_MS) - MONTH_DAYS * DAY_MS };
    const offsets = await storeActivations(clickhouse.store, month);
    let events = 0;
    for (let day = 0; day < MONTH_DAYS; day += 1) events += await storeDay(clickhouse.store, { month, day, offsets });
    await storeCustomers(postgres.store, { ...options, fromAt: month.fromAt });
    process.stderr.write(`${events} usage events of ${options.customers} customers are stored\n`);
    const ports = { analytics: clickhouse.store, control: postgres.store, stream: MONTH_STREAM };
    const { trial } = planOf("39", "0.00004");
    const question = { mode: "live", fromAt: month.fromAt, toAt: month.fromAt + DAY_MS, trial } as const;
    const runs = [];
    for (let run = 0; run < RUNS; run += 1) runs.push(await measure(ports, question));
    const [first, again] = runs;
    assert(first !== undefined && first.digest === again?.digest, "two runs give equal bytes");
    assert(first.customers === options.customers, "every customer is rated");
    printFigures({
      bench: "simulate",
      ...options,
      events,
      seconds: first.seconds,
      cpuSeconds: first.cpuSeconds,
      againSeconds: again.seconds,
      againCpuSeconds: again.cpuSeconds,
      peakRssMegabytes: Math.round(process.resourceUsage().maxRSS / 1_000),
      cores: cpus().length,
    });
  } finally {
    await postgres.close();
    await clickhouse.close();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
