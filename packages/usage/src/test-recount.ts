/** Random logs, random questions, and the answers recounted from the list of records in the dullest way: used by tests alone. */
import { HOUR_MS, type MeterVersion, MINUTE_MS, type Mode } from "@tallyhouse/domain";
import { meterVersion } from "@tallyhouse/testkit";
import { instant, type TestFact, type TestLog, type TestUsage } from "./test-log.ts";

/** A seeded source of numbers (mulberry32). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** An integer in [low, high]. */
  between(low: number, high: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return low + (((mixed ^ (mixed >>> 14)) >>> 0) % (high - low + 1));
  }

  chance(percent: number): boolean {
    return this.between(1, 100) <= percent;
  }

  pick<T>(all: readonly T[]): T {
    return all[this.between(0, all.length - 1)] as T;
  }
}

/** The clock of half of Europe is set forward at 01:00Z. */
export const START_AT = instant("2026-03-28T20:00:00Z");
export const CUSTOMERS = ["acme", "b'u\"m\\ble", "çédille"];
export const GROUPINGS = [[], ["region"], ["model", "region"]] as const;
const DIMENSIONS = { region: "/region", model: "/model" };

/** One meter of each aggregation, and one with a condition. */
export function metersOf(suffix: string): MeterVersion[] {
  const rules: readonly [string, Partial<MeterVersion["rule"]>][] = [
    ["sum", {}],
    ["count", { aggregation: "count", value: undefined } as never],
    ["min", { aggregation: "min" }],
    ["max", { aggregation: "max" }],
    ["latest", { aggregation: "latest" }],
    ["unique", { aggregation: "unique_count", value: "/user" }],
    ["eu", { where: [{ path: "/region", in: ["eu"] }], from: "2026-03-28T21:07:00Z" }],
  ];
  return rules.map(([name, rule]) =>
    meterVersion({ meter: `${name}_${suffix}`, rule: { value: "/v", dimensions: DIMENSIONS, ...rule } }),
  );
}

/** Appends random records that are booked in `[fromAt, toAt)`: usage, some of it late, voids and replacements. */
export function appendRandom(log: TestLog, dice: Dice, span: { fromAt: number; toAt: number; records: number }): void {
  for (const [number, partition] of log.partitions.entries()) {
    const booked = Array.from({ length: span.records }, () => dice.between(span.fromAt, span.toAt - 1)).sort(
      (a, b) => a - b,
    );
    for (const bookedAt of booked) {
      const counted = partition.records.flatMap(({ fact }, offset) => ("usage" in fact ? [offset] : []));
      const voided = new Set(partition.records.flatMap(({ fact }) => ("target" in fact ? [fact.target] : [])));
      const targets = counted.filter((offset) => !voided.has(offset));
      const isMetered = partition.records.some(({ fact }) => fact.kind === "meter.activate");
      log.append(number, bookedAt, randomFact(dice, { bookedAt, targets, isMetered }));
    }
  }
}

function randomFact(dice: Dice, at: { bookedAt: number; targets: readonly number[]; isMetered: boolean }): TestFact {
  const usage = randomUsage(dice, at);
  if (at.targets.length === 0 || dice.chance(70)) return { kind: "usage", usage };
  const target = dice.pick(at.targets);
  return dice.chance(70) ? { kind: "void", target } : { kind: "replace", target, usage };
}

function randomUsage(dice: Dice, { bookedAt, isMetered }: { bookedAt: number; isMetered: boolean }): TestUsage {
  const lateMs = dice.chance(60) ? dice.between(-5 * MINUTE_MS, MINUTE_MS) : dice.between(0, 5 * HOUR_MS);
  const hundredths = dice.between(-300, 9_999);
  return {
    mode: dice.chance(95) ? "live" : "test",
    customer: dice.pick(CUSTOMERS),
    occurredAt: dice.chance(10) ? Math.floor(bookedAt / 900_000) * 900_000 : bookedAt - lateMs,
    data: {
      // Before any meter, a value may be one that a meter cannot read.
      v: !isMetered && dice.chance(10) ? "n/a" : decimalOf(hundredths),
      user: dice.chance(50) ? dice.between(1, 6) : `user ${dice.between(1, 6)}`,
      region: dice.pick(["eu", "us"]),
      ...(dice.chance(80) ? { model: dice.pick(["a", "b"]) } : {}),
    },
  };
}

