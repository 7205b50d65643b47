/** Takes counted usage events back, or puts others in their place. */
import {
  type AnalyticsStore,
  assert,
  BACKFILL_SPAN_MS,
  DAY_MS,
  type ControlStore,
  encodeUsageEvent,
  formatInstant,
  isJsonObject,
  type JsonObject,
  parseJson,
  readCorrectedEvent,
} from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import { readWatermark, type StreamSize } from "@tallyhouse/usage";
import { readApplied, readStates } from "./correction-state.ts";
import { type Change, type Correction, correctionsOf, storeCorrection } from "./correction-store.ts";
import type { Problem } from "./problem.ts";
import { type EventIdentity, placeText, type RawRow, readRawRows } from "./raw-rows.ts";
import { isSameReplacement, readReplacement } from "./replacement.ts";

export interface CorrectionPorts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly clock: Clock;
  readonly stream: StreamSize;
}

/** What an operator asks for; `replacement` is the native shape of the usage event that takes the place, null for a void. */
export interface CorrectionRequest {
  readonly identity: EventIdentity;
  readonly reason: string;
  readonly actor: string;
  readonly replacement: JsonObject | null;
}

/** `made` now, `known` already: the same request was answered before. */
export type CorrectionOutcome =
  | { readonly kind: "made" | "known"; readonly correction: Correction }
  | { readonly kind: "problem"; readonly problem: Problem };

/** Counted rows of one identity that are looked at: one, and one more for each time it counted beyond the dedupe horizon. */
const COUNTED_ROWS_MAX = 1_000;
/** Rows of an identity that never counted, of which the answer tells the last. */
const OTHER_ROWS_MAX = 1_000;

/**
 * Corrects the counted usage event of an identity.
 *
 * Safe to repeat: yes; the second time the answer is the first one's correction. The effect comes with the control record: until the
 * fold has reached it, the correction is `pending`.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); whether it was stored is then unknown, and repeating tells.
 */
export async function correctEvent(ports: CorrectionPorts, request: CorrectionRequest): Promise<CorrectionOutcome> {
  const rows = await readCountedRows(ports, request.identity);
  const targets = rows.filter(({ correction }) => correction === null || correction === "refused");
  const [target, second] = targets;
  if (target === undefined) {
    const corrected = rows.findLast(({ correction }) => correction !== null);
    if (corrected === undefined) return problemOf(await notCounted(ports, request.identity));
    return answerKnown(corrected, request);
  }
  if (second !== undefined) return conflict(countedTwice(targets.map(({ row }) => row)));
  if (target.row.stream !== ports.stream.streamId) {
    const detail = `this usage event stands in stream ${target.row.stream}, which is closed; only those of stream ${ports.stream.streamId} can be corrected`;
    return conflict(detail);
  }
  if (target.row.bookedAt < ports.clock.now() - CORRECTABLE_MS) {
    const detail = `this usage event was booked at ${formatInstant(target.row.bookedAt)}: one of more than 389 days ago can no longer be corrected`;
    return conflict(detail);
  }
  return correctRow(ports, { target, request });
}

/**
 * A void takes back from every meter of its day, and one that was activated meanwhile counts no older usage than its backfill's span:
 * of older usage it would take back what it never had. A day less, for a record that waits in the outbox.
 */
const CORRECTABLE_MS = BACKFILL_SPAN_MS - DAY_MS;

/** A counted row, and what was done to it: `foreign` is known to the log and not to this control store. */
export interface CountedRow {
  readonly row: RawRow;
  readonly correction: Correction | "refused" | "foreign" | null;
  /** The newest correction that the log refused. */
  readonly refused: number | null;
}

