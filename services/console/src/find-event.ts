/** Where is my usage event: every record of an identity, what became of it, and the ledger rows that cover it. */
import {
  type AnalyticsStore,
  type ControlStore,
  floorTo,
  formatInstant,
  HOUR_MS,
  type SqlRunner,
} from "@tallyhouse/domain";
import { readDefinitions, readWatermark, type StreamSize } from "@tallyhouse/usage";
import { readApplied, readStates } from "./correction-state.ts";
import { type Correction, correctionsOf } from "./correction-store.ts";
import { eventUnknown } from "./corrections.ts";
import { type CountedIn, countedIn } from "./event-meters.ts";
import type { Problem } from "./problem.ts";
import { type EventIdentity, type LogPlace, placeText, type RawRow, readRawRows } from "./raw-rows.ts";

export interface FindPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly stream: StreamSize;
}

/** Records shown of one identity; a sender that retries for ever makes more. */
const RECORDS_MAX = 1_000;

/** One record of the identity, in words as well. */
export interface FoundRecord {
  readonly record: LogPlace;
  readonly acceptedAt: string;
  readonly bookedAt: string;
  readonly occurredAt: string;
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly meaning: string;
  /** As it is stored: JSON text of `data`, of the whole record, or base64 of what could not be read. */
  readonly payload: string;
  readonly countedIn: readonly CountedIn[];
}

/** A row of the reporter's ledger for the hour and a meter of the usage event. */
interface LedgerRow {
  readonly id: string;
  readonly meter: string;
  readonly meter_version: number;
  readonly kind: string;
  readonly state: string;
  readonly quantity: string;
  readonly value: string;
  readonly identifier: string;
  readonly event_name: string;
  readonly event_ts: Date;
  readonly bucket_start: Date;
  readonly bucket_end: Date;
  readonly accepted_at: Date | null;
  readonly confirmed_at: Date | null;
  readonly error_code: string | null;
}

export interface FoundEvent extends EventIdentity {
  /** Everything that the log received before this instant is in the answer; null until every partition reported once. */
  readonly asOf: string | null;
  /** In the order of booking. */
  readonly records: readonly FoundRecord[];
  /** Whether there are more than {@link RECORDS_MAX}. */
  readonly hasMore: boolean;
  readonly corrections: readonly { readonly correction: Correction; readonly state: string }[];
  readonly ledger: readonly object[];
}

export type Finding =
  | { readonly kind: "found"; readonly answer: FoundEvent }
  | { readonly kind: "problem"; readonly problem: Problem };

