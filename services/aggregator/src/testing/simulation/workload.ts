/** What producers and operators write to the log in a schedule: every kind of record, in any order, at any time. */
import { type Dice, meterVersion, usageEvent } from "@tallyhouse/testkit";
import {
  CONTROL_HEADER,
  type ControlFact,
  encodeControl,
  encodeUsageEvent,
  formatInstant,
  type LogRecord,
  type MeterVersion,
  partitionOfEvent,
  recordKeyOf,
  type UsageEvent,
} from "@tallyhouse/domain";
import { CONTROL_KEY } from "../scenario.ts";
import type { ReferenceLimits } from "./reference.ts";

/** Texts whose parts could be mistaken for each other if an identity were joined without lengths. */
const CUSTOMERS = ["acme", "a/b", "a"] as const;
const SOURCES = ["api", "b/c", "c"] as const;
/** The last ones are beyond a double: a float anywhere changes a sum. */
const QUANTITIES = [
  1,
  7,
  0.1,
  0.2,
  -3,
  "0.000000001",
  "90071992547409.123456789",
  "123456789012345.000000001",
] as const;
const AGGREGATIONS = ["sum", "count", "max", "min", "latest", "unique_count"] as const;

/** A usage event that is counted and stored: what an operator can correct. */
export interface Correctable {
  readonly partition: number;
  readonly offset: number;
  readonly event: UsageEvent;
  readonly occurredAt: number;
}

/** Makes one record after another. */
export class Workload {
  readonly #dice: Dice;
  readonly #correctable: () => readonly Correctable[];
  readonly #limits: ReferenceLimits;
  readonly #sent: UsageEvent[] = [];
  readonly #meters: readonly MeterVersion[];
  #count = 0;