/**
 * Every counted row of an identity in booking order, with its correction.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readCountedRows(ports: CorrectionPorts, identity: EventIdentity): Promise<CountedRow[]> {
  const { analytics, control } = ports;
  const rows = await readRawRows(analytics, identity, { status: "counted", rowsMax: COUNTED_ROWS_MAX });
  const corrections = await correctionsOf(control, identity);
  const states = await readStates(ports, corrections);
  const applied = await readApplied(analytics, rows);
  return rows.map((row) => {
    const place = placeText(row);
    const own = corrections.flatMap((correction, index) =>
      placeText(correction.place) === place ? [{ correction, state: states[index] }] : [],
    );
    const refused = own.findLast(({ state }) => state === "refused")?.correction.id ?? null;
    const holding = own.findLast(({ state }) => state !== "refused")?.correction;
    if (holding !== undefined) return { row, correction: holding, refused };
    if (applied.has(place)) return { row, correction: "foreign", refused };
    return { row, correction: refused === null ? null : "refused", refused };
  });
}

/**
 * Corrects this very row, which the caller found to be counted and not corrected.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function correctRow(
  ports: CorrectionPorts,
  input: { readonly target: CountedRow; readonly request: CorrectionRequest },
): Promise<CorrectionOutcome> {
  const { target, request } = input;
  const { row } = target;
  const { identity, reason, actor } = request;
  const now = ports.clock.now();
  const before = eventTextOf(row);
  if (readCorrectedEvent(before) === null) return conflict("the stored usage event is too large for a control record");
  let after: Change["after"] = null;
  if (request.replacement !== null) {
    const reading = await readReplacement(ports, { given: request.replacement, replaced: row, now });
    if (reading.kind === "problems") {
      const detail = reading.problems.map(({ field, rule }) => `${field} ${rule}`).join("; ");
      return problemOf({ status: 400, code: "CORRECTION_INVALID", detail, problems: reading.problems });
    }
    const { mode, customer, source, id } = reading.event;
    after = {
      text: encodeUsageEvent(reading.event, {}).toString("utf8"),
      identity: { mode, customer, source, id },
    };
  }
  const { stream, partition, offset } = row;
  const outcome = await storeCorrection(ports.control, {
    identity,
    place: { stream, partition, offset },
    change: { kind: after === null ? "void" : "replace", reason, actor, before, after },
    now,
    refused: target.refused,
  });
  if (outcome.kind === "taken") return conflict("the replacement's identity is that of another correction");
  if (outcome.kind === "made") return outcome;
  // Somebody else was faster: the answer is about theirs.
  return answerKnown({ row, correction: outcome.correction, refused: null }, request);
}

/** The counted usage event as CloudEvent text with its occurredAt; numbers as they were sent. */
function eventTextOf(row: RawRow): string {
  const { mode, customer, source, id, type, occurredAt } = row;
  const data = parseJson(row.payload);
  assert(isJsonObject(data), `payload of a counted usage event is no object: ${placeText(row)}`);
  const event = { mode, customer, source, id, type, occurredAt, isStamped: false, decidedAt: null, data };
  return encodeUsageEvent(event, {}).toString("utf8");
}

/** The same as was done before is no error; anything else names what was done, and by whom. */
function answerKnown({ row, correction }: CountedRow, request: CorrectionRequest): CorrectionOutcome {
  if (correction === null || correction === "refused" || correction === "foreign")
    return conflict("a control record that this control store does not know of has corrected it already");
  const { after } = correction;
  const stored = after === null ? null : readCorrectedEvent(after.text);
  const isSame =
    request.replacement === null
      ? stored === null
      : stored !== null && isSameReplacement(stored, { given: request.replacement, replaced: row });
  if (isSame) return { kind: "known", correction };
  const what = after === null ? "was voided" : `was replaced by "${after.identity.id}"`;
  const who = `by ${correction.actor} at ${formatInstant(correction.createdAt)} (correction ${correction.id}: ${correction.reason})`;
  const next = after === null ? "" : "; to change it again, void or replace that one";
  return conflict(`this usage event ${what} ${who}${next}`);
}

function problemOf(problem: Problem): CorrectionOutcome {
  return { kind: "problem", problem };
}

function conflict(detail: string): CorrectionOutcome {
  return problemOf({ status: 409, code: "CORRECTION_CONFLICT", detail });
}

function countedTwice(rows: readonly RawRow[]): string {
  const places = rows.map((row) => `${placeText(row)} (${formatInstant(row.bookedAt)})`).join(", ");
  return `this identity counted more than once, at stream/partition/offset ${places}: the sweep takes all but the first back (tallyhouse events sweep); then correct that one`;
}

/** Why there is nothing to correct: what the log knows of the identity, and how far it was read. */
async function notCounted(ports: CorrectionPorts, identity: EventIdentity): Promise<Problem> {
  // The watermark first: read after the rows, it could vouch for a row that came in between.
  const watermarkAt = await readWatermark(ports.analytics, ports.stream);
  const rows = await readRawRows(ports.analytics, identity, { rowsMax: OTHER_ROWS_MAX });
  const last = rows.at(-1);
  if (last === undefined) return eventUnknown(identity, watermarkAt);
  const statuses = [...new Set(rows.map(({ status }) => status))].join(", ");
  const reason = last.reason === "" ? "" : ` (${last.reason})`;
  const detail = `this usage event never counted: the log holds it as ${statuses}${reason}, last at ${placeText(last)}, booked ${formatInstant(last.bookedAt)}; there is nothing to take back`;
  return { status: 404, code: "EVENT_NOT_COUNTED", detail };
}

/** No record of the identity is stored. Says up to when that is certain. */
export function eventUnknown(identity: EventIdentity, watermarkAt: number | null): Problem {
  const until =
    watermarkAt === null
      ? "not every partition of the log is stored yet, so it may be on its way"
      : `the log received none before ${formatInstant(watermarkAt)}; a later one may be on its way`;
  const { mode, customer, source, id } = identity;
  const detail = `no usage event of customer "${customer}" with source "${source}" and id "${id}" in mode ${mode}: ${until}`;
  return { status: 404, code: "EVENT_UNKNOWN", detail };
}
