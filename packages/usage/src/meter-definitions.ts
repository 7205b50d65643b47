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
  const rows = await analytics.select<StoredRow>(STORED_SQL, { mode: filter.mode, meter: filter.meter ?? "" });
  const backfilled = new Set(
    rows.flatMap((row) => (row.kind === "backfill" ? [`${row.label}/${placeOfRow(row)}`] : [])),
  );
  const ends = rows.filter(({ kind }) => kind === "meter.end");
  const found = new Map<string, { version: MeterVersion; activations: Map<string, Activation> }>();
  // One activation stands in every partition: it is read once.
  const versions = new Map<string, MeterVersion>();
  for (const row of rows.filter(({ kind }) => kind === "meter.activate").sort(byOffset)) {
    const version = versions.get(row.activation) ?? ActivationSchema.parse(JSON.parse(row.activation));
    versions.set(row.activation, version);
    const label = labelOf(version);
    const entry = found.get(label) ?? { version, activations: new Map<string, Activation>() };
    found.set(label, entry);
    const place = placeOfRow(row);
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
  ends: readonly StoredRow[],
  stream: StreamSize,
): MeterDefinition {
  const untilAts = new Map<string, number>();
  for (const { label, until, ...row } of ends) {
    if (label !== labelOf(version)) continue;
    const place = placeOfRow(row);
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

function placeOfRow({ stream, partition }: Pick<StoredRow, "stream" | "partition">): string {
  return placeOf(stream, partition);
}

function byOffset(a: StoredRow, b: StoredRow): number {
  return Number(BigInt(a.offset) - BigInt(b.offset));
}

interface StoredRow {
  readonly kind: "meter.activate" | "meter.end" | "backfill";
  /** As {@link labelOf}. */
  readonly label: string;
  readonly stream: number;
  readonly partition: number;
  /** Of a control record. */
  readonly offset: string;
  readonly at: string;
  /** Of an activation. */
  readonly activation: string;
  /** Of an end. */
  readonly until: string;
}

/**
 * One statement, because a statement costs more than its rows. It may see one table a moment before the other: an activation whose
 * backfill it does not see is called pending, and a backfill whose activation it does not see is none; both are what was true before.
 */
const STORED_SQL = `
SELECT toString(kind) AS kind, concat(JSONExtractString(body, 'meter'), '@', toString(JSONExtractUInt(body, 'version'))) AS label,
  stream, logPartition AS partition, toString(logOffset) AS offset, toString(toUnixTimestamp64Milli(bookedAt)) AS at,
  if(kind = 'meter.activate', body, '') AS activation, JSONExtractString(body, 'until') AS until
FROM control_records
WHERE kind IN ('meter.activate', 'meter.end') AND JSONExtractString(body, 'mode') = {mode:String}
  AND ({meter:String} = '' OR JSONExtractString(body, 'meter') = {meter:String})
UNION ALL
SELECT DISTINCT 'backfill', concat(meter, '@', toString(meterVersion)), stream, logPartition, '', '', '', ''
FROM backfills WHERE mode = {mode:String} AND ({meter:String} = '' OR meter = {meter:String})
SETTINGS max_threads = 1`;

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
