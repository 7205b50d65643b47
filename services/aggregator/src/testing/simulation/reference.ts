/**
 * What the log means, folded in the dullest possible way: strings, maps and the readers of packages/domain; no line of the product's
 * fold. Every state that a key ever had is kept, so that S(p, n) can be looked up for any prefix.
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
  parseInstant,
  partitionOfEvent,
  quantityFromScaled,
  readCorrectedEvent,
  uniqueHashOf,
  type UsageEvent,
} from "@tallyhouse/domain";
import { CONTROL_KEY } from "../scenario.ts";

/** The constants of a schedule's stream and aggregator. */
export interface ReferenceLimits {
  readonly partitionCount: number;
  readonly bookingWindowSeconds: number;
  readonly horizonSeconds: number;
  readonly maxAgeSeconds: number;
  readonly maxAheadSeconds: number;
}

/** One rollup key's values, spelled as a stored row spells them. */
export interface ReferenceValues {
  readonly counted: number;
  readonly voided: number;
  readonly sumQty: bigint;
  readonly minQty: bigint;
  readonly maxQty: bigint;
  readonly lastQty: bigint;
  readonly lastAt: number;
  readonly lastOffset: number;
}

interface Change {
  /** The values hold for prefixes longer than this offset. */
  readonly offset: number;
  readonly values: ReferenceValues;
}

interface Meter {
  readonly compiled: CompiledMeter;
  readonly activatedAtOffset: number;
  untilAt: number;
}

/** What became of one offset. */
export interface ReferenceFate {
  readonly status: string;
  readonly reason: string;
  readonly bookedAt: number;
  /** The usage event that it holds or, for a replacement, counts. */
  readonly event: UsageEvent | null;
  readonly occurredAt: number;
  readonly hasControlRow: boolean;
  /** Usage events counted up to and with this offset. */
  readonly countedSoFar: number;
}

type Timed = UsageEvent & { readonly occurredAt: number };

interface ReferenceBackfill {
  readonly version: number;
  readonly rows: ReadonlyMap<string, ReferenceValues>;
  readonly uniques: ReadonlySet<string>;
}

interface Fate {
  readonly status: string;
  readonly reason: string;
  readonly event?: UsageEvent;
  readonly occurredAt?: number;
  readonly hasControlRow?: boolean;
}

const ZERO = { counted: 0, voided: 0, sumQty: 0n, minQty: 0n, maxQty: 0n, lastQty: 0n, lastAt: 0, lastOffset: 0 };

/** The name by which equal identities are equal. */
export function identityOf(event: { mode: string; customer: string; source: string; id: string }): string {
  return JSON.stringify([event.mode, event.customer, event.source, event.id]);
}

/** The fold of one partition; it follows the log as far as it is asked to. */
export class ReferencePartition {
  readonly fates: ReferenceFate[] = [];
  /** `mode|customer|meter|version|window|dims|booked` → every state the key had. */
  readonly histories = new Map<string, Change[]>();
  /** Rows of rollup_uniq by `key|hash`, with the offset that added them. */
  readonly uniques = new Map<string, number>();
  readonly meters = new Map<string, Meter>();
  isClosed = false;
  readonly #limits: ReferenceLimits;
  readonly #partition: number;
  readonly #counted = new Map<string, { bookedSeconds: number; payload: string }>();
  /** Offsets whose usage event was taken back, with the offset that did it. */
  readonly voided = new Map<number, number>();
  readonly #backfills = new Map<string, ReferenceBackfill>();
  #clockAt = 0;
  #countedSoFar = 0;

  constructor(partition: number, limits: ReferenceLimits) {
    this.#partition = partition;
    this.#limits = limits;
  }

