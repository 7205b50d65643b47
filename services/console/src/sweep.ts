/** Takes back what counted more than once: an identity that came again, with another time, later than the dedupe horizon. */
import { type AnalyticsStore, formatInstant, type Mode } from "@tallyhouse/domain";
import type { Logger } from "@tallyhouse/runtime";
import { correctRow, type CorrectionPorts, readCountedRows } from "./corrections.ts";
import { type EventIdentity, placeText } from "./raw-rows.ts";

/** The author of a sweep's corrections. */
export const SWEEP_ACTOR = "sweep";
/** Usage events of one pass over the table: some 60 MB of groups. */
const BUCKET_ROWS = 1_000_000;
/** Most passes of a sweep; beyond 64 million usage events each of them holds more. */
const BUCKETS_MAX = 64;
/** Repeated identities of one page: their hashes are 8 kB of a request to ClickHouse, which are bound in its URL. */
const PAGE_IDENTITIES = 200;

/** What one sweep found and did. */
export interface SweepResult {
  /** Identities with more than one usage event that counted and was not taken back. */
  readonly repeated: number;
  /** Usage events that this sweep took back. */
  readonly voided: number;
  /** Usage events that should be taken back and cannot: they stand in an older stream. */
  readonly leftOver: number;
}

/**
 * Finds every identity of the mode that counts more than once and takes back all but the first: the lowest bookedAt, then stream,
 * partition and offset.
 *
 * Safe to repeat, also side by side: the first stays the first, and one target has one correction. Ended in the middle, it has
 * done a part; the next one does the rest.
 * @param isWanted looked at before each identity; null is returned when it says no.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function sweep(
  ports: CorrectionPorts & { readonly logger: Logger },
  input: { readonly mode: Mode; readonly isWanted: () => boolean },
): Promise<SweepResult | null> {
  const total = { repeated: 0, voided: 0, leftOver: 0 };
  const { mode, isWanted } = input;
  const buckets = await countBuckets(ports.analytics, mode);
  for (let bucket = 0; bucket < buckets; bucket += 1) {
    let after = "0";
    let page: readonly Repeated[];
    do {
      if (!isWanted()) return null;
      page = await readRepeated(ports.analytics, { mode, bucket, buckets, after });
      for (const { hash, ...identity } of page) {
        if (!isWanted()) return null;
        const found = await sweepIdentity(ports, { mode, ...identity });
        total.repeated += found.repeated;
        total.voided += found.voided;
        total.leftOver += found.leftOver;
        after = hash;
      }
    } while (page.length === PAGE_IDENTITIES);
  }
  return total;
}

async function sweepIdentity(
  ports: CorrectionPorts & { readonly logger: Logger },
  identity: EventIdentity,
): Promise<SweepResult> {
  const counted = (await readCountedRows(ports, identity)).filter(
    ({ correction }) => correction === null || correction === "refused",
  );
  const [first, ...repeats] = counted;
  if (first === undefined || repeats.length === 0) return { repeated: 0, voided: 0, leftOver: 0 };
  let voided = 0;
  let leftOver = 0;
  const since = `${placeText(first.row)} on ${formatInstant(first.row.bookedAt)}`;
  const reason = `counted before at ${since}: the identity came again later than the dedupe horizon`;
  for (const target of repeats) {
    const place = placeText(target.row);
    if (target.row.stream !== ports.stream.streamId) {
      leftOver += 1;
      ports.logger.error({ place, since }, "a usage event of an older stream counted twice and cannot be taken back");
      continue;
    }
    const request = { identity, reason, actor: SWEEP_ACTOR, replacement: null };
    const outcome = await correctRow(ports, { target, request });
    if (outcome.kind === "made") voided += 1;
    // Somebody else may have been faster, another sweep for one.
    ports.logger.warn({ place, since, outcome: outcome.kind }, "a usage event counted twice and is taken back");
  }
  return { repeated: 1, voided, leftOver };
}

async function countBuckets(analytics: AnalyticsStore, mode: Mode): Promise<number> {
  const [row] = await analytics.select<{ rows: string }>(
    "SELECT toString(count()) AS rows FROM raw_events WHERE mode = {mode:String} AND status = 'counted'",
    { mode },
  );
  return Math.min(BUCKETS_MAX, Math.max(1, Math.ceil(Number(row?.rows ?? 0) / BUCKET_ROWS)));
}

interface Repeated {
  readonly hash: string;
  readonly customer: string;
  readonly source: string;
  readonly id: string;
}

/**
 * Identities with more than one place of the log that counted and was not taken back, a page of them in the order of their hash.
 *
 * Grouped by a hash of 128 bits, because the names of millions of identities would not fit into memory; what a collision brought
 * here is looked at again by name. Copies that a replay wrote are of one place. Not FINAL: it would merge the whole table.
 */
async function readRepeated(
  analytics: AnalyticsStore,
  query: { readonly mode: Mode; readonly bucket: number; readonly buckets: number; readonly after: string },
): Promise<Repeated[]> {
  const hash = "reinterpretAsUInt128(sipHash128(customer, source, id))";
  // As one number: over a million groups the smallest tuple takes five times as long (measured).
  const place = "bitShiftLeft(toUInt128(stream), 80) + bitShiftLeft(toUInt128(logPartition), 64) + logOffset";
  const where = `mode = {mode:String} AND status = 'counted' AND cityHash64(customer, id) % {buckets:UInt32} = {bucket:UInt32}`;
  const hashes = await analytics.select<{ hash: string }>(
    `SELECT toString(${hash}) AS hash FROM raw_events
     WHERE ${where} AND ${hash} > {after:UInt128} AND (stream, logPartition, logOffset) NOT IN (
       SELECT stream, logPartition, toUInt64(target) FROM control_records WHERE kind IN ('void', 'replace'))
     GROUP BY ${hash} HAVING min(${place}) != max(${place})
     ORDER BY ${hash} LIMIT ${PAGE_IDENTITIES}`,
    query,
  );
  if (hashes.length === 0) return [];
  const rows = await analytics.select<Repeated>(
    `SELECT DISTINCT toString(${hash}) AS hash, customer, toString(source) AS source, id FROM raw_events
     WHERE ${where} AND has({hashes:Array(String)}, hash)
     ORDER BY toUInt128(hash)`,
    { ...query, hashes: hashes.map((row) => row.hash) },
  );
  return rows;
}