function decimalOf(hundredths: number): string {
  const sign = hundredths < 0 ? "-" : "";
  const digits = String(Math.abs(hundredths)).padStart(3, "0");
  return `${sign}${digits.slice(0, -2)}.${digits.slice(-2)}`;
}

export interface Recount {
  readonly version: MeterVersion;
  readonly mode: Mode;
  readonly customer: string | null;
  readonly fromAt: number;
  readonly toAt: number;
  readonly cutAt: number | null;
  /** The row that a usage event belongs to, null for a meter's dimension that it does not name. */
  readonly keyOf: (usage: TestUsage) => string;
}

/** Row → quantity in hundredths (or a number of things, times 100). One pass over the records, one over the rows. */
export function recount(log: TestLog, question: Recount): Map<string, bigint> {
  const { version, cutAt } = question;
  const isKnown = (bookedAt: number): boolean => cutAt === null || bookedAt < cutAt;
  const rows = new Map<string, { usage: TestUsage; order: readonly number[] }[]>();
  for (const [number, { records }] of log.partitions.entries()) {
    const activation = records.find(({ fact }) => fact.kind === "meter.activate" && fact.version === version);
    if (activation === undefined || !isKnown(activation.bookedAt)) continue;
    const voided = new Set(
      records.flatMap(({ fact, bookedAt }) => ("target" in fact && isKnown(bookedAt) ? [fact.target] : [])),
    );
    const ends = records.flatMap(({ fact }) =>
      fact.kind === "meter.end" && fact.version === version ? [fact.untilAt] : [],
    );
    const untilAt = Math.min(...ends, Number.POSITIVE_INFINITY);
    for (const [offset, { bookedAt, fact }] of records.entries()) {
      if (!("usage" in fact) || !isKnown(bookedAt) || voided.has(offset)) continue;
      const { usage } = fact;
      const isAsked = usage.mode === question.mode && (question.customer ?? usage.customer) === usage.customer;
      const isInside = usage.occurredAt >= question.fromAt && usage.occurredAt < question.toAt;
      const isMetered = usage.occurredAt >= instant(version.rule.from) && usage.occurredAt < untilAt;
      if (!isAsked || !isInside || !isMetered || !contributes(version, usage)) continue;
      const key = question.keyOf(usage);
      rows.set(key, [...(rows.get(key) ?? []), { usage, order: [usage.occurredAt, number, offset] }]);
    }
  }
  return new Map([...rows].map(([key, entries]) => [key, aggregate(version.rule.aggregation, entries)]));
}

function contributes({ rule }: MeterVersion, { data }: TestUsage): boolean {
  if (rule.where.length > 0 && data["region"] !== "eu") return false;
  return rule.value !== "/v" || data["v"] !== "n/a";
}

function aggregate(aggregation: string, entries: readonly { usage: TestUsage; order: readonly number[] }[]): bigint {
  const values = entries.map(({ usage }) => BigInt(String(usage.data["v"]).replace(".", "").replace("n/a", "0")));
  const sorted = values.toSorted((a, b) => (a < b ? -1 : 1));
  switch (aggregation) {
    case "sum":
      return values.reduce((a, b) => a + b, 0n);
    case "count":
      return 100n * BigInt(entries.length);
    case "min":
      return sorted[0] as bigint;
    case "max":
      return sorted.at(-1) as bigint;
    case "unique_count":
      return 100n * BigInt(new Set(entries.map(({ usage }) => String(usage.data["user"]))).size);
    default: {
      const [newest] = entries.toSorted((a, b) => compareOrders(b.order, a.order));
      return BigInt(String(newest?.usage.data["v"]).replace(".", ""));
    }
  }
}

function compareOrders(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((value, index) => value !== b[index]);
  return at === -1 ? 0 : (a[at] ?? 0) - (b[at] ?? 0);
}
