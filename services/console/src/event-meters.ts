/** Which meters count a stored usage event, where, and with which quantity: the fold's rule, asked for one row. */
import {
  type AnalyticsStore,
  assert,
  compileMeter,
  formatInstant,
  formatQuantity,
  isJsonObject,
  parseInstant,
  parseJson,
  WINDOW_MS,
  windowStartOf,
} from "@tallyhouse/domain";
import { z } from "zod";
import { type MeterDefinition, placeOf, readDefinitions } from "./meter-definitions.ts";
import type { RawRow } from "./raw-rows.ts";

/** One window of one meter version that a usage event is in. */
export interface CountedIn {
  readonly meter: string;
  readonly version: number;
  readonly windowStart: string;
  readonly windowEnd: string;
  readonly dimensions: Readonly<Record<string, string>>;
  /** Exact decimal text; null for unique_count, which tells values apart. */
  readonly quantity: string | null;
  /** The text that unique_count tells apart; null for every other meter. */
  readonly value: string | null;
  /** `backfill`: counted before the meter was activated, and added to it then. */
  readonly lane: "live" | "backfill";
}

/** What the meters of one mode look like from the places of the log. */
export interface MeterView {
  readonly definitions: readonly MeterDefinition[];
  /** Instant from which a version counts no more, by `meter_v1` and place. */
  readonly ends: ReadonlyMap<string, number>;
  /** Versions that a place has folded from its raw rows, as in `ends`. */
  readonly backfilled: ReadonlySet<string>;
}

const EndSchema = z.object({ meter: z.string(), version: z.int(), until: z.string() });

/**
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readMeterView(
  analytics: AnalyticsStore,
  stream: { readonly streamId: number; readonly partitionCount: number },
  mode: "live" | "test",
): Promise<MeterView> {
  const definitions = await readDefinitions(analytics, stream, { mode });
  const endRows = await analytics.select<{ stream: number; partition: number; body: string }>(
    `SELECT toUInt32(stream) AS stream, toUInt32(logPartition) AS partition, body FROM control_records
     WHERE kind = 'meter.end' AND JSONExtractString(body, 'mode') = {mode:String}`,
    { mode },
  );
  const ends = new Map<string, number>();
  for (const row of endRows) {
    const { meter, version, until } = EndSchema.parse(JSON.parse(row.body));
    const key = keyOf({ meter, version }, row);
    // Of several ends the earliest holds.
    ends.set(key, Math.min(ends.get(key) ?? Infinity, parseInstant(until) ?? Infinity));
  }
  const lanes = await analytics.select<{ stream: number; partition: number; meter: string; version: number }>(
    `SELECT DISTINCT toUInt32(stream) AS stream, toUInt32(logPartition) AS partition, meter,
       toUInt32(meterVersion) AS version
     FROM backfills WHERE mode = {mode:String}`,
    { mode },
  );
  return { definitions, ends, backfilled: new Set(lanes.map((lane) => keyOf(lane, lane))) };
}

function keyOf(
  { meter, version }: { readonly meter: string; readonly version: number },
  { stream, partition }: { readonly stream: number; readonly partition: number },
): string {
  return `${meter}_v${version}@${placeOf(stream, partition)}`;
}

/**
 * Every meter version that counts the row.
 * @param correctedOffset where a correction of the row stands in the log: a meter that was activated behind it never saw the row
 */
export function countedIn(row: RawRow, view: MeterView, correctedOffset: number | null): CountedIn[] {
  const data = parseJson(row.payload);
  assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${row.offset}`);
  const { mode, customer, source, id, type, occurredAt } = row;
  const event = { mode, customer, source, id, type, occurredAt, isStamped: false, decidedAt: null, data };
  const windowStartAt = windowStartOf(occurredAt);
  return view.definitions.flatMap(({ version, activatedOffsets }) => {
    const { meter, version: number, rule } = version;
    const activated = activatedOffsets.get(placeOf(row.stream, row.partition));
    if (activated === undefined || rule.eventType !== type) return [];
    const key = keyOf({ meter, version: number }, row);
    const compiled = compileMeter(version);
    if (occurredAt < compiled.fromAt || occurredAt >= (view.ends.get(key) ?? Infinity)) return [];
    const isLive = BigInt(row.offset) > activated;
    const isSeenLater = view.backfilled.has(key) && (correctedOffset === null || BigInt(correctedOffset) > activated);
    if (!isLive && !isSeenLater) return [];
    const contribution = compiled.contributionOf(event);
    if (contribution.kind !== "quantity") return [];
    const names = Object.keys(rule.dimensions);
    return [
      {
        meter,
        version: number,
        windowStart: formatInstant(windowStartAt),
        windowEnd: formatInstant(windowStartAt + WINDOW_MS),
        dimensions: Object.fromEntries(names.map((name, index) => [name, contribution.dims[index] ?? ""])),
        quantity: contribution.uniqueText === null ? formatQuantity(contribution.quantity) : null,
        value: contribution.uniqueText,
        lane: isLive ? ("live" as const) : ("backfill" as const),
      },
    ];
  });
}
