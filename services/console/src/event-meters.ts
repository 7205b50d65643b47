/** Which meters count a stored usage event, where, and with which quantity: the fold's rule, asked for one row. */
import {
  assert,
  compileMeter,
  formatInstant,
  formatQuantity,
  isJsonObject,
  parseJson,
  WINDOW_MS,
  windowStartOf,
} from "@tallyhouse/domain";
import type { MeterDefinition } from "@tallyhouse/usage";
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

/**
 * Every meter version that counts the row.
 * @param correctedOffset where a correction of the row stands in the log: a meter that was activated behind it never saw the row
 */
export function countedIn(
  row: RawRow,
  definitions: readonly MeterDefinition[],
  correctedOffset: number | null,
): CountedIn[] {
  const data = parseJson(row.payload);
  assert(isJsonObject(data), `payload of a counted usage event is no object: offset ${row.offset}`);
  const { mode, customer, source, id, type, occurredAt } = row;
  const event = { mode, customer, source, id, type, occurredAt, isStamped: false, decidedAt: null, data };
  const windowStartAt = windowStartOf(occurredAt);
  return definitions.flatMap(({ version, places }) => {
    const { meter, version: number, rule } = version;
    const place = places.get(`${row.stream}/${row.partition}`);
    if (place === undefined || rule.eventType !== type) return [];
    const compiled = compileMeter(version);
    if (occurredAt < compiled.fromAt || occurredAt >= place.untilAt) return [];
    const lane = laneOf(place, { offset: row.offset, correctedOffset });
    if (lane === null) return [];
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
        lane,
      },
    ];
  });
}

/** How the meter came to count what stands at the offset; null where it does not. */
function laneOf(
  { fromOffset, backfilledAt }: { readonly fromOffset: bigint | null; readonly backfilledAt: number | null },
  { offset, correctedOffset }: { readonly offset: number; readonly correctedOffset: number | null },
): CountedIn["lane"] | null {
  if (fromOffset !== null && BigInt(offset) >= fromOffset) return "live";
  if (backfilledAt === null) return null;
  // A correction in front of the activation: the backfill has left the usage event out. So has it in a stream that is closed.
  const isLeftOut = correctedOffset !== null && (fromOffset === null || BigInt(correctedOffset) < fromOffset);
  return isLeftOut ? null : "backfill";
}
