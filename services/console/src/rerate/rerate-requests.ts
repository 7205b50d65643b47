/** Requests to rate a closed period anew, as rows that the reporter carries out. */
import { planNameOf, readPlanVersions, type StatementDocument } from "@tallyhouse/billing";
import { type ControlStore, formatInstant, type Mode, type SqlRunner } from "@tallyhouse/domain";
import { writeAudit } from "../admin-audit.ts";
import type { FieldProblem, Problem } from "../problem.ts";
import type { RerateBody } from "./rerate-bodies.ts";

/** A request as the API shows it. */
export interface ShownRerate {
  readonly id: number;
  /** The period's statement. */
  readonly statement: string;
  /** `unchanged`: no quantity and no amount differs, so there is no adjustment. */
  readonly state: "waiting" | "adjusted" | "unchanged" | "refused";
  readonly plan: string | null;
  readonly meterVersions: Readonly<Record<string, number>> | null;
  readonly reason: string | null;
  readonly actor: string | null;
  readonly createdAt: string;
  readonly adjustment: string | null;
  readonly refusal: string | null;
}

interface RerateRow {
  readonly id: string;
  readonly statement_id: string;
  readonly plan_key: string | null;
  readonly plan_version: number | null;
  readonly meter_versions: Readonly<Record<string, number>> | null;
  readonly reason: string | null;
  readonly actor: string | null;
  readonly created_at: Date;
  readonly done_at: Date | null;
  readonly adjustment_id: string | null;
  readonly refusal: string | null;
}

const COLUMNS =
  "r.id, r.statement_id, r.plan_key, r.plan_version, r.meter_versions, r.reason, r.actor, r.created_at, r.done_at, r.adjustment_id, r.refusal";

function shown(row: RerateRow): ShownRerate {
  return {
    id: Number(row.id),
    statement: row.statement_id,
    state: stateOf(row),
    plan: row.plan_key === null ? null : `${row.plan_key}@${row.plan_version}`,
    meterVersions: row.meter_versions,
    reason: row.reason,
    actor: row.actor,
    createdAt: formatInstant(row.created_at.getTime()),
    adjustment: row.adjustment_id,
    refusal: row.refusal,
  };
}

function stateOf(row: RerateRow): ShownRerate["state"] {
  if (row.done_at === null) return "waiting";
  if (row.refusal !== null) return "refused";
  return row.adjustment_id === null ? "unchanged" : "adjusted";
}

/** One request of the mode; null when there is none. */
export async function readRerate(control: SqlRunner, of: { mode: Mode; id: number }): Promise<ShownRerate | null> {
  const [row] = await control.query<RerateRow>(
    `SELECT ${COLUMNS} FROM rerate AS r JOIN statement AS s ON s.id = r.statement_id WHERE r.id = $1::bigint AND s.mode = $2`,
    [of.id, of.mode],
  );
  return row === undefined ? null : shown(row);
}

/** The request, and whether this call made it; or why not. */
export type RerateOutcome =
  | { readonly kind: "made" | "known"; readonly request: ShownRerate }
  | { readonly kind: "problem"; readonly problem: Problem };

/**
 * Asks for a period to be rated anew. The id is that of the statement or of any of its adjustments. Safe to repeat while it waits: the
 * same request is the one that waits, another one is refused until that is done.
 */
export async function requestRerate(
  control: ControlStore,
  of: { readonly mode: Mode; readonly id: string; readonly body: RerateBody; readonly nowAt: number },
): Promise<RerateOutcome> {
  const { body, id, mode, nowAt } = of;
  // Any other text names none; some, with a NUL, no store would even take.
  if (!/^st_[a-z2-7]{26}$/.test(id)) return { kind: "problem", problem: unknownStatement(id) };
  return control.transaction(async (tx): Promise<RerateOutcome> => {
    const newest = await newestOfPeriod(tx, { mode, id });
    if (newest === null) return { kind: "problem", problem: unknownStatement(id) };
    const problems = await wrongWords(tx, { mode, body, document: newest.document });
    if (problems.length > 0) return { kind: "problem", problem: invalid(problems) };
    const waiting = await waitingRequest(tx, newest.firstId);
    if (waiting !== null) return sameOrConflict(waiting, body);
    const plan = body.plan === undefined ? null : planNameOf(body.plan);
    const [row] = await tx.query<RerateRow>(
      `INSERT INTO rerate AS r (statement_id, plan_key, plan_version, meter_versions, reason, actor, created_at)
       VALUES ($1, $2, $3::int, $4::text::json, $5, $6, $7::timestamptz) RETURNING ${COLUMNS}`,
      [
        newest.firstId,
        plan?.key ?? null,
        plan?.version ?? null,
        body.meterVersions === undefined ? null : JSON.stringify(body.meterVersions),
        body.reason,
        body.actor,
        new Date(nowAt).toISOString(),
      ],
    );
    if (row === undefined) throw new Error("an insert returns its row");
    const { actor, reason, ...asked } = body;
    const subject = { kind: "customer", id: newest.document.customer } as const;
    const after = { statement: newest.firstId, ...asked };
    await writeAudit(tx, { mode, at: nowAt, actor, action: "statement.rerate", subject, before: null, after, reason });
    return { kind: "made", request: shown(row) };
  });
}

