/** Rows of usage_report as the reporter reads and writes them. Instants are epoch milliseconds, quantities scaled bigints. */

/** What the sender needs of a row. */
export interface SendableRow {
  readonly id: string;
  readonly stripeCustomerId: string;
  readonly stripeMeterId: string;
  readonly eventName: string;
  readonly eventAt: number;
  readonly seq: number;
  /** Decimal text as sent. */
  readonly value: string;
  readonly identifier: string;
  readonly idemEpoch: number;
  readonly state: "planned" | "unknown";
  readonly hasDoubt: boolean;
  readonly wasRefused: boolean;
  readonly verifyStep: "none" | "resend";
  readonly firstAttemptAt: number | null;
}

/** (Stripe customer, Stripe meter): at most one call in flight, and one row's doubt holds its planning. */
export function pairKeyOf(row: Pick<SendableRow, "stripeCustomerId" | "stripeMeterId">): string {
  return `${row.stripeCustomerId}/${row.stripeMeterId}`;
}

/** JSON text of rows for `json_to_recordset`: one parameter, one statement, however many rows. */
export function recordset(rows: readonly object[]): string {
  return JSON.stringify(rows);
}

/** An instant as a timestamptz literal; null stays null. */
export function sqlInstant(at: number): string {
  return new Date(at).toISOString();
}
