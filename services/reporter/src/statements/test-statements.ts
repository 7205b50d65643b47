/** Customers, plans and statements of a test, in the real stores; usage comes from a log folded as the aggregator does. */
import { type StatementDocument, statementText } from "@tallyhouse/billing";
import { assert, type ControlStore, type Mode } from "@tallyhouse/domain";
import { parsePlansFile, planDigest } from "@tallyhouse/plans";
import { createLogger, createMetrics, type Registry } from "@tallyhouse/runtime";
import type { SealedStream } from "@tallyhouse/usage";
import type { ManualClock } from "../test-support.ts";
import type { Stores } from "../test-support/ports.ts";
import { buildStatements, type Statements } from "./statements.ts";

export const STREAM: SealedStream = { streamId: 1, partitionCount: 2, bookingWindowSeconds: 900 };

export function startStatements(
  ports: Pick<Stores, "analytics" | "control"> & { readonly clock: ManualClock; readonly metrics?: Registry },
): Statements {
  return buildStatements(
    { CLOSE_LATENESS_SECONDS: 3_600, RERATE_INTERVAL_SECONDS: 86_400, REPORT_INTERVAL_MS: 60_000, stream: STREAM },
    { logger: createLogger({ level: "silent", name: "test" }), metrics: createMetrics(), ...ports },
  );
}

/** Stores the plans of a file as their next versions. */
export async function applyPlans(
  control: ControlStore,
  input: { file: string; meterVersions: Readonly<Record<string, number>>; at: number; mode?: Mode },
): Promise<void> {
  const { at, file, meterVersions, mode = "live" } = input;
  const reading = parsePlansFile(`schema: tallyhouse.plans/1\n${file}`);
  assert(reading.kind === "plans", JSON.stringify(reading));
  for (const plan of reading.file.plans) {
    await control.query(
      `INSERT INTO catalogue_version (mode, kind, key, version, digest, body, created_at, created_by)
       SELECT $1, 'plan', $2, 1 + count(*)::int, $3, $4::text::json, $5::timestamptz, 'test'
       FROM catalogue_version WHERE mode = $1 AND kind = 'plan' AND key = $2`,
      [
        mode,
        plan.key,
        planDigest(plan, meterVersions),
        JSON.stringify({ plan, meterVersions }),
        new Date(at).toISOString(),
      ],
    );
  }
}

/** A customer on a plan from an instant on. */
export async function assign(
  control: ControlStore,
  input: { customer: string; plan: string; fromAt: number; mode?: Mode },
): Promise<void> {
  const { customer, fromAt, mode = "live", plan } = input;
  const at = new Date(fromAt).toISOString();
  await control.query(
    `INSERT INTO customer (mode, customer_id, name, zone, created_at, created_by)
     VALUES ($1, $2, $2, 'UTC', $3::timestamptz, 'test') ON CONFLICT DO NOTHING`,
    [mode, customer, at],
  );
  await control.query(
    `INSERT INTO customer_assignment (mode, customer_id, effective_at, plan_key, anchor_at, decided_at, actor, reason)
     VALUES ($1, $2, $3::timestamptz, $4, $3::timestamptz, $3::timestamptz, 'test', 'test')`,
    [mode, customer, at, plan],
  );
}

/** An operator's request, as the console writes it. */
export async function ask(
  control: ControlStore,
  input: {
    statement: string;
    plan?: { key: string; version: number };
    meterVersions?: Readonly<Record<string, number>>;
  },
): Promise<void> {
  await control.query(
    `INSERT INTO rerate (statement_id, plan_key, plan_version, meter_versions, reason, actor, created_at)
     VALUES ($1, $2, $3::int, $4::text::json, 'the price was wrong', 'ops', now())`,
    [
      input.statement,
      input.plan?.key ?? null,
      input.plan?.version ?? null,
      input.meterVersions === undefined ? null : JSON.stringify(input.meterVersions),
    ],
  );
}

/** Every statement, by customer, period and number; each checked to be the canonical text of itself. */
export async function statementsOf(control: ControlStore): Promise<StatementDocument[]> {
  const rows = await control.query<{ body: string }>(
    `SELECT body::text AS body FROM statement ORDER BY customer_id, period_start, seq`,
  );
  return rows.map(({ body }) => {
    const document = JSON.parse(body) as StatementDocument;
    assert(statementText(document) === body, "the stored text is canonical");
    return document;
  });
}

/** Empties what statements come from and go to; the log's tables stay. */
export async function resetStatements({ analytics, control }: Stores): Promise<void> {
  await control.execute(
    "TRUNCATE rerate, statement, statement_look, catalogue_version, customer_assignment, customer_contract, customer CASCADE",
  );
  await analytics.execute("TRUNCATE TABLE rated_line");
}
