import { type ErrorAction, TallyhouseError } from "@tallyhouse/domain";

/**
 * Classes of SQLSTATE that say nothing about the statement: connection, transaction rollback (serialization,
 * deadlock), resources, operator intervention, system error.
 * @see https://www.postgresql.org/docs/18/errcodes-appendix.html (read 2026-11)
 */
const OUTAGE_CLASSES = new Set(["08", "40", "53", "57", "58"]);

/** Of the operating system: no way to the server, or a way that broke. `ENOENT` is a socket file that is not there. */
const OUTAGE_ERRNOS = new Set([
  "EAI_AGAIN",
  "ECONNABORTED",
  "ECONNREFUSED",
  "ECONNRESET",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOENT",
  "ENOTFOUND",
  "EPIPE",
  "ETIMEDOUT",
]);

/**
 * What `pg` says without a code: a connection that ended, a time-out, a connection already known to be broken.
 * @see node_modules/pg/lib/client.js and node_modules/pg-pool/index.js, 8.23.1 and 3.14.0 (read 2026-11)
 */
const DRIVER_OUTAGE =
  /^(?:Connection terminated|timeout e|Query read timeout|Client (?:has encountered a connection error|was closed))/;

/** Whether trying the same again may help. A constraint or a syntax error never heals. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as Error & { code?: unknown };
  if (typeof code !== "string") return DRIVER_OUTAGE.test(error.message);
  return OUTAGE_ERRNOS.has(code) || (code.length === 5 && OUTAGE_CLASSES.has(code.slice(0, 2)));
}

/** Whether the transaction lost against another one and may be run again from its beginning: serialization, deadlock. */
export function isConflict(error: unknown): boolean {
  return error instanceof Error && ["40001", "40P01"].includes(String((error as Error & { code?: unknown }).code));
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

/** An outage becomes a TallyhouseError; what PostgreSQL refuses keeps its own error, with the SQLSTATE in `code`. */
export async function mapOutages<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof TallyhouseError) && isOutage(error)) throw storeUnavailable("run a statement", error);
    throw error;
  }
}