async function newestOfPeriod(
  tx: SqlRunner,
  { id, mode }: { readonly id: string; readonly mode: Mode },
): Promise<{ readonly firstId: string; readonly document: StatementDocument } | null> {
  const rows = await tx.query<{ id: string; body: string }>(
    `SELECT s.id, s.body::text AS body FROM statement AS s JOIN statement AS given USING (mode, customer_id, period_start)
     WHERE given.id = $1 AND given.mode = $2 ORDER BY s.seq`,
    [id, mode],
  );
  const [first, last] = [rows[0], rows.at(-1)];
  if (first === undefined || last === undefined) return null;
  return { firstId: first.id, document: JSON.parse(last.body) as StatementDocument };
}

/** What can be seen before the reporter counts: unknown versions, another currency, meters that the plan does not use. */
async function wrongWords(
  tx: SqlRunner,
  of: { readonly mode: Mode; readonly body: RerateBody; readonly document: StatementDocument },
): Promise<FieldProblem[]> {
  const { body, document, mode } = of;
  const problems: FieldProblem[] = [];
  if (body.plan !== undefined) {
    const { key, version } = planNameOf(body.plan);
    const found = (await readPlanVersions(tx, mode)).find((one) => one.key === key && one.version === version);
    if (found === undefined) problems.push({ field: "/plan", rule: `${body.plan} is no plan version of this mode` });
    else if (found.plan.currency !== document.plan.currency)
      problems.push({
        field: "/plan",
        rule: `is in ${found.plan.currency}, and the statement is in ${document.plan.currency}`,
      });
  }
  for (const [meter, version] of Object.entries(body.meterVersions ?? {})) {
    const rows = await tx.query("SELECT 1 FROM meter_version WHERE mode = $1 AND key = $2 AND version = $3::int", [
      mode,
      meter,
      version,
    ]);
    const field = `/meterVersions/${meter}`;
    if (rows.length === 0) problems.push({ field, rule: `the meter has no version ${version} in this mode` });
    else if (body.plan === undefined && !document.plan.items.some((item) => item.meter === meter))
      problems.push({ field, rule: `no item of ${document.plan.plan} uses the meter` });
  }
  return problems;
}

async function waitingRequest(tx: SqlRunner, statementId: string): Promise<ShownRerate | null> {
  const [row] = await tx.query<RerateRow>(
    `SELECT ${COLUMNS} FROM rerate AS r WHERE statement_id = $1 AND done_at IS NULL AND reason IS NOT NULL`,
    [statementId],
  );
  return row === undefined ? null : shown(row);
}

function sameOrConflict(waiting: ShownRerate, body: RerateBody): RerateOutcome {
  const asked = [body.plan ?? null, body.meterVersions ?? null, body.reason, body.actor];
  if (JSON.stringify(asked) === JSON.stringify([waiting.plan, waiting.meterVersions, waiting.reason, waiting.actor]))
    return { kind: "known", request: waiting };
  const detail = `request ${waiting.id} waits for the same statement: ask again when it is done`;
  return { kind: "problem", problem: { status: 409, code: "RERATE_WAITING", detail } };
}

function unknownStatement(id: string): Problem {
  return { status: 404, code: "STATEMENT_UNKNOWN", detail: `no statement ${id} in this mode` };
}

export function invalid(problems: readonly FieldProblem[]): Problem {
  const detail = problems.map(({ field, rule }) => `${field} ${rule}`).join("; ");
  return { status: 400, code: "RERATE_INVALID", detail, problems };
}
