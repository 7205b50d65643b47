/** Which meters exist, as the log itself says: the activations, ends and backfills that the aggregator stored. */
import { type AnalyticsStore, type Mode, MeterRuleSchema, type MeterVersion, parseInstant } from "@tallyhouse/domain";
import { z } from "zod";

const ActivationSchema = z.object({
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int(),
  rule: MeterRuleSchema,
});

/** What one partition of a stream knows of a meter version. */
export interface MeterPlace {
  readonly stream: number;
  readonly partition: number;
  /** Offset of the first activation; a repeated one changes nothing. */
  readonly activatedOffset: bigint;
  /** The partition's log clock at that offset, epoch milliseconds. */
  readonly activatedAt: number;
  /** Usage that occurred from here on does not count, epoch milliseconds; null without an end. The earliest of several ends. */
  readonly untilAt: number | null;
  /** Whether the usage in front of the activation is folded. Until then only what stands behind it counts. */
  readonly isBackfilled: boolean;
}

/** A meter version and where in the log it became active. */
export interface MeterDefinition {
  readonly version: MeterVersion;
  /** By `stream/partition`, see {@link placeOf}. */
  readonly places: ReadonlyMap<string, MeterPlace>;
  /** Whether every partition of the current stream has it. */
  readonly isActive: boolean;
}

/** The stream whose partitions must all know a meter before it is active. */
export interface StreamSize {
  readonly streamId: number;
  readonly partitionCount: number;
}

/** Key of {@link MeterDefinition.places}. */
export function placeOf(stream: number, partition: number): string {
  return `${stream}/${partition}`;
}

/**
 * Whether usage in front of an activation may still be missing from the figures: a partition of the current stream has not folded
 * what stands before the activation. False soon after an activation, and for ever from then on.
 * @param cutAt as known at this instant: activations booked later do not matter
 */
export function isBackfilling(definition: MeterDefinition, streamId: number, cutAt: number | null = null): boolean {
  return [...definition.places.values()].some(
    (place) =>
      place.stream === streamId &&
      !place.isBackfilled &&
      // In front of offset 0 there is nothing to fold.
      place.activatedOffset > 0n &&
      (cutAt === null || place.activatedAt < cutAt),
  );
}

/**
 * All versions of the mode's meters, by key and version. A repeated activation is one definition (the fold ignores it too), so
 * the smallest offset is the one that counts.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readDefinitions(
  analytics: AnalyticsStore,
  stream: StreamSize,
  filter: { readonly mode: Mode; readonly meter?: string },
): Promise<MeterDefinition[]> {
  const parameters = { mode: filter.mode, meter: filter.meter ?? "" };
  // Backfills last: a row that is written in between makes more usage count, never less than what was promised by a watermark.
  const activations = await analytics.select<ActivationRow>(ACTIVATIONS_SQL, parameters);
  const ends = untilByPlace(await analytics.select<EndRow>(ENDS_SQL, parameters));
  const backfills = await analytics.select<{ place: string }>(BACKFILLS_SQL, parameters);
  const backfilled = new Set(backfills.map(({ place }) => place));
  const found = new Map<string, { version: MeterVersion; places: Map<string, MeterPlace> }>();
  for (const row of activations) {
    const version = ActivationSchema.parse(JSON.parse(row.body));
    const label = `${version.meter}@${version.version}`;
    const entry = found.get(label) ?? { version, places: new Map<string, MeterPlace>() };
    const place = placeOf(row.stream, row.logPartition);
    // Rows come in the order of offsets: the first activation counts, a repeated one is a no-op.
    if (!entry.places.has(place)) {
      entry.places.set(place, {
        stream: row.stream,
        partition: row.logPartition,
        activatedOffset: BigInt(row.offset),
        activatedAt: Number(row.at),
        untilAt: ends.get(`${label}/${place}`) ?? null,
        isBackfilled: backfilled.has(`${label}/${place}`),
      });
    }
    found.set(label, entry);
  }
  return [...found.values()]
    .map(({ version, places }) => ({
      version,
      places,
      isActive:
        [...places.values()].filter((place) => place.stream === stream.streamId).length >= stream.partitionCount,
    }))
    .sort((a, b) => compare(a.version.meter, b.version.meter) || a.version.version - b.version.version);
}

interface ActivationRow {
  readonly body: string;
  readonly stream: number;
  readonly logPartition: number;
  readonly offset: string;
  readonly at: string;
}

const ACTIVATIONS_SQL = `
SELECT body, stream, logPartition, toString(logOffset) AS offset, toString(toUnixTimestamp64Milli(bookedAt)) AS at
FROM control_records
WHERE kind = 'meter.activate' AND JSONExtractString(body, 'mode') = {mode:String}
  AND ({meter:String} = '' OR JSONExtractString(body, 'meter') = {meter:String})
ORDER BY stream, logPartition, logOffset`;

interface EndRow {
  readonly place: string;
  readonly until: string;
}

const ENDS_SQL = `
SELECT concat(JSONExtractString(body, 'meter'), '@', toString(JSONExtractUInt(body, 'version')), '/', toString(stream), '/',
  toString(logPartition)) AS place, JSONExtractString(body, 'until') AS until
FROM control_records
WHERE kind = 'meter.end' AND JSONExtractString(body, 'mode') = {mode:String}
  AND ({meter:String} = '' OR JSONExtractString(body, 'meter') = {meter:String})`;

const BACKFILLS_SQL = `
SELECT DISTINCT concat(meter, '@', toString(meterVersion), '/', toString(stream), '/', toString(logPartition)) AS place
FROM backfills WHERE mode = {mode:String} AND ({meter:String} = '' OR meter = {meter:String})`;

/** An end lies ahead of everything that was counted before it, so the earliest one tells the same at every offset. */
function untilByPlace(rows: readonly EndRow[]): ReadonlyMap<string, number> {
  const earliest = new Map<string, number>();
  for (const { place, until } of rows) {
    const at = parseInstant(until) ?? Number.POSITIVE_INFINITY;
    earliest.set(place, Math.min(at, earliest.get(place) ?? at));
  }
  return earliest;
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/**
 * The version that answers a question about a range: the newest active one whose rule begins before the range ends, else the
 * newest active one. Never a sum over versions: after a change both versions count the same usage events.
 * @param range `wanted`: a version number the caller named; only that one, then
 */
export function chooseDefinition(
  definitions: readonly MeterDefinition[],
  range: { readonly toAt: number; readonly wanted?: number | undefined },
): MeterDefinition | null {
  const active = definitions.filter(({ isActive }) => isActive);
  if (range.wanted !== undefined) return active.find(({ version }) => version.version === range.wanted) ?? null;
  const applying = active.filter(({ version }) => (parseInstant(version.rule.from) ?? 0) < range.toAt);
  return applying.at(-1) ?? active.at(-1) ?? null;
}