  /** Folds what the log has beyond what was folded. */
  follow(entries: readonly LogEntry[]): void {
    for (const entry of entries.slice(this.fates.length)) {
      this.#clockAt = Math.max(this.#clockAt, entry.receivedAt);
      const { event = null, hasControlRow = false, ...fate } = this.#fateOf(entry);
      this.fates.push({
        ...fate,
        event,
        occurredAt: fate.occurredAt ?? 0,
        hasControlRow,
        bookedAt: this.#clockAt,
        countedSoFar: this.#countedSoFar,
      });
    }
  }

  /** The key's values in S(p, prefix); null when nothing of that prefix touched it. */
  valuesAt(key: string, prefix: number): ReferenceValues | null {
    return this.histories.get(key)?.findLast(({ offset }) => offset < prefix)?.values ?? null;
  }

  /**
   * What stands in front of the meter's activation: every state of lane 1, by its key, and its hashes. A function of the prefix below
   * the activation; null while that is not in the log.
   */
  backfillOf(name: string): ReferenceBackfill | null {
    const meter = this.meters.get(name);
    if (meter === undefined) return null;
    const known = this.#backfills.get(name);
    if (known !== undefined) return known;
    const { activatedAtOffset: version } = meter;
    const rows = new Map<string, ReferenceValues>();
    const uniques = new Set<string>();
    const clockAt = this.fates[version]?.bookedAt ?? 0;
    for (const [offset, { status, event, occurredAt }] of this.fates.slice(0, version).entries()) {
      if (status !== "counted" || event === null || (this.voided.get(offset) ?? Infinity) < version) continue;
      const contribution = this.#contributionTo(name, { meter: { ...meter, untilAt: Infinity }, event, occurredAt });
      if (contribution?.kind !== "quantity") continue;
      const key = this.#keyOf(name, { event, occurredAt, dims: contribution.dims, clockAt });
      rows.set(key, added(rows.get(key) ?? ZERO, { quantity: contribution.quantity, occurredAt, offset }));
      if (contribution.uniqueText !== null) uniques.add(`${key}|${uniqueHashOf(contribution.uniqueText)}`);
    }
    const found = { version, rows, uniques };
    this.#backfills.set(name, found);
    return found;
  }

