/**
 * Seals: figures as known at a cut T, a multiple of the booking window. A cut is a question, not a record: once the watermark has
 * passed it, no later record can be booked before it, so its answer is the same for ever (exactly once, by construction).
 */
import { createHash } from "node:crypto";
import {
  type AnalyticsStore,
  assert,
  canonicalJson,
  DAY_MS,
  floorTo,
  formatInstant,
  formatQuantity,
  type Mode,
  type Quantity,
  quantityFromScaled,
  ZERO_QUANTITY,
} from "@tallyhouse/domain";
import { isBackfilling, type MeterDefinition, readDefinitions } from "./meter-definitions.ts";
import type { StreamSize } from "./meter-places.ts";
import type { Refusal, UsageGroup } from "./question.ts";
import { readUsageGroups } from "./read-usage.ts";
import { cutParameter } from "./rollup-query.ts";
import { readWatermark } from "./watermark.ts";
import { UTC } from "./zone.ts";

/** Groups of one sealed total. */
const SEALED_GROUPS_MAX = 100_000;
/** Usage events at the edges and in corrected windows of one sealed total: some minutes of folding. */
const SEALED_EVENTS_MAX = 20_000_000;

/** The stream whose clock decides. */
export interface SealedStream extends StreamSize {
  readonly bookingWindowSeconds: number;
}

/** The latest cut that is not after the instant, epoch milliseconds. */
export function cutOf(at: number, stream: Pick<SealedStream, "bookingWindowSeconds">): number {
  return floorTo(at, stream.bookingWindowSeconds * 1_000);
}

/** Whether a cut may be read. `watermark`: records booked before it may still come; `backfill`: usage in front of an activation may. */
export type SealState =
  | { readonly kind: "sealed"; readonly watermarkAt: number; readonly definitions: readonly MeterDefinition[] }
  | { readonly kind: "open"; readonly reason: "watermark" | "backfill"; readonly watermarkAt: number | null };

/**
 * Whether everything booked before the cut is stored: the watermark has reached it, and every partition has folded what stands in
 * front of every activation that was booked before it. Once sealed, always sealed. Ask for a meter to wait for no other.
 *
 * The watermark comes first and the definitions after it: the other way round an activation that was stored in between would be
 * overlooked, and its backfill would change figures that were called sealed.
 * @returns when sealed, the definitions asked for; a reading of the cut must use these or later ones.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readSeal(
  analytics: AnalyticsStore,
  stream: SealedStream,
  cut: { readonly cutAt: number; readonly mode: Mode; readonly meter?: string; readonly version?: number },
): Promise<SealState> {
  const { cutAt, mode, meter, version } = cut;
  assert(cutOf(cutAt, stream) === cutAt, `no cut of the stream: ${cutAt}`);
  const watermarkAt = await readWatermark(analytics, stream);
  if (watermarkAt === null || watermarkAt < cutAt) return { kind: "open", reason: "watermark", watermarkAt };
  const all = await readDefinitions(analytics, stream, { mode, ...(meter === undefined ? {} : { meter }) });
  const definitions = version === undefined ? all : all.filter((one) => one.version.version === version);
  const isOpen = definitions.some((definition) => isBackfilling(definition, cutAt));
  return isOpen ? { kind: "open", reason: "backfill", watermarkAt } : { kind: "sealed", watermarkAt, definitions };
}

/** What is asked of a seal: one customer and meter version over a period of any second. */
export interface SealedQuestion {
  readonly mode: Mode;
  readonly customer: string;
  readonly meter: string;
  readonly version: number;
  readonly fromAt: number;
  readonly toAt: number;
  readonly cutAt: number;
  /** Names of declared dimensions. */
  readonly groupBy: readonly string[];
}

/** Totals as known at the cut. No group: nothing counted. */
export interface SealedTotals extends SealedQuestion {
  readonly groups: readonly Pick<UsageGroup, "group" | "quantity">[];
}

/** `unknown`: no such meter version as known at the cut. */
export type SealedReading =
  | { readonly kind: "totals"; readonly totals: SealedTotals }
  | Extract<SealState, { kind: "open" }>
  | { readonly kind: "unknown" }
  | { readonly kind: "refused"; readonly refusal: Refusal };

