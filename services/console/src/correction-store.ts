/** Corrections in PostgreSQL: each row is the correction, its audit and the reason that its control record exists. */
import { type ControlFact, type ControlStore, type Mode, type SqlRunner } from "@tallyhouse/domain";
import { type EventIdentity, type LogPlace } from "./raw-rows.ts";

/** What is done to a counted usage event: taken back, or taken back with another in its place. */
export interface Change {
  readonly kind: "void" | "replace";
  readonly reason: string;
  readonly actor: string;
  /** The counted usage event as a CloudEvent with its time. */
  readonly before: string;
  /** Null for a void. */
  readonly after: { readonly text: string; readonly identity: EventIdentity } | null;
}

/** A stored correction of the usage event of `identity` that stands at `place`. */
export interface Correction extends Change {
  readonly id: number;
  readonly identity: EventIdentity;
  readonly place: LogPlace;
  readonly createdAt: number;
  /** When it was found that the log refuses it; null for one that holds. */
  readonly refusedAt: number | null;
}

interface Row {
  readonly id: string;
  readonly mode: Mode;
  readonly customer_id: string;
  readonly source: string;
  readonly event_id: string;
  readonly stream: number;
  readonly partition: number;
  readonly log_offset: string;
  readonly kind: "void" | "replace";
  readonly reason: string;
  readonly actor: string;
  readonly event_before: string;
  readonly event_after: string | null;
  readonly replacement_customer_id: string | null;
  readonly replacement_source: string | null;
  readonly replacement_id: string | null;
  readonly created_at: Date;
  readonly refused_at: Date | null;
}

function correctionOf(row: Row): Correction {
  const { mode, customer_id: customer, source, event_id: id } = row;
  const { event_after: text, replacement_customer_id, replacement_source, replacement_id } = row;
  return {
    id: Number(row.id),
    identity: { mode, customer, source, id },
    place: { stream: row.stream, partition: row.partition, offset: Number(row.log_offset) },
    kind: row.kind,
    reason: row.reason,
    actor: row.actor,
    before: row.event_before,
    after:
      text === null || replacement_customer_id === null || replacement_source === null || replacement_id === null
        ? null
        : {
            text,
            identity: { mode, customer: replacement_customer_id, source: replacement_source, id: replacement_id },
          },
    createdAt: row.created_at.getTime(),
    refusedAt: row.refused_at?.getTime() ?? null,
  };
}

/** The fact that the log carries for a correction; the same for every reader, text by text. */
function factOf({ before, after, place }: Pick<Correction, "before" | "after" | "place">): ControlFact {
  const { stream, offset } = place;
  const fact = { offset, event: before };
  return after === null
    ? { kind: "void", ...fact, stream }
    : { kind: "replace", ...fact, replacement: after.text, stream };
}

/** The value of the control record, as the fold stores it in `control_records.body`. */
export function bodyTextOf(correction: Pick<Correction, "before" | "after" | "place">): string {
  const { kind: _kind, ...body } = factOf(correction);
  return JSON.stringify(body);
}

/**
 * Stores the correction and, in the same transaction, its control record for the outbox: a correction without its record would
 * never take effect, a record without its correction would have no author.
 *
 * Safe to repeat: yes, one target has one correction. Two callers at once: the transactions are serializable and the target is
 * unique, so the second one is given the first one's.
 * @param refused a correction of the same target that the log is known to have refused: it makes room
 * @returns the correction that holds, which may be an earlier one; `taken` when the replacement's identity is that of another one.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); nothing is stored.
 */
