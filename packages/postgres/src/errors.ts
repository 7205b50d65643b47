import { type ErrorAction, TallyhouseError } from "@tallyhouse/domain";

/**
 * Classes of SQLSTATE that say nothing about the statement: connection, transaction rollback (serialization,
 * deadlock), resources, operator intervention, system error.
 * @see https://www.postgresql.org/docs/18/errcodes-appendix.html (read 2026-11)
 */
const OUTAGE_CLASSES = new Set(["08", "40", "53", "57", "58"]);

/** Whether trying the same again may help. A constraint or a syntax error never heals. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as Error & { code?: unknown };
  return typeof code === "string" && code.length === 5 && OUTAGE_CLASSES.has(code.slice(0, 2));
}

/** An outage of the control store. PostgreSQL's text may hold values, so it stays in `cause`. */
export function storeUnavailable(what: string, cause?: unknown, action: ErrorAction = "retry"): TallyhouseError {
  return new TallyhouseError({
    code: "STORE_UNAVAILABLE",
    action,
    message: `the control store could not ${what}`,
    cause,
  });
}
