/** Which meters exist, as the log itself says: the activations, ends and backfills that the aggregator stored. */
import { type AnalyticsStore, type Mode, MeterRuleSchema, type MeterVersion, parseInstant } from "@tallyhouse/domain";
import { z } from "zod";
import { type Activation, isActiveIn, type MeterPlace, placeOf, placesOf, type StreamSize } from "./meter-places.ts";

const ActivationSchema = z.object({
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int(),
  rule: MeterRuleSchema,
});

/** A meter version and where in the log it counts. */
export interface MeterDefinition {
  readonly version: MeterVersion;
  readonly places: ReadonlyMap<string, MeterPlace>;
  /** Whether every partition of the current stream has it. */
  readonly isActive: boolean;
  /** bookedAt of every activation, epoch milliseconds; of the current stream and of those before it. */
  readonly activatedAts: readonly number[];
  /** bookedAt of those in front of which usage is not folded yet. */
  readonly pendingAts: readonly number[];
}

/**
 * Whether usage in front of an activation is still missing from the figures. True soon after an activation, false for ever from then on.
 * @param cutAt as known at this cut: activations booked later do not matter. null: now
 */
export function isBackfilling({ pendingAts }: MeterDefinition, cutAt: number | null): boolean {
  return pendingAts.some((bookedAt) => cutAt === null || bookedAt < cutAt);
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
  const ends = await analytics.select<PlaceRow & { until: string }>(ENDS_SQL, parameters);
  const backfills = await analytics.select<PlaceRow>(BACKFILLS_SQL, parameters);
  const backfilled = new Set(backfills.map(({ label, stream: id, partition }) => `${label}/${placeOf(id, partition)}`));
  const found = new Map<string, { version: MeterVersion; activations: Map<string, Activation> }>();
  for (const row of activations) {
    const version = ActivationSchema.parse(JSON.parse(row.body));
    const label = labelOf(version);
    const entry = found.get(label) ?? { version, activations: new Map<string, Activation>() };
    found.set(label, entry);
    const place = placeOf(row.stream, row.partition);
    // Rows come in the order of offsets: the first activation counts, a repeated one is a no-op.
    if (entry.activations.has(place)) continue;
    const isBackfilled = backfilled.has(`${label}/${place}`);
    entry.activations.set(place, { place, offset: BigInt(row.offset), bookedAt: Number(row.at), isBackfilled });
  }
  return [...found.values()]
    .map((entry) => definitionOf(entry, ends, stream))
    .sort((a, b) => compare(a.version.meter, b.version.meter) || a.version.version - b.version.version);
}

function definitionOf(
  { version, activations }: { readonly version: MeterVersion; readonly activations: ReadonlyMap<string, Activation> },
  ends: readonly (PlaceRow & { readonly until: string })[],
  stream: StreamSize,
): MeterDefinition {
  const untilAts = new Map<string, number>();
  for (const { label, until, ...row } of ends) {
    if (label !== labelOf(version)) continue;
    const place = placeOf(row.stream, row.partition);
    const untilAt = parseInstant(until) ?? Number.POSITIVE_INFINITY;
    untilAts.set(place, Math.min(untilAt, untilAts.get(place) ?? untilAt));
  }
  const places = placesOf(activations, untilAts, stream);
  const streams = new Set([stream, ...(stream.predecessors ?? [])].map(({ streamId }) => String(streamId)));
  // A stream that is none of these is not folded any more: what it has not counted it never will.
  const live = [...activations.values()].filter(({ place }) => streams.has(place.split("/")[0] ?? ""));
  return {
    version,
    places,
    isActive: isActiveIn(places, stream),
    activatedAts: live.map(({ bookedAt }) => bookedAt),
    pendingAts: live.filter(({ isBackfilled }) => !isBackfilled).map(({ bookedAt }) => bookedAt),
  };
}

function labelOf({ meter, version }: Pick<MeterVersion, "meter" | "version">): string {
  return `${meter}@${version}`;
}

interface PlaceRow {
  /** As {@link labelOf}. */
  readonly label: string;
  readonly stream: number;
  readonly partition: number;
}

interface ActivationRow extends Omit<PlaceRow, "label"> {
  readonly body: string;
  readonly offset: string;
  readonly at: string;
}

const ACTIVATIONS_SQL = `
SELECT body, stream, logPartition AS partition, toString(logOffset) AS offset, toString(toUnixTimestamp64Milli(bookedAt)) AS at
FROM control_records
WHERE kind = 'meter.activate' AND JSONExtractString(body, 'mode') = {mode:String}
  AND ({meter:String} = '' OR JSONExtractString(body, 'meter') = {meter:String})
ORDER BY stream, logPartition, logOffset`;

const ENDS_SQL = `
SELECT concat(JSONExtractString(body, 'meter'), '@', toString(JSONExtractUInt(body, 'version'))) AS label, stream,
  logPartition AS partition, JSONExtractString(body, 'until') AS until
FROM control_records
WHERE kind = 'meter.end' AND JSONExtractString(body, 'mode') = {mode:String}
  AND ({meter:String} = '' OR JSONExtractString(body, 'meter') = {meter:String})`;

const BACKFILLS_SQL = `
SELECT DISTINCT concat(meter, '@', toString(meterVersion)) AS label, stream, logPartition AS partition
FROM backfills WHERE mode = {mode:String} AND ({meter:String} = '' OR meter = {meter:String})`;

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
