/** Which meters exist, as the log itself says: the activation records that the aggregator stored. */
import { type AnalyticsStore, type Mode, MeterRuleSchema, type MeterVersion, parseInstant } from "@tallyhouse/domain";
import { z } from "zod";

const ActivationSchema = z.object({
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int(),
  rule: MeterRuleSchema,
});

/** A meter version and where in the log it became active. */
export interface MeterDefinition {
  readonly version: MeterVersion;
  /** Offset of the first activation per `stream/partition`. An event counts only behind it: there is no backfill yet. */
  readonly activatedOffsets: ReadonlyMap<string, bigint>;
  /** Whether every partition of the current stream has it. */
  readonly isActive: boolean;
}

/** Key of {@link MeterDefinition.activatedOffsets}. */
export function placeOf(stream: number, partition: number): string {
  return `${stream}/${partition}`;
}

/**
 * All versions of the mode's meters, oldest version first. A repeated activation is one definition (the fold ignores it too), so
 * the smallest offset is the one that counts.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readDefinitions(
  analytics: AnalyticsStore,
  stream: { readonly streamId: number; readonly partitionCount: number },
  filter: { readonly mode: Mode; readonly meter?: string },
): Promise<MeterDefinition[]> {
  const rows = await analytics.select<{ body: string; places: readonly (readonly string[])[] }>(
    `SELECT body, groupArray([toUInt64(stream), toUInt64(logPartition), logOffset]) AS places
     FROM control_records
     WHERE kind = 'meter.activate' AND JSONExtractString(body, 'mode') = {mode:String}
       AND ({meter:String} = '' OR JSONExtractString(body, 'meter') = {meter:String})
     GROUP BY body`,
    { mode: filter.mode, meter: filter.meter ?? "" },
  );
  const found = new Map<string, { version: MeterVersion; offsets: Map<string, bigint> }>();
  for (const { body, places } of rows) {
    const version = ActivationSchema.parse(JSON.parse(body));
    const key = `${version.meter}@${version.version}`;
    const entry = found.get(key) ?? { version, offsets: new Map<string, bigint>() };
    for (const [stream, partition, offset] of places) {
      const place = placeOf(Number(stream), Number(partition));
      const known = entry.offsets.get(place);
      const given = BigInt(offset ?? 0);
      if (known === undefined || given < known) entry.offsets.set(place, given);
    }
    found.set(key, entry);
  }
  return [...found.values()]
    .map(({ version, offsets }) => ({
      version,
      activatedOffsets: offsets,
      isActive: partitionsOf(offsets, stream.streamId) >= stream.partitionCount,
    }))
    .sort((a, b) =>
      a.version.meter === b.version.meter
        ? a.version.version - b.version.version
        : a.version.meter < b.version.meter
          ? -1
          : 1,
    );
}

function partitionsOf(offsets: ReadonlyMap<string, bigint>, streamId: number): number {
  return [...offsets.keys()].filter((place) => place.startsWith(`${streamId}/`)).length;
}

/**
 * The version that answers a question about a range: the newest active one whose rule begins before the range ends, else the
 * newest active one. Never a sum over versions: after a change both versions count the same usage events.
 * @param wanted a version number the caller named; only that one, then
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
