/** The log of what operators changed: who, when, what before and after, why. */
import { formatInstant, type Mode, type SqlRunner } from "@tallyhouse/domain";

/** What was changed: a customer with its assignments and contracts, or what is sold. */
export interface AuditSubject {
  readonly kind: "customer" | "plan" | "endpoints" | "bundle";
  readonly id: string;
}

/** One change. `before` is null for what is new, `after` for what is gone; both hold what is needed to read the change alone. */
export interface AuditedChange {
  readonly mode: Mode;
  readonly at: number;
  readonly actor: string;
  /** Verb of the subject, such as `customer.create`. */
  readonly action: string;
  readonly subject: AuditSubject;
  readonly before: unknown;
  readonly after: unknown;
  readonly reason: string;
}

/**
 * Writes one row in the transaction of the change itself: written before, a crash would leave the record of something that never
 * was; written after, a change without a record.
 */
export async function writeAudit(tx: SqlRunner, change: AuditedChange): Promise<void> {
  const { mode, at, actor, action, subject, before, after, reason } = change;
  await tx.query(
    `INSERT INTO admin_audit (at, mode, actor, action, subject_kind, subject_id, before, after, reason)
     VALUES ($1, $2, $3, $4, $5, $6, $7::text::json, $8::text::json, $9)`,
    [new Date(at), mode, actor, action, subject.kind, subject.id, jsonOf(before), jsonOf(after), reason],
  );
}

function jsonOf(value: unknown): string | null {
  return value === null || value === undefined ? null : JSON.stringify(value);
}

/** One row as the API shows it. */
export interface ShownChange {
  readonly id: number;
  readonly at: string;
  readonly actor: string;
  readonly action: string;
  readonly subject: AuditSubject;
  readonly before: unknown;
  readonly after: unknown;
  readonly reason: string;
}

/** Rows of a mode, newest first: of one subject or of all; only ids below `before`. */
export async function listAudit(
  control: SqlRunner,
  query: {
    readonly mode: Mode;
    readonly subject: AuditSubject | null;
    readonly before: number | null;
    readonly limit: number;
  },
): Promise<ShownChange[]> {
  const { mode, subject, before, limit } = query;
  const rows = await control.query<{
    id: string;
    at: Date;
    actor: string;
    action: string;
    subject_kind: AuditSubject["kind"];
    subject_id: string;
    before: unknown;
    after: unknown;
    reason: string;
  }>(
    `SELECT id, at, actor, action, subject_kind, subject_id, before, after, reason FROM admin_audit
     WHERE mode = $1 AND ($2::text IS NULL OR (subject_kind = $2 AND subject_id = $3)) AND ($4::bigint IS NULL OR id < $4)
     ORDER BY id DESC LIMIT $5::int`,
    [mode, subject?.kind ?? null, subject?.id ?? null, before, limit],
  );
  return rows.map(({ subject_kind: kind, subject_id: id, at, ...row }) => ({
    ...row,
    id: Number(row.id),
    at: formatInstant(at.getTime()),
    subject: { kind, id },
  }));
}