export function storeCorrection(
  control: ControlStore,
  input: {
    readonly identity: EventIdentity;
    readonly place: LogPlace;
    readonly change: Change;
    readonly now: number;
    readonly refused: number | null;
  },
): Promise<{ kind: "made" | "known"; correction: Correction } | { kind: "taken" }> {
  const { place, change, now, refused } = input;
  return control.transaction(async (tx) => {
    if (refused !== null) {
      await tx.query("UPDATE correction SET refused_at = $2 WHERE id = $1 AND refused_at IS NULL", [
        refused,
        new Date(now),
      ]);
    }
    const [known] = await selectCorrections(
      tx,
      "stream = $1 AND partition = $2 AND log_offset = $3 AND refused_at IS NULL",
      [place.stream, place.partition, place.offset],
    );
    if (known !== undefined) return { kind: "known", correction: known } as const;
    if (change.after !== null && (await isReplacement(tx, change.after.identity))) return { kind: "taken" } as const;
    const correction = await insertCorrection(tx, input);
    const { kind, ...body } = factOf({ ...change, place });
    await tx.query(
      "INSERT INTO control_outbox (stream, partition, kind, body, created_at) VALUES ($1, $2, $3, $4::json, $5)",
      [place.stream, place.partition, kind, JSON.stringify(body), new Date(now)],
    );
    return { kind: "made", correction } as const;
  });
}

async function insertCorrection(
  tx: SqlRunner,
  input: {
    readonly identity: EventIdentity;
    readonly place: LogPlace;
    readonly change: Change;
    readonly now: number;
  },
): Promise<Correction> {
  const { identity, place, change, now } = input;
  const { after } = change;
  const [row] = await tx.query<{ id: string }>(
    `INSERT INTO correction (mode, customer_id, source, event_id, stream, partition, log_offset, kind, reason, actor,
       event_before, event_after, replacement_customer_id, replacement_source, replacement_id, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) RETURNING id`,
    [
      identity.mode,
      identity.customer,
      identity.source,
      identity.id,
      place.stream,
      place.partition,
      place.offset,
      change.kind,
      change.reason,
      change.actor,
      change.before,
      after?.text ?? null,
      after?.identity.customer ?? null,
      after?.identity.source ?? null,
      after?.identity.id ?? null,
      new Date(now),
    ],
  );
  return { ...change, id: Number(row?.id), identity, place, createdAt: now, refusedAt: null };
}

/** Whether a correction that holds has already given this identity to a usage event. */
export async function isReplacement(control: SqlRunner, identity: EventIdentity): Promise<boolean> {
  const rows = await control.query(
    `SELECT id FROM correction WHERE mode = $1 AND replacement_customer_id = $2 AND replacement_source = $3
       AND replacement_id = $4 AND refused_at IS NULL`,
    [identity.mode, identity.customer, identity.source, identity.id],
  );
  return rows.length > 0;
}

/** Every correction of the usage event of this identity, refused ones too, oldest first. */
export function correctionsOf(control: SqlRunner, identity: EventIdentity): Promise<Correction[]> {
  return selectCorrections(control, "mode = $1 AND customer_id = $2 AND source = $3 AND event_id = $4", [
    identity.mode,
    identity.customer,
    identity.source,
    identity.id,
  ]);
}

/** Corrections of a mode, newest first: of one customer, or of all with `customer` null; only ids below `before`. */
export async function listCorrections(
  control: SqlRunner,
  query: {
    readonly mode: Mode;
    readonly customer: string | null;
    readonly before: number | null;
    readonly limit: number;
  },
): Promise<Correction[]> {
  const rows = await control.query<Row>(
    `SELECT * FROM correction
     WHERE mode = $1 AND ($2::text IS NULL OR customer_id = $2) AND ($3::bigint IS NULL OR id < $3)
     ORDER BY id DESC LIMIT $4`,
    [query.mode, query.customer, query.before, query.limit],
  );
  return rows.map(correctionOf);
}

/** `where` is a constant of this file. */
async function selectCorrections(control: SqlRunner, where: string, params: readonly unknown[]): Promise<Correction[]> {
  const rows = await control.query<Row>(`SELECT * FROM correction WHERE ${where} ORDER BY id`, params);
  return rows.map(correctionOf);
}