/**
 * Totals as known at the cut: whole windows booked before it, edges and corrected windows from the usage events booked before it,
 * without voids that were booked later. Every aggregation. Safe to repeat: the same for ever, as long as raw usage events are kept.
 * @returns `unknown` when the meter version was activated nowhere before the cut.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readSealedTotals(
  analytics: AnalyticsStore,
  stream: SealedStream,
  question: SealedQuestion,
): Promise<SealedReading> {
  const { cutAt } = question;
  const state = await readSeal(analytics, stream, question);
  if (state.kind === "open") return state;
  const [definition] = state.definitions;
  const isKnown = definition?.activatedAts.some((bookedAt) => bookedAt < cutAt) ?? false;
  if (definition === undefined || !isKnown) return { kind: "unknown" };
  const reading = await readUsageGroups(analytics, {
    ...question,
    ...{ definition, window: "total", zone: UTC, watermarkAt: state.watermarkAt },
    ...{ rowsMax: SEALED_GROUPS_MAX, eventsMax: SEALED_EVENTS_MAX },
  });
  if (reading.kind === "refused") return reading;
  const groups = reading.groups.map(({ group, quantity }) => ({ group, quantity }));
  return { kind: "totals", totals: { ...question, groups } };
}

/** Days in which each partition is looked for; ticks make a row in every booking window, so the first is enough almost always. */
const VECTOR_DAYS = [2, 40, 40_000];

/**
 * Per partition, the length of the prefix that was booked before the cut: a verifier folds exactly these records to get the sealed
 * figures. 0 where nothing was. Sealed cuts only: a later record could otherwise lengthen it.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readVersionVector(
  analytics: AnalyticsStore,
  stream: SealedStream,
  cutAt: number,
): Promise<readonly number[]> {
  const vector = Array.from({ length: stream.partitionCount }, () => 0);
  for (const days of VECTOR_DAYS) {
    // bookedAt never falls within a partition, so the last rows before the cut have the highest offsets.
    const rows = await analytics.select<{ logPartition: number; next: string }>(
      `SELECT logPartition, toString(max(logOffset) + 1) AS next FROM raw_events
       WHERE stream = {stream:UInt16} AND bookedAt < {cut:DateTime('UTC')}
         AND bookedAt >= fromUnixTimestamp64Milli({bookedFromAt:Int64}, 'UTC')
       GROUP BY logPartition`,
      { stream: stream.streamId, bookedFromAt: Math.max(0, cutAt - days * DAY_MS), ...cutParameter(cutAt) },
    );
    for (const { logPartition, next } of rows) vector[logPartition] = Number(next);
    if (rows.length >= stream.partitionCount) break;
  }
  return vector;
}

/**
 * The text that a digest is made of: one line for each total, in the order of the lines, each the canonical JSON of the question and
 * its groups. Quantities are decimal text, instants RFC 3339. Equal totals give equal text, in whatever order they were read.
 */
export function sealText(totals: readonly SealedTotals[]): string {
  const lines = totals.map(({ groups, fromAt, toAt, cutAt, ...names }) =>
    canonicalJson({
      ...names,
      groups: groups.map(({ group, quantity }) => [...group, formatQuantity(quantity)]),
      ...{ from: formatInstant(fromAt), to: formatInstant(toAt), knownAt: formatInstant(cutAt) },
    }),
  );
  return ["tallyhouse.seal/1", ...lines.sort()].map((line) => `${line}\n`).join("");
}

/** SHA-256 of {@link sealText}, in hex. */
export function sealDigest(totals: readonly SealedTotals[]): string {
  return createHash("sha256").update(sealText(totals)).digest("hex");
}

/** What became known of one group between two cuts. */
export interface LateUsage {
  readonly group: readonly string[];
  /** As known at the earlier and the later cut; null where nothing counted. */
  readonly before: Quantity | null;
  readonly after: Quantity | null;
  /** After less before, nothing being 0. */
  readonly difference: Quantity;
}

/** Late usage and corrections of a period: groups that differ between two cuts of one question, in order of the groups. Pure. */
export function lateUsage(before: SealedTotals, after: SealedTotals): LateUsage[] {
  const name = ({ groups: _groups, cutAt: _cutAt, ...rest }: SealedTotals): string => canonicalJson(rest);
  assert(name(before) === name(after), "late usage is a difference of one question at two cuts");
  const groups = new Map<string, { group: readonly string[]; before: Quantity | null; after: Quantity | null }>();
  for (const { group, quantity } of before.groups)
    groups.set(JSON.stringify(group), { group, before: quantity, after: null });
  for (const { group, quantity } of after.groups) {
    const known = groups.get(JSON.stringify(group));
    groups.set(JSON.stringify(group), { group, before: known?.before ?? null, after: quantity });
  }
  return [...groups]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, one]) => ({
      ...one,
      difference: quantityFromScaled((one.after ?? ZERO_QUANTITY) - (one.before ?? ZERO_QUANTITY)),
    }))
    .filter((one) => one.before !== one.after);
}
