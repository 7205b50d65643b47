/**
 * Exports of statements and adjustments over seeded usage, made by the product's own code: every price shape and aggregation, usage at
 * the very edges of the period, negative and fractional values. What the verifier must accept, and what mutations are made of.
 */
import { createHash } from "node:crypto";
import {
  buildAdjustment,
  buildStatement,
  compileItemOf,
  EventsDigest,
  eventTuple,
  exportEnd,
  exportHead,
  exportLine,
  type ItemEvent,
  statementDigest,
  type StatementDocument,
  type StatementFacts,
  type StatementRule,
  statementText,
  type StoredStatement,
} from "@tallyhouse/billing";
import {
  type Aggregation,
  assert,
  ceilTo,
  DAY_MS,
  ONE_QUANTITY,
  parseQuantity,
  quantityFromScaled,
} from "@tallyhouse/domain";
import type { Price, RatedItem, RatedPlan } from "@tallyhouse/pricing";
import { Dice } from "@tallyhouse/testkit";
import type { WalkedEvent } from "@tallyhouse/usage";

/** One export as a file of the harness. */
export interface MadeExport {
  readonly name: string;
  readonly text: string;
  /** The export of the statement before it, for an adjustment. */
  readonly previous: string | null;
}

const METERS: readonly StatementRule[] = [
  { meter: "api_calls", version: 2, aggregation: "sum", dimensions: ["model", "region"] },
  { meter: "peak", version: 1, aggregation: "max", dimensions: [] },
  { meter: "requests", version: 1, aggregation: "count", dimensions: ["model"] },
  { meter: "seats", version: 1, aggregation: "unique_count", dimensions: [] },
  { meter: "storage", version: 3, aggregation: "latest", dimensions: [] },
  { meter: "trough", version: 1, aggregation: "min", dimensions: [] },
];
const MODELS = ["large", "small", "mini"];
const CURRENCIES = ["usd", "jpy", "kwd", "eur"];
const EVENTS = 30;
const STREAM = 2;
const PARTITIONS = 3;
const LATENESS_SECONDS = 3_600;
const BOOKING_WINDOW_SECONDS = 900;

/** `worlds` statements, each with one adjustment. */
export function makeExports({ seed, worlds }: { readonly seed: number; readonly worlds: number }): MadeExport[] {
  const dice = new Dice(seed);
  return Array.from({ length: worlds }, (_, number) => makeWorld(dice, number)).flat();
}

/** What all statements of one period have in common. */
type Frame = Omit<StatementFacts, "cutAt" | "versionVector" | "items">;

function makeWorld(dice: Dice, number: number): MadeExport[] {
  // Counted from the 31st, so that shorter months end on their last day.
  const month = dice.below(12);
  const [anchorAt, startAt, endAt] = [0, month, month + 1].map((each) => monthEnd(each, number)) as [
    number,
    number,
    number,
  ];
  const frame: Frame = {
    mode: dice.pick(["live", "test"]),
    customer: `cus ${number} “ü\n”`,
    period: { startAt, endAt, anchorAt, interval: "month", isCutShort: false },
    closing: { latenessSeconds: LATENESS_SECONDS, bookingWindowSeconds: BOOKING_WINDOW_SECONDS },
    rules: METERS,
    plan: makePlan(dice, number),
  };
  const windowMs = BOOKING_WINDOW_SECONDS * 1_000;
  const cutAt = ceilTo(endAt + LATENESS_SECONDS * 1_000, windowMs);
  const laterCutAt = cutAt + dice.between(1, 60) * windowMs;
  const events = makeEvents(dice, { startAt, endAt, bookedToAt: cutAt, count: EVENTS, firstOffset: 0 });
  const late = makeEvents(dice, {
    startAt,
    endAt,
    bookedFromAt: cutAt,
    bookedToAt: laterCutAt,
    count: 8,
    firstOffset: 1_000,
  });
  const first = countEvents(frame, events, cutAt);
  const statement = storedOf(buildStatement(first.facts));
  const kept = events.filter(() => !dice.chance(0.05));
  const second = countEvents(frame, [...kept, ...late], laterCutAt);
  const adjustment = buildAdjustment(second.facts, { previous: statement, reason: null, actor: null });
  assert(adjustment !== null, "late usage makes an adjustment");
  const name = `world-${number}`;
  return [
    { name, text: exportOf(statement, first.events), previous: null },
    { name: `${name}-adjusted`, text: exportOf(storedOf(adjustment), second.events), previous: name },
  ];
}

function monthEnd(month: number, millis: number): number {
  const lastDay = new Date(Date.UTC(2026, month + 1, 0)).getUTCDate();
  return Date.UTC(2026, month, Math.min(31, lastDay), 9, 30, 0, millis);
}

function makePlan(dice: Dice, number: number): RatedPlan {
  const price = (): Price | null => makePrice(dice);
  const included = (): string | null => dice.pick([null, "0", "10", "250.5"]);
  const item = (key: string, meter: string, where: RatedItem["where"] = {}): RatedItem => {
    const meterVersion = METERS.find((one) => one.meter === meter)?.version ?? 0;
    return { key, meter, meterVersion, where, included: included(), price: price() };
  };
  return {
    plan: `plan_${number}@${dice.between(1, 9)}`,
    currency: dice.pick(CURRENCIES),
    fee: dice.pick(["0", "49", "1200"]),
    items: [
      item("calls_large", "api_calls", { model: ["large"] }),
      item("calls_small_eu", "api_calls", { model: ["small", "tiny"], region: ["eu"] }),
      item("requests", "requests"),
      item("peak", "peak"),
      item("trough", "trough"),
      item("storage", "storage"),
      item("seats", "seats"),
    ],
  };
}

