/** The results of audits in PostgreSQL. */
import type { ControlStore } from "@tallyhouse/domain";
import type { AuditCheck, AuditReport, CheckResult } from "./run-audit.ts";

/** One audit as stored. */
export interface AuditRow {
  readonly id: string;
  readonly state: "running" | "clean" | "differs" | "failed";
  /** Whether it is a daily one. */
  readonly isScheduled: boolean;
  readonly wanted: readonly AuditCheck[];
  readonly startedAt: Date;
  readonly finishedAt: Date | null;
  readonly cut: Readonly<Record<string, number>> | null;
  readonly checks: readonly CheckResult[] | null;
  readonly failure: string | null;
}

const COLUMNS = `id, state, scheduled_for IS NOT NULL AS "isScheduled", wanted, started_at AS "startedAt",
  finished_at AS "finishedAt", cut, checks, failure`;

/** A daily audit that is not finished by then was lost with its console, or cannot end: it is begun again. */
const TAKEOVER_MS = 6 * 3_600_000;
/** One that failed is tried again after a rest: a store was away, or the console was stopped. */
const RETRY_MS = 600_000;
const LISTED_MAX = 20;

/** Begins an audit that was asked for. */
export async function insertAudit(control: ControlStore, wanted: readonly AuditCheck[], at: number): Promise<AuditRow> {
  const [row] = await control.query<AuditRow>(
    `INSERT INTO audit (wanted, state, started_at) VALUES ($1, 'running', $2) RETURNING ${COLUMNS}`,
    [JSON.stringify(wanted), new Date(at)],
  );
  if (row === undefined) throw new Error("an insert returns its row");
  return row;
}

/** Claims the daily audit of a UTC day: null when another console has it, or it is done. A failed one is tried again. */
export async function claimAudit(
  control: ControlStore,
  input: { readonly day: string; readonly wanted: readonly AuditCheck[]; readonly at: number },
): Promise<AuditRow | null> {
  const [row] = await control.query<AuditRow>(
    `INSERT INTO audit (scheduled_for, wanted, state, started_at) VALUES ($1, $2, 'running', $3)
     ON CONFLICT (scheduled_for) DO UPDATE SET state = 'running', started_at = $3, finished_at = NULL, failure = NULL
       WHERE (audit.state = 'running' AND audit.started_at < $4) OR (audit.state = 'failed' AND audit.started_at < $5)
     RETURNING ${COLUMNS}`,
    [
      input.day,
      JSON.stringify(input.wanted),
      new Date(input.at),
      new Date(input.at - TAKEOVER_MS),
      new Date(input.at - RETRY_MS),
    ],
  );
  return row ?? null;
}

/** Ends an audit with its report, or with the reason why there is none. Does nothing when another console took it over. */
export async function finishAudit(
  control: ControlStore,
  row: Pick<AuditRow, "id" | "startedAt">,
  result: { readonly at: number; readonly report: AuditReport } | { readonly at: number; readonly failure: string },
): Promise<void> {
  const report = "report" in result ? result.report : null;
  const failure = "failure" in result ? result.failure : null;
  const state = report === null ? "failed" : report.isClean ? "clean" : "differs";
  await control.query(
    `UPDATE audit SET state = $3, finished_at = $4, cut = $5, checks = $6, failure = $7
     WHERE id = $1 AND started_at = $2`,
    [
      row.id,
      row.startedAt,
      state,
      new Date(result.at),
      report === null ? null : JSON.stringify(report.cut),
      report === null ? null : JSON.stringify(report.checks),
      failure,
    ],
  );
}

/** The newest audits, newest first. */
export function listAudits(control: ControlStore): Promise<AuditRow[]> {
  return control.query<AuditRow>(`SELECT ${COLUMNS} FROM audit ORDER BY id DESC LIMIT ${LISTED_MAX}`);
}