  constructor(
    dice: Dice,
    limits: ReferenceLimits,
    world: { startAt: number; correctable: () => readonly Correctable[] },
  ) {
    this.#dice = dice;
    this.#limits = limits;
    this.#correctable = world.correctable;
    this.#meters = AGGREGATIONS.map((aggregation, n) =>
      meterVersion({
        meter: `by_${aggregation}`,
        mode: dice.chance(0.8) ? "live" : "test",
        rule: {
          aggregation,
          ...(aggregation === "count" ? { value: undefined } : {}),
          ...(aggregation === "unique_count" ? { value: "/user" } : {}),
          dimensions: n % 2 === 0 ? { model: "/model" } : {},
          from: formatInstant(world.startAt + (dice.chance(0.7) ? -86_400_000 : dice.below(3_600_000))),
        },
      }),
    );
  }

  /** The next record or records; null is a neighbour's transaction marker. */
  next(nowAt: number): readonly LogRecord[] | null {
    const dice = this.#dice;
    this.#count += 1;
    // The first records activate something, or most of a schedule would count nothing.
    if (this.#count <= 2 || dice.chance(0.04))
      return this.#everywhere({ kind: "meter.activate", ...dice.pick(this.#meters) });
    const kind = dice.weighted([
      { weight: 50, make: () => this.#fresh(nowAt) },
      { weight: 14, make: () => this.#retry() },
      { weight: 4, make: () => this.#conflict() },
      { weight: 4, make: () => this.#retimed(nowAt) },
      { weight: 3, make: () => this.#garbage() },
      { weight: 2, make: () => [this.#control({ kind: "tick" })] },
      { weight: 1, make: () => [this.#unsigned()] },
      { weight: 1, make: () => null },
      { weight: 6, make: () => this.#correction(nowAt) },
      { weight: 1, make: () => this.#end(nowAt) },
      // Closed streams stay closed, so this is rare, and late.
      { weight: this.#count > 100 ? 0.3 : 0, make: () => [this.#control({ kind: "stream.close" })] },
    ]);
    return kind.make();
  }

  #fresh(nowAt: number): LogRecord[] {
    const dice = this.#dice;
    const { maxAgeSeconds, maxAheadSeconds } = this.#limits;
    const ageSeconds = dice.weighted([
      { weight: 10, of: () => dice.below(60) },
      { weight: 5, of: () => dice.below(maxAgeSeconds) },
      { weight: 2, of: () => maxAgeSeconds - dice.below(30) },
      { weight: 1, of: () => maxAgeSeconds + dice.below(600) },
      { weight: 1, of: () => -dice.below(2 * maxAheadSeconds) },
    ]);
    const event = usageEvent({
      mode: dice.chance(0.85) ? "live" : "test",
      customer: dice.pick(CUSTOMERS),
      source: dice.pick(SOURCES),
      id: `evt-${dice.below(400)}`,
      type: dice.chance(0.9) ? "llm.request" : "other",
      occurredAt: dice.chance(0.06) ? null : nowAt - ageSeconds.of() * 1_000,
      data: this.#data(),
    });
    this.#sent.push(event);
    return [this.#record(event)];
  }

  #retry(): LogRecord[] {
    return this.#sent.length === 0 ? [] : [this.#record(this.#earlier())];
  }

  #conflict(): LogRecord[] {
    return this.#sent.length === 0 ? [] : [this.#record({ ...this.#earlier(), data: this.#data() })];
  }

  /** The same identity with another time: only the horizon tells when it counts again. */
  #retimed(nowAt: number): LogRecord[] {
    return this.#sent.length === 0 ? [] : [this.#record({ ...this.#earlier(), occurredAt: nowAt })];
  }

  /** Takes a counted usage event back or replaces it; at times one that was corrected before, or that does not exist yet. */
  #correction(nowAt: number): LogRecord[] {
    const dice = this.#dice;
    const targets = this.#correctable();
    if (targets.length === 0) return [];
    const { partition, offset, event, occurredAt } = dice.pick(targets);
    const target = {
      offset: dice.chance(0.03) ? offset + 10_000 : offset,
      event: correctedText({ ...event, occurredAt }),
    };
    const replacement = {
      ...event,
      id: dice.chance(0.1) ? event.id : `new-${dice.below(1_000)}`,
      occurredAt: dice.chance(0.9) ? occurredAt : nowAt + 2_000 * this.#limits.maxAheadSeconds,
      data: this.#data(),
    };
    const fact: ControlFact = dice.chance(0.5)
      ? { kind: "void", ...target }
      : { kind: "replace", ...target, replacement: correctedText(replacement) };
    const record = encodeControl({ fact, partition, key: CONTROL_KEY });
    return dice.chance(0.15) ? [record, record] : [record];
  }

  /** Sent to every partition; some may find it too late for their clock, as long as none counted beyond it. */
  #end(nowAt: number): LogRecord[] {
    const { mode, meter, version } = this.#dice.pick(this.#meters);
    const untilAt = nowAt + this.#dice.below(3 * this.#limits.maxAheadSeconds) * 1_000;
    return this.#everywhere({ kind: "meter.end", mode, meter, version, until: formatInstant(untilAt) });
  }

  #garbage(): LogRecord[] {
    const partition = this.#dice.below(this.#limits.partitionCount);
    return [{ partition, key: null, value: this.#dice.chance(0.5) ? Buffer.from("{") : null, headers: {} }];
  }

  #unsigned(): LogRecord {
    return { ...this.#control({ kind: "tick" }), headers: { [CONTROL_HEADER]: Buffer.from("tick") } };
  }

  #control(fact: ControlFact): LogRecord {
    const partition = this.#dice.below(this.#limits.partitionCount);
    return encodeControl({ fact, partition, key: CONTROL_KEY });
  }

  #everywhere(fact: ControlFact): LogRecord[] {
    return Array.from({ length: this.#limits.partitionCount }, (_, partition) =>
      encodeControl({ fact, partition, key: CONTROL_KEY }),
    );
  }

  /** Mostly a recent one, at times any. */
  #earlier(): UsageEvent {
    const dice = this.#dice;
    const from = dice.chance(0.6) ? Math.max(0, this.#sent.length - 10) : 0;
    return dice.pick(this.#sent.slice(from));
  }

  #record(event: UsageEvent): LogRecord {
    const belongs = partitionOfEvent(event, this.#limits.partitionCount);
    const partition = this.#dice.chance(0.08) ? this.#dice.below(this.#limits.partitionCount) : belongs;
    return { partition, key: recordKeyOf(event), value: encodeUsageEvent(event, {}), headers: {} };
  }

  #data(): Record<string, unknown> {
    const dice = this.#dice;
    return {
      ...(dice.chance(0.96) ? { inputTokens: dice.pick(QUANTITIES) } : {}),
      ...(dice.chance(0.5) ? { user: dice.pick(["u1", "u2", "u3", "u4"]) } : {}),
      ...(dice.chance(0.02) ? { inputTokens: "many" } : {}),
      ...(dice.chance(0.8) ? { model: dice.pick(["small", "large"]) } : {}),
    };
  }
}

function correctedText(event: UsageEvent): string {
  return encodeUsageEvent(event, {}).toString("utf8");
}