function makePrice(dice: Dice): Price | null {
  const unit = (): string => dice.pick(["0.002", "1", "0.333333", "12.5", "0.0000005"]);
  const flat = (): string => dice.pick(["0", "5", "0.1"]);
  const model = dice.pick(["none", "per_unit", "package", "graduated", "volume"] as const);
  switch (model) {
    case "none":
      return null;
    case "per_unit":
      return { model, unit: unit() };
    case "package":
      return { model, size: dice.pick(["7", "0.5", "1000"]), price: unit(), round: dice.pick(["up", "down"]) };
    case "graduated":
    case "volume":
      return {
        model,
        tiers: [
          { upTo: dice.pick(["5", "10.5"]), unit: unit(), flat: flat() },
          { upTo: dice.pick(["100", "40.25"]), unit: unit(), flat: flat() },
          { upTo: "inf", unit: unit(), flat: flat() },
        ],
      };
  }
}

function makeEvents(
  dice: Dice,
  span: {
    readonly startAt: number;
    readonly endAt: number;
    readonly bookedFromAt?: number;
    readonly bookedToAt: number;
    readonly count: number;
    readonly firstOffset: number;
  },
): WalkedEvent[] {
  const { startAt, endAt, bookedFromAt = startAt, bookedToAt } = span;
  return Array.from({ length: span.count }, (_, number) => {
    // The first millisecond of the period and the last one, and some that share an instant.
    const edges = [startAt, endAt - 1, startAt + DAY_MS];
    const occurredAt = number < 6 ? (edges[number % 3] ?? startAt) : dice.between(startAt, endAt - 1);
    const bookedAt = dice.between(Math.max(occurredAt, bookedFromAt), bookedToAt - 1);
    const offset = span.firstOffset + number * 3 + dice.below(3);
    const place = { stream: dice.chance(0.9) ? STREAM : STREAM - 1, partition: dice.below(PARTITIONS), offset };
    return {
      source: dice.pick(["api", "söurce/1"]),
      id: `evt-${offset}`,
      occurredAt,
      bookedAt,
      receivedAt: bookedAt,
      ...place,
      parts: METERS.flatMap((meter) => (dice.chance(0.5) ? [makePart(dice, meter)] : [])),
    };
  });
}

function makePart(
  dice: Dice,
  { meter, version, aggregation, dimensions }: StatementRule,
): WalkedEvent["parts"][number] {
  const values = { model: dice.pick(MODELS), region: dice.pick(["eu", "us"]) };
  const quantity = dice.pick(["0", "1", "17", "3.25", "-2", "0.000000001", "123456"]);
  const user = createHash("sha256")
    .update(`user ${dice.below(12)}`)
    .digest("hex")
    .slice(0, 32);
  const byAggregation = { count: "1", unique_count: user } as const;
  return {
    meter,
    version,
    dims: dimensions.map((name) => values[name as keyof typeof values]),
    value: aggregation === "count" || aggregation === "unique_count" ? byAggregation[aggregation] : quantity,
  };
}

/** The totals of the usage events as the reporter would count them, and what each item counted. */
function countEvents(
  frame: Frame,
  events: readonly WalkedEvent[],
  cutAt: number,
): { readonly facts: StatementFacts; readonly events: readonly ItemEvent[] } {
  const items = frame.plan.items.map((item) => {
    const rule = METERS.find(({ meter }) => meter === item.meter);
    return { ...item, dimensions: rule?.dimensions ?? [], digest: new EventsDigest(), values: [] as string[] };
  });
  const itemOf = compileItemOf(items);
  const found: ItemEvent[] = [];
  for (const event of events.toSorted(byPlace)) {
    for (const part of event.parts) {
      const item = itemOf(part);
      if (item === null) continue;
      item.digest.add(eventTuple(event, part));
      item.values.push(part.value);
      found.push({ item: item.key, event, part });
    }
  }
  const counts = items.map(({ key, meter, digest, values }) => ({
    item: key,
    quantity: quantityFromScaled(foldValues(METERS.find((one) => one.meter === meter)?.aggregation, values)),
    events: digest.count,
    eventsDigest: digest.hex(),
  }));
  const offsets = Array.from({ length: PARTITIONS }, () => 10_000);
  return { facts: { ...frame, cutAt, versionVector: { stream: STREAM, offsets }, items: counts }, events: found };
}

function foldValues(aggregation: Aggregation | undefined, values: readonly string[]): bigint {
  if (aggregation === "unique_count") return BigInt(new Set(values).size) * ONE_QUANTITY;
  const scaled = values.map((text): bigint => parseQuantity(text) ?? 0n);
  if (scaled.length === 0) return 0n;
  switch (aggregation) {
    case "max":
      return scaled.reduce((a, b) => (a > b ? a : b));
    case "min":
      return scaled.reduce((a, b) => (a < b ? a : b));
    case "latest":
      return scaled.at(-1) ?? 0n;
    case "sum":
    case "count":
    case undefined:
      return scaled.reduce((a, b) => a + b);
  }
}

function byPlace(a: WalkedEvent, b: WalkedEvent): number {
  return a.occurredAt - b.occurredAt || a.stream - b.stream || a.partition - b.partition || a.offset - b.offset;
}

function storedOf(document: StatementDocument): StoredStatement {
  const text = statementText(document);
  return { document, text, digest: statementDigest(text), sealedAt: 0 };
}

function exportOf(stored: StoredStatement, events: readonly ItemEvent[]): string {
  return [exportHead(stored), ...events.map(exportLine), exportEnd(events.length)].join("");
}