/**
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function findEvent(ports: FindPorts, identity: EventIdentity): Promise<Finding> {
  const { analytics, control, stream } = ports;
  // The watermark first: read after the rows, it could vouch for a row that came in between (breaks G7).
  const watermarkAt = await readWatermark(analytics, stream);
  const rows = await readRawRows(analytics, identity, { rowsMax: RECORDS_MAX + 1 });
  if (rows.length === 0) return { kind: "problem", problem: eventUnknown(identity, watermarkAt) };
  const shown = rows.slice(0, RECORDS_MAX);
  const counted = shown.filter(({ status }) => status === "counted");
  const applied = await readApplied(analytics, counted);
  const definitions = await readDefinitions(analytics, stream, { mode: identity.mode });
  const corrections = await correctionsOf(control, identity);
  const states = await readStates(ports, corrections);
  const meters = new Map(
    counted.map((row) => [placeText(row), countedIn(row, definitions, applied.get(placeText(row))?.offset ?? null)]),
  );
  return {
    kind: "found",
    answer: {
      ...identity,
      asOf: watermarkAt === null ? null : formatInstant(watermarkAt),
      records: shown.map((row) => {
        const isCorrected = applied.has(placeText(row));
        return recordOf(row, { meters: meters.get(placeText(row)) ?? [], isCorrected });
      }),
      hasMore: rows.length > RECORDS_MAX,
      corrections: corrections.map((correction, index) => ({ correction, state: states[index] ?? "pending" })),
      ledger: await readLedger(
        control,
        identity,
        counted.flatMap((row) =>
          (meters.get(placeText(row)) ?? []).map(({ meter, version }) => ({ meter, version, at: row.occurredAt })),
        ),
      ),
    },
  };
}

function recordOf(
  row: RawRow,
  { meters, isCorrected }: { readonly meters: readonly CountedIn[]; readonly isCorrected: boolean },
): FoundRecord {
  const { stream, partition, offset, type, status, reason, payload } = row;
  return {
    record: { stream, partition, offset },
    acceptedAt: formatInstant(row.receivedAt),
    bookedAt: formatInstant(row.bookedAt),
    occurredAt: formatInstant(row.occurredAt),
    type,
    status,
    reason,
    meaning: meaningOf(row, isCorrected),
    payload,
    countedIn: meters,
  };
}

/** The status in a sentence for whoever sent the usage event. */
function meaningOf({ status, reason }: RawRow, isCorrected: boolean): string {
  switch (status) {
    case "counted": {
      const how = reason === "replace" ? "counted in the place of another usage event" : "counted";
      return isCorrected ? `${how}, and taken back by a correction since` : how;
    }
    case "duplicate":
      return "a copy of a usage event that counted before it: not counted again";
    case "conflict":
      return "the identity of a usage event that counted before it, with another payload: not counted";
    case "too_late":
      return "occurred longer before its receipt than the allowed lateness: not counted";
    case "too_early":
      return "occurs too far ahead of its receipt: not counted";
    case "redirected":
      return "came into another partition than its own; a copy of it went to the right one";
    case "invalid":
      return `could not be counted: ${reason}; correct it and send it again with the same id`;
    case "control":
      return `a control record: ${reason}`;
  }
}

/** Rows of the ledger that account for the hours of the usage events, for their meters. */
async function readLedger(
  control: SqlRunner,
  { mode, customer }: EventIdentity,
  covered: readonly { readonly meter: string; readonly version: number; readonly at: number }[],
): Promise<object[]> {
  if (covered.length === 0) return [];
  const hours = covered.map(({ at }) => floorTo(at, HOUR_MS));
  // By the maps, because the index of the ledger begins with Stripe's names.
  const rows = await control.query<LedgerRow>(
    `SELECT u.id, m.meter, m.meter_version, u.kind, u.state, u.quantity, u.value, u.identifier, u.event_name, u.event_ts,
       u.bucket_start, u.bucket_end, u.accepted_at, u.confirmed_at, u.error_code
     FROM (SELECT DISTINCT * FROM unnest($3::text[], $4::int[], $5::timestamptz[]) AS c (meter, version, hour)) AS c
     JOIN stripe_meter_map AS m ON m.mode = $1 AND m.meter = c.meter AND m.meter_version = c.version
     JOIN stripe_customer_map AS s
       ON s.mode = m.mode AND s.stripe_account = m.stripe_account AND s.customer_id = $2
     JOIN usage_report AS u ON u.mode = m.mode AND u.stripe_account = m.stripe_account
       AND u.stripe_meter_id = m.stripe_meter_id AND u.stripe_customer_id = s.stripe_customer_id
       AND u.customer_id = s.customer_id AND u.accounts_at >= c.hour AND u.accounts_at < c.hour + interval '1 hour'
     ORDER BY u.id`,
    [
      mode,
      customer,
      covered.map(({ meter }) => meter),
      covered.map(({ version }) => version),
      hours.map((at) => new Date(at)),
    ],
  );
  const instant = (date: Date | null): string | null => (date === null ? null : formatInstant(date.getTime()));
  return rows.map((row) => ({
    id: Number(row.id),
    meter: row.meter,
    version: row.meter_version,
    kind: row.kind,
    state: row.state,
    quantity: row.quantity,
    value: row.value,
    eventName: row.event_name,
    identifier: row.identifier,
    timestamp: instant(row.event_ts),
    bucketStart: instant(row.bucket_start),
    bucketEnd: instant(row.bucket_end),
    acceptedAt: instant(row.accepted_at),
    confirmedAt: instant(row.confirmed_at),
    errorCode: row.error_code,
  }));
}