  #fateOf(entry: LogEntry): Fate {
    if (entry.marker) return { status: "control", reason: "marker" };
    if (isControl(entry)) return this.#control(entry);
    const reading = decodeUsageRecord(entry);
    if (this.isClosed) {
      const closed = { status: "invalid", reason: "STREAM_CLOSED" };
      return reading.kind === "event" ? { ...closed, event: reading.event } : closed;
    }
    if (reading.kind === "rejected") return { status: "invalid", reason: reading.rejection.code };
    const { event } = reading;
    const occurredAt = event.occurredAt ?? entry.receivedAt;
    const found = { event, occurredAt, reason: "" };
    if (partitionOfEvent(event, this.#limits.partitionCount) !== this.#partition)
      return { ...found, status: "redirected" };
    const before = this.#known(event);
    if (before !== null) return { ...found, status: before === payloadOf(event) ? "duplicate" : "conflict" };
    const ageSeconds = this.#bookedSeconds() - Math.floor(occurredAt / 1_000);
    if (ageSeconds > this.#limits.maxAgeSeconds) return { ...found, status: "too_late" };
    if (this.#isTooEarly(occurredAt)) return { ...found, status: "too_early" };
    const unreadable = this.#unreadable(event, occurredAt);
    if (unreadable !== null) return { ...found, status: "invalid", reason: `METER_VALUE_INVALID:${unreadable}` };
    this.#count(entry.offset, event, occurredAt);
    return { ...found, status: "counted" };
  }

  #control(entry: LogEntry): Fate {
    const invalid = { status: "invalid", reason: "CONTROL_RECORD_INVALID" };
    const reading = decodeControl({ entry, partition: this.#partition, keys: [CONTROL_KEY] });
    if (reading.kind === "control" && reading.fact.kind === "tick") return { status: "control", reason: "tick" };
    if (this.isClosed) return { status: "invalid", reason: "STREAM_CLOSED" };
    if (reading.kind === "invalid") return invalid;
    const { fact } = reading;
    const effect = this.#apply(entry.offset, fact);
    if (effect === "invalid") return invalid;
    const control = { status: "control", reason: fact.kind, hasControlRow: effect !== "none" };
    if (effect === "none" || effect === "done") return control;
    return { ...control, status: "counted", event: effect, occurredAt: effect.occurredAt };
  }

  /** What the fact does; the replacement where it counts one. */
  #apply(offset: number, fact: ControlFact): "invalid" | "none" | "done" | Timed {
    switch (fact.kind) {
      case "tick":
        return "none";
      case "stream.close":
        this.isClosed = true;
        return "done";
      case "meter.activate": {
        const name = `${fact.mode}|${fact.meter}|${fact.version}`;
        if (this.meters.has(name)) return "none";
        this.meters.set(name, { compiled: compileMeter(fact), untilAt: Infinity, activatedAtOffset: offset });
        return "done";
      }
      case "meter.end":
        return this.#end(fact);
      case "void":
      case "replace":
        return this.#correct(offset, fact);
    }
  }

  #end(fact: Extract<ControlFact, { kind: "meter.end" }>): "invalid" | "none" | "done" {
    const meter = this.meters.get(`${fact.mode}|${fact.meter}|${fact.version}`);
    const untilAt = parseInstant(fact.until) ?? 0;
    if (meter === undefined || !this.#isTooEarly(untilAt)) return "invalid";
    if (untilAt >= meter.untilAt) return "none";
    meter.untilAt = untilAt;
    return "done";
  }

  #correct(
    offset: number,
    fact: Extract<ControlFact, { kind: "void" | "replace" }>,
  ): "invalid" | "none" | "done" | Timed {
    const event = readCorrectedEvent(fact.event);
    if (event === null || fact.offset >= offset || this.#isTooEarly(event.occurredAt)) return "invalid";
    if (this.voided.has(fact.offset)) return "none";
    if (fact.kind === "void") {
      this.#void(offset, fact.offset, event);
      return "done";
    }
    const next = readCorrectedEvent(fact.replacement);
    if (next === null || !this.#isAcceptable(next)) return "invalid";
    this.#void(offset, fact.offset, event);
    this.#count(offset, next, next.occurredAt);
    return next;
  }

  #isTooEarly(at: number): boolean {
    return Math.floor(at / 1_000) - this.#bookedSeconds() > this.#limits.maxAheadSeconds;
  }

  #isAcceptable(next: Timed): boolean {
    return (
      partitionOfEvent(next, this.#limits.partitionCount) === this.#partition &&
      this.#known(next) === null &&
      !this.#isTooEarly(next.occurredAt) &&
      this.#unreadable(next, next.occurredAt) === null
    );
  }

  #void(offset: number, target: number, event: Timed): void {
    this.voided.set(target, offset);
    for (const { name, quantity, dims } of this.#contributions(event, event.occurredAt)) {
      const key = this.#keyOf(name, { event, occurredAt: event.occurredAt, dims });
      const before = this.histories.get(key)?.at(-1)?.values ?? ZERO;
      this.#change(key, offset, { ...before, voided: before.voided + 1, sumQty: before.sumQty - quantity });
    }
  }

  #count(offset: number, event: UsageEvent, occurredAt: number): void {
    this.#counted.set(identityOf(event), { bookedSeconds: this.#bookedSeconds(), payload: payloadOf(event) });
    this.#countedSoFar += 1;
    for (const { name, quantity, dims, uniqueText } of this.#contributions(event, occurredAt)) {
      const key = this.#keyOf(name, { event, occurredAt, dims });
      const before = this.histories.get(key)?.at(-1)?.values ?? ZERO;
      this.#change(key, offset, added(before, { quantity, occurredAt, offset }));
      if (uniqueText === null) continue;
      const unique = `${key}|${uniqueHashOf(uniqueText)}`;
      if (!this.uniques.has(unique)) this.uniques.set(unique, offset);
    }
  }

  #change(key: string, offset: number, values: ReferenceValues): void {
    const history = this.histories.get(key) ?? [];
    this.histories.set(key, history);
    if (history.at(-1)?.offset === offset) history.pop();
    history.push({ offset, values });
  }

