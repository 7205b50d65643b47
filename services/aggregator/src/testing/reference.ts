/**
 * The fold again, in the dullest possible way: strings and maps, everything recomputed from the first record of a partition. Shares the
 * readers of packages/domain with the product, and none of its state.
 */
import {
  canonicalJson,
  type CompiledMeter,
  compileMeter,
  decodeControl,
  decodeUsageRecord,
  formatInstant,
  formatQuantity,
  isControl,
  type LogEntry,
  partitionOfEvent,
  quantityFromScaled,
} from "@tallyhouse/domain";
import { config, CONTROL_KEY, STREAM } from "./scenario.ts";

/** One rollup key's values after a prefix. */
export interface ReferenceRollup {
  counted: number;
  sum: bigint;
  min: bigint;
  max: bigint;
  last: bigint;
  lastAt: number;
  lastOffset: number;
}

/** What the first records of one partition mean. */
export interface ReferencePrefix {
  /** One status per offset. */
  readonly statuses: readonly string[];
  /** By `mode|customer|meter|version|window|dims|booked`. */
  readonly rollups: ReadonlyMap<string, ReferenceRollup>;
  readonly clockAt: number;
}

/** Folds the entries of one partition. */
export function referenceFold(partition: number, entries: readonly LogEntry[]): ReferencePrefix {
  const limits = config();
  const statuses: string[] = [];
  const rollups = new Map<string, ReferenceRollup>();
  const counted = new Map<string, { bookedSeconds: number; payload: string }>();
  const meters = new Map<string, CompiledMeter>();
  let clockAt = 0;
  for (const entry of entries) {
    clockAt = Math.max(clockAt, entry.receivedAt);
    statuses.push(fate(entry));
  }
  return { statuses, rollups, clockAt };

  function fate(entry: LogEntry): string {
    if (entry.marker) return "control";
    if (isControl(entry)) {
      const reading = decodeControl({ entry, partition, keys: [CONTROL_KEY] });
      if (reading.kind === "invalid") return "invalid";
      if (reading.fact.kind !== "meter.activate") return "control";
      const name = `${reading.fact.mode}|${reading.fact.meter}|${reading.fact.version}`;
      if (!meters.has(name)) meters.set(name, compileMeter(reading.fact));
      return "control";
    }
    const reading = decodeUsageRecord(entry);
    if (reading.kind === "rejected") return "invalid";
    const { event } = reading;
    if (partitionOfEvent(event, STREAM.partitionCount) !== partition) return "redirected";
    const bookedSeconds = Math.floor(clockAt / 1_000);
    const identity = JSON.stringify([event.mode, event.customer, event.source, event.id]);
    const time = event.occurredAt === null || event.isStamped ? "" : formatInstant(event.occurredAt);
    const payload = JSON.stringify([event.type, time, canonicalJson(event.data)]);
    const before = counted.get(identity);
    if (before !== undefined && bookedSeconds - before.bookedSeconds <= limits.DEDUPE_HORIZON_HOURS * 3_600)
      return before.payload === payload ? "duplicate" : "conflict";
    const occurredAt = event.occurredAt ?? entry.receivedAt;
    const ageSeconds = bookedSeconds - Math.floor(occurredAt / 1_000);
    if (ageSeconds > limits.MAX_AGE_HOURS * 3_600) return "too_late";
    if (ageSeconds < -limits.MAX_AHEAD_SECONDS) return "too_early";
    const matching = [...meters].filter(
      ([name, meter]) =>
        name.startsWith(`${event.mode}|`) && meter.version.rule.eventType === event.type && meter.fromAt <= occurredAt,
    );
    const found = matching.map(([name, meter]) => ({ name, contribution: meter.contributionOf(event) }));
    if (found.some(({ contribution }) => contribution.kind === "invalid")) return "invalid";
    counted.set(identity, { bookedSeconds, payload });
    for (const { name, contribution } of found) {
      if (contribution.kind !== "quantity") continue;
      const [mode, meter, version] = name.split("|");
      const windowStart = Math.floor(occurredAt / 900_000) * 900;
      const booked = bookedSeconds - (bookedSeconds % STREAM.bookingWindowSeconds);
      const dims = JSON.stringify(contribution.dims);
      const key = [mode, event.customer, meter, version, windowStart, dims, booked].join("|");
      const value = contribution.quantity;
      const rollup = rollups.get(key);
      const isLast = rollup === undefined || occurredAt >= rollup.lastAt;
      rollups.set(key, {
        counted: (rollup?.counted ?? 0) + 1,
        sum: (rollup?.sum ?? 0n) + value,
        min: rollup === undefined || value < rollup.min ? value : rollup.min,
        max: rollup === undefined || value > rollup.max ? value : rollup.max,
        last: isLast ? value : rollup.last,
        lastAt: isLast ? occurredAt : rollup.lastAt,
        lastOffset: isLast ? entry.offset : rollup.lastOffset,
      });
    }
    return "counted";
  }
}

/** The values as the stored row spells them. */
export function spelled(rollup: ReferenceRollup): Record<string, string | number> {
  const text = (scaled: bigint): string => formatQuantity(quantityFromScaled(scaled));
  return {
    counted: rollup.counted,
    voided: 0,
    sumQty: text(rollup.sum),
    minQty: text(rollup.min),
    maxQty: text(rollup.max),
    lastQty: text(rollup.last),
    lastAt: rollup.lastAt,
    lastOffset: rollup.lastOffset,
  };
}
