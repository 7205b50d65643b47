/**
 * The fold again, in the dullest possible way: strings and maps, everything recomputed from the first record of a partition. Shares the
 * readers of packages/domain with the product, and none of its state.
 */
import {
  canonicalJson,
  type CompiledMeter,
  compileMeter,
  type ControlFact,
  decodeControl,
  decodeUsageRecord,
  formatInstant,
  formatQuantity,
  isControl,
  type LogEntry,
  partitionOfEvent,
  quantityFromScaled,
  readCorrectedEvent,
  uniqueHashOf,
  type UsageEvent,
} from "@tallyhouse/domain";
import { config, CONTROL_KEY, STREAM } from "./scenario.ts";

/** One rollup key's values after a prefix. */
export interface ReferenceRollup {
  counted: number;
  voided: number;
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
  /** The same after each prefix: the n-th is that of the first n records. */
  readonly rollupsAt: readonly ReadonlyMap<string, ReferenceRollup>[];
  readonly clockAt: number;
  /** By offset: kind and target of the control records that took effect. */
  readonly controls: ReadonlyMap<number, string>;
  /** Hash texts of unique_count, by `mode|customer|meter|version|window|dims|booked|hash`. */
  readonly uniques: ReadonlySet<string>;
}

/** Folds the entries of one partition. */
export function referenceFold(partition: number, entries: readonly LogEntry[]): ReferencePrefix {
  const limits = config();
  const statuses: string[] = [];
  const rollups = new Map<string, ReferenceRollup>();
  const counted = new Map<string, { bookedSeconds: number; payload: string }>();
  const meters = new Map<string, { compiled: CompiledMeter; untilAt: number }>();
  const controls = new Map<number, string>();
  const uniques = new Set<string>();
  const voids = new Set<number>();
  let isClosed = false;
  let clockAt = 0;
  const rollupsAt = [new Map<string, ReferenceRollup>()];
  for (const entry of entries) {
    clockAt = Math.max(clockAt, entry.receivedAt);
    statuses.push(fate(entry));
    rollupsAt.push(new Map(rollups));
  }
  return { statuses, rollups, rollupsAt, clockAt, controls, uniques };

  function fate(entry: LogEntry): string {
    if (entry.marker) return "control";
    if (isControl(entry)) {
      const reading = decodeControl({ entry, partition, keys: [CONTROL_KEY] });
      if (reading.kind === "invalid") return "invalid";
      return reading.fact.kind === "tick" ? "control" : isClosed ? "invalid" : control(entry, reading.fact);
    }
    return isClosed ? "invalid" : usage(entry);
  }

  function control(entry: LogEntry, fact: ControlFact): string {
    const { offset } = entry;
    if ("stream" in fact && fact.stream !== STREAM.streamId) return "invalid";
    if (fact.kind === "stream.close") {
      isClosed = true;
      controls.set(offset, "stream.close");
    }
    if (fact.kind === "meter.activate" || fact.kind === "meter.end") {
      const name = `${fact.mode}|${fact.meter}|${fact.version}`;
      const known = meters.get(name);
      if (fact.kind === "meter.activate") {
        if (known === undefined) controls.set(offset, "meter.activate");
        meters.set(name, known ?? { compiled: compileMeter(fact), untilAt: Infinity });
        return "control";
      }
      const untilAt = Date.parse(fact.until);
      const limit = Math.floor(clockAt / 1_000) + limits.MAX_AHEAD_SECONDS;
      if (known === undefined || untilAt < (limit + 1) * 1_000) return "invalid";
      if (untilAt < known.untilAt) controls.set(offset, "meter.end");
      known.untilAt = Math.min(known.untilAt, untilAt);
    }
    if (fact.kind === "void" || fact.kind === "replace") {
      const original = eventOf(fact.event);
      if (fact.offset >= offset || !isPossible(original)) return "invalid";
      if (voids.has(fact.offset)) return "control";
      const replacement = fact.kind === "replace" ? eventOf(fact.replacement) : null;
      if (replacement !== null) {
        if (partitionOfEvent(replacement, STREAM.partitionCount) !== partition) return "invalid";
        if (isKnown(replacement) || !isPossible(replacement)) return "invalid";
        if (said(replacement, replacement.occurredAt).some(({ contribution }) => contribution.kind === "invalid"))
          return "invalid";
      }
      voids.add(fact.offset);
      controls.set(offset, `${fact.kind} ${fact.offset}`);
      add(original, { offset, occurredAt: original.occurredAt, sign: -1n });
      if (replacement === null) return "control";
      counted.set(identityOf(replacement), { bookedSeconds: bookedSeconds(), payload: payloadOf(replacement) });
      add(replacement, { offset, occurredAt: replacement.occurredAt, sign: 1n });
      return "counted";
    }
    return "control";
  }

  function usage(entry: LogEntry): string {
    const reading = decodeUsageRecord(entry);
    if (reading.kind === "rejected") return "invalid";
    const { event } = reading;
    if (partitionOfEvent(event, STREAM.partitionCount) !== partition) return "redirected";
    if (isKnown(event)) return counted.get(identityOf(event))?.payload === payloadOf(event) ? "duplicate" : "conflict";
    const occurredAt = event.occurredAt ?? entry.receivedAt;
    const ageSeconds = bookedSeconds() - Math.floor(occurredAt / 1_000);
    if (ageSeconds > limits.MAX_AGE_HOURS * 3_600) return "too_late";
    if (ageSeconds < -limits.MAX_AHEAD_SECONDS) return "too_early";
    if (said(event, occurredAt).some(({ contribution }) => contribution.kind === "invalid")) return "invalid";
    counted.set(identityOf(event), { bookedSeconds: bookedSeconds(), payload: payloadOf(event) });
    add(event, { offset: entry.offset, occurredAt, sign: 1n });
    return "counted";
  }

  function bookedSeconds(): number {
    return Math.floor(clockAt / 1_000);
  }

  function isKnown(event: UsageEvent): boolean {
    const before = counted.get(identityOf(event));
    return before !== undefined && bookedSeconds() - before.bookedSeconds <= limits.DEDUPE_HORIZON_HOURS * 3_600;
  }

  function isPossible({ occurredAt }: { occurredAt: number }): boolean {
    return occurredAt >= 0 && Math.floor(occurredAt / 1_000) <= bookedSeconds() + limits.MAX_AHEAD_SECONDS;
  }

  /** What the meters of now say about the usage event. */
  function said(event: UsageEvent, occurredAt: number) {
    return [...meters]
      .filter(([name]) => name.startsWith(`${event.mode}|`))
      .filter(([, meter]) => meter.compiled.version.rule.eventType === event.type)
      .filter(([, meter]) => meter.compiled.fromAt <= occurredAt && occurredAt < meter.untilAt)
      .map(([name, meter]) => ({ name, contribution: meter.compiled.contributionOf(event) }));
  }

  function add(event: UsageEvent, place: { offset: number; occurredAt: number; sign: 1n | -1n }): void {
    const { offset, occurredAt, sign } = place;
    for (const { name, contribution } of said(event, occurredAt)) {
      if (contribution.kind !== "quantity") continue;
      const [mode, meter, version] = name.split("|");
      const windowStart = Math.floor(occurredAt / 900_000) * 900;
      const booked = bookedSeconds() - (bookedSeconds() % STREAM.bookingWindowSeconds);
      const dims = JSON.stringify(contribution.dims);
      const key = [mode, event.customer, meter, version, windowStart, dims, booked].join("|");
      const before = rollups.get(key) ?? {
        counted: 0,
        voided: 0,
        sum: 0n,
        min: 0n,
        max: 0n,
        last: 0n,
        lastAt: 0,
        lastOffset: 0,
      };
      const value: bigint = contribution.quantity;
      if (sign === -1n) {
        rollups.set(key, { ...before, voided: before.voided + 1, sum: before.sum - value });
        continue;
      }
      if (contribution.uniqueText !== null) uniques.add(`${key}|${uniqueHashOf(contribution.uniqueText)}`);
      const isFirst = before.counted === 0;
      const isLast = isFirst || occurredAt >= before.lastAt;
      rollups.set(key, {
        counted: before.counted + 1,
        voided: before.voided,
        sum: before.sum + value,
        min: isFirst || value < before.min ? value : before.min,
        max: isFirst || value > before.max ? value : before.max,
        last: isLast ? value : before.last,
        lastAt: isLast ? occurredAt : before.lastAt,
        lastOffset: isLast ? offset : before.lastOffset,
      });
    }
  }
}

function eventOf(text: string): UsageEvent & { occurredAt: number } {
  const event = readCorrectedEvent(text);
  if (event === null) throw new Error("a correction that was decoded holds no usage event");
  return event;
}

function identityOf(event: UsageEvent): string {
  return JSON.stringify([event.mode, event.customer, event.source, event.id]);
}

function payloadOf(event: UsageEvent): string {
  const time = event.occurredAt === null || event.isStamped ? "" : formatInstant(event.occurredAt);
  return JSON.stringify([event.type, time, canonicalJson(event.data)]);
}

/** The values as the stored row spells them. */
export function spelled(rollup: ReferenceRollup): Record<string, string | number> {
  const text = (scaled: bigint): string => formatQuantity(quantityFromScaled(scaled));
  return {
    counted: rollup.counted,
    voided: rollup.voided,
    sumQty: text(rollup.sum),
    minQty: text(rollup.min),
    maxQty: text(rollup.max),
    lastQty: text(rollup.last),
    lastAt: rollup.lastAt,
    lastOffset: rollup.lastOffset,
  };
}