  #keyOf(
    name: string,
    of: { event: UsageEvent; occurredAt: number; dims: readonly string[]; clockAt?: number },
  ): string {
    const [mode, meter, version] = name.split("|");
    const windowStart = Math.floor(of.occurredAt / 900_000) * 900;
    const bookedSeconds = Math.floor((of.clockAt ?? this.#clockAt) / 1_000);
    const booked = bookedSeconds - (bookedSeconds % this.#limits.bookingWindowSeconds);
    return [mode, of.event.customer, meter, version, windowStart, JSON.stringify(of.dims), booked].join("|");
  }

  /** What the event says to the meters of now; those that cannot read it say nothing. */
  #contributions(event: UsageEvent, occurredAt: number) {
    return [...this.meters].flatMap(([name, meter]) => {
      const contribution = this.#contributionTo(name, { meter, event, occurredAt });
      return contribution?.kind === "quantity" ? [{ name, ...contribution }] : [];
    });
  }

  #unreadable(event: UsageEvent, occurredAt: number): string | null {
    for (const [name, meter] of this.meters) {
      const contribution = this.#contributionTo(name, { meter, event, occurredAt });
      if (contribution?.kind === "invalid") return meter.compiled.version.meter;
    }
    return null;
  }

  #contributionTo(name: string, of: { meter: Meter; event: UsageEvent; occurredAt: number }) {
    const { meter, event, occurredAt } = of;
    const { rule } = meter.compiled.version;
    if (!name.startsWith(`${event.mode}|`) || rule.eventType !== event.type) return null;
    if (occurredAt < meter.compiled.fromAt || occurredAt >= meter.untilAt) return null;
    return meter.compiled.contributionOf(event);
  }

  /** The payload under which the identity was counted within the horizon. */
  #known(event: UsageEvent): string | null {
    const before = this.#counted.get(identityOf(event));
    if (before === undefined) return null;
    return this.#bookedSeconds() - before.bookedSeconds <= this.#limits.horizonSeconds ? before.payload : null;
  }

  #bookedSeconds(): number {
    return Math.floor(this.#clockAt / 1_000);
  }
}

/** The values with one usage event more. */
function added(
  before: ReferenceValues,
  more: { quantity: bigint; occurredAt: number; offset: number },
): ReferenceValues {
  const { quantity, occurredAt, offset } = more;
  const isFirst = before.counted === 0;
  const isLast = isFirst || occurredAt >= before.lastAt;
  return {
    counted: before.counted + 1,
    voided: before.voided,
    sumQty: before.sumQty + quantity,
    minQty: isFirst || quantity < before.minQty ? quantity : before.minQty,
    maxQty: isFirst || quantity > before.maxQty ? quantity : before.maxQty,
    lastQty: isLast ? quantity : before.lastQty,
    lastAt: isLast ? occurredAt : before.lastAt,
    lastOffset: isLast ? offset : before.lastOffset,
  };
}

function payloadOf(event: UsageEvent): string {
  const time = event.occurredAt === null || event.isStamped ? "" : formatInstant(event.occurredAt);
  return JSON.stringify([event.type, time, canonicalJson(event.data)]);
}

/** The values as a stored row spells them. */
export function spelled(values: ReferenceValues): Record<string, string | number> {
  const text = (scaled: bigint): string => formatQuantity(quantityFromScaled(scaled));
  return {
    counted: values.counted,
    voided: values.voided,
    sumQty: text(values.sumQty),
    minQty: text(values.minQty),
    maxQty: text(values.maxQty),
    lastQty: text(values.lastQty),
    lastAt: values.lastAt,
    lastOffset: values.lastOffset,
  };
}
