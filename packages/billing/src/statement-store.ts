/** Reads statements. Only services/reporter writes them. */
import { assert, type Mode, type SqlRunner } from "@tallyhouse/domain";
import { statementDigest, type StatementDocument } from "./statement.ts";

/** A statement as it is kept. */
export interface StoredStatement {
  readonly document: StatementDocument;
  /** The canonical text of the document, of which `digest` is the SHA-256. */
  readonly text: string;
  readonly digest: string;
  readonly sealedAt: number;
}

/** Where a list of statements goes on. */
export interface StatementCursor {
  readonly periodStartAt: number;
  readonly seq: number;
}

interface StatementRow {
  readonly body: string;
  readonly digest: string;
  readonly sealed_at: Date;
}

const COLUMNS = "body::text AS body, digest, sealed_at";

/** One statement of the mode; null when it has none of this id. */
export async function readStatement(
  control: SqlRunner,
  of: { readonly mode: Mode; readonly id: string },
): Promise<StoredStatement | null> {
  const [row] = await control.query<StatementRow>(`SELECT ${COLUMNS} FROM statement WHERE id = $1 AND mode = $2`, [
    of.id,
    of.mode,
  ]);
  return row === undefined ? null : storedOf(row);
}

/** All statements of the period that begins there: the statement, then its adjustments. */
export async function readStatementsOfPeriod(
  control: SqlRunner,
  of: { readonly mode: Mode; readonly customer: string; readonly periodStartAt: number },
): Promise<readonly StoredStatement[]> {
  const rows = await control.query<StatementRow>(
    `SELECT ${COLUMNS} FROM statement
     WHERE mode = $1 AND customer_id = $2 AND period_start = $3::timestamptz ORDER BY seq`,
    [of.mode, of.customer, new Date(of.periodStartAt).toISOString()],
  );
  return rows.map(storedOf);
}

/** A customer's statements: the newest period first, within it the statement and then its adjustments; a page after `after`. */
export async function listStatements(
  control: SqlRunner,
  of: {
    readonly mode: Mode;
    readonly customer: string;
    readonly after: StatementCursor | null;
    readonly limit: number;
  },
): Promise<readonly StoredStatement[]> {
  const { after } = of;
  const rows = await control.query<StatementRow>(
    `SELECT ${COLUMNS} FROM statement
     WHERE mode = $1 AND customer_id = $2
       AND (period_start < $3::timestamptz OR (period_start = $3::timestamptz AND seq > $4::int))
     ORDER BY period_start DESC, seq LIMIT $5::int`,
    [
      of.mode,
      of.customer,
      after === null ? "infinity" : new Date(after.periodStartAt).toISOString(),
      after?.seq ?? 0,
      of.limit,
    ],
  );
  return rows.map(storedOf);
}

function storedOf({ body, digest, sealed_at: sealedAt }: StatementRow): StoredStatement {
  // A row that was changed behind our back is never shown as a bill.
  assert(statementDigest(body) === digest, "a stored statement has the digest of its text");
  return { document: JSON.parse(body) as StatementDocument, text: body, digest, sealedAt: sealedAt.getTime() };
}
