/** Random logs with corrections, and several hundred random questions each, against a recount of the list of records. */
import {
  type AnalyticsStore,
  HOUR_MS,
  MINUTE_MS,
  type MeterVersion,
  ONE_QUANTITY,
  parseQuantity,
  WINDOW_MS,
} from "@tallyhouse/domain";
import { afterAll, beforeAll, expect, it } from "vitest";
import { isBackfilling, type MeterDefinition, readDefinitions } from "./meter-definitions.ts";
import { readCustomerTotals } from "./read-customers.ts";
import { readTotalsOfMany } from "./read-totals.ts";
import { readUsageGroups } from "./read-usage.ts";
import type { DimensionFilter } from "./rollup-query.ts";
import {
  cutOf,
  lateUsage,
  readSeal,
  readSealedTotals,
  readVersionVector,
  sealDigest,
  type SealedTotals,
} from "./seal.ts";
import { openTestAnalytics, TestLog, type TestUsage } from "./test-log.ts";
import { appendRandom, CUSTOMERS, Dice, GROUPINGS, metersOf, recount, START_AT } from "./test-recount.ts";
import { type WalkedEvent, walkCountedEvents, type WalkQuestion } from "./walk-events.ts";
import { readZone, UTC, USAGE_WINDOWS, type UsageWindow, type Zone } from "./zone.ts";

const ZONES = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"];
const SPAN_MS = 12 * HOUR_MS;
/** Rounds of questions; each asks one random question of every meter, at a random cut or none. */
const ROUNDS = 4;

let analytics: AnalyticsStore;
let close: () => Promise<void>;

beforeAll(async () => ({ store: analytics, close } = await openTestAnalytics()));
afterAll(() => close());

interface World {
  readonly log: TestLog;
  readonly dice: Dice;
  readonly meters: readonly MeterVersion[];
  /** As last read. */
  definitions: readonly MeterDefinition[];
}

/** 3 worlds of some 56 random questions, 63 sealed totals and the same after replays and merges. */
it.each([1, 2, 3])(
  "G3: equals a recount, corrected, late, cut anywhere and as known at any cut: seed %i",
  async (seed) => {
    const world = newWorld(seed);
    const { log, dice, meters } = world;
    const halfAt = START_AT + SPAN_MS / 2;
    const [early, late] = [meters.slice(0, seed === 1 ? 7 : 3), meters.slice(seed === 1 ? 7 : 3)];
    if (seed !== 3) for (const version of early) log.everywhere(START_AT, { kind: "meter.activate", version });
    appendRandom(log, dice, { fromAt: START_AT, toAt: START_AT + SPAN_MS / 4, records: 40 });
    if (seed === 3)
      for (const version of early) log.everywhere(START_AT + SPAN_MS / 4, { kind: "meter.activate", version });
    for (const version of late) log.everywhere(START_AT + SPAN_MS / 4, { kind: "meter.activate", version });
    appendRandom(log, dice, { fromAt: START_AT + SPAN_MS / 4, toAt: halfAt, records: 40 });
    log.everywhere(halfAt, { kind: "tick" });
    await log.store(dice.between(1, 20));
    if (late.length > 0) await expectUnsealed(world, halfAt);
    for (const version of meters) for (const partition of log.partitions.keys()) await log.backfill(partition, version);
    await readAgain(world);
    for (let round = 0; round < ROUNDS; round += 1) await askAll(world, halfAt);

    const sealed = await sealAll(world, cutOf(halfAt, log.stream));
    const vector = await readVersionVector(analytics, log.stream, cutOf(halfAt, log.stream));
    expect(vector).toEqual(
      log.partitions.map(({ records }) => records.filter(({ bookedAt }) => bookedAt < halfAt).length),
    );

    for (const version of meters.slice(0, 2))
      log.everywhere(halfAt + 1, { kind: "meter.end", version, untilAt: halfAt + HOUR_MS });
    appendRandom(log, dice, { fromAt: halfAt + 2, toAt: START_AT + SPAN_MS, records: 60 });
    log.everywhere(START_AT + SPAN_MS, { kind: "tick" });
    await log.store(dice.between(1, 20));
    await replay(log, dice);
    expect(sealDigest(await sealAll(world, cutOf(halfAt, log.stream)))).toBe(sealDigest(sealed));
    await expectWalk(world, sealed);
    expect(await readVersionVector(analytics, log.stream, cutOf(halfAt, log.stream))).toEqual(vector);
    await readAgain(world);
    for (let round = 0; round < ROUNDS; round += 1) await askAll(world, START_AT + SPAN_MS);
    await expectLateUsage(world, sealed);
  },
  300_000,
);

function newWorld(seed: number): World {
  const stream = { streamId: seed, partitionCount: 3, bookingWindowSeconds: 300 };
  return { log: new TestLog(analytics, stream), dice: new Dice(seed), meters: metersOf(`s${seed}`), definitions: [] };
}

async function readAgain(world: World): Promise<void> {
  world.definitions = await readDefinitions(analytics, world.log.stream, { mode: "live" });
}

function definitionOf(world: World, { meter }: MeterVersion): MeterDefinition {
  const definition = world.definitions.find(({ version }) => version.meter === meter);
  if (definition === undefined) throw new Error(`no definition of ${meter}`);
  return definition;
}

/** Before its backfill, a meter says so, and a cut behind its activation is not sealed. */
async function expectUnsealed(world: World, halfAt: number): Promise<void> {
  const { log, meters } = world;
  const version = meters.at(-1) as MeterVersion;
  await readAgain(world);
  expect(isBackfilling(definitionOf(world, version), null)).toBe(true);
  const name = { mode: "live", meter: version.meter, version: 1 } as const;
  expect(await readSeal(analytics, log.stream, { ...name, cutAt: cutOf(halfAt, log.stream) })).toMatchObject({
    kind: "open",
    reason: "backfill",
  });
  expect((await readSeal(analytics, log.stream, { ...name, cutAt: START_AT })).kind).toBe("sealed");
}

/** One random question to every meter. */
async function askAll(world: World, knownAt: number): Promise<void> {
  const { log, dice, meters } = world;
  for (let many = 0; many < 4; many += 1) await askMany(world, knownAt);
  for (const version of meters) {
    const window: UsageWindow = dice.pick(USAGE_WINDOWS);
    const isWhole = dice.chance(50);
    const where = dice.pick<DimensionFilter>([{}, { region: ["eu"] }, { model: ["", "b"] }]);
    const first = START_AT - 3 * HOUR_MS + dice.between(0, SPAN_MS);
    const second = first + dice.pick([dice.between(1, 20 * MINUTE_MS), dice.between(1, SPAN_MS)]);
    const fromAt = isWhole ? Math.floor(first / WINDOW_MS) * WINDOW_MS : first;
    const toAt = isWhole ? Math.ceil(second / WINDOW_MS) * WINDOW_MS : second;
    const cutAt = dice.chance(50) ? null : cutOf(dice.between(START_AT, knownAt), log.stream);
    const customer = isWhole && dice.chance(25) ? null : dice.pick(CUSTOMERS);
    const groupBy = dice.pick(GROUPINGS);
    const zone = zoneOf(dice.pick(ZONES));
    const definition = definitionOf(world, version);
    const reading = await readUsageGroups(analytics, {
      mode: "live",
      customer,
      definition,
      where,
      groupBy,
      fromAt,
      toAt,
      window,
      zone,
      cutAt,
      watermarkAt: null,
      rowsMax: 10_000,
      eventsMax: 10_000,
    });
    const name = namer(zone, window);
    const valueOf = (usage: TestUsage): string[] => groupBy.map((dimension) => textOf(usage.data[dimension]));
    const keyOf = (usage: TestUsage): string =>
      matches(where, usage) ? JSON.stringify([name(usage.occurredAt), ...valueOf(usage)]) : "";
    const wanted = recount(log, { version, mode: "live", customer, fromAt, toAt, cutAt, keyOf });
    wanted.delete("");
    if (reading.kind === "refused") throw new Error(reading.refusal.kind);
    const found = new Map(
      reading.groups.map(({ startAt, group, quantity }) => [
        JSON.stringify([name(startAt), ...group]),
        quantity / 10_000_000n,
      ]),
    );
    expect(found.size).toBe(reading.groups.length);
    const about = JSON.stringify({
      meter: version.meter,
      customer,
      groupBy,
      where,
      fromAt,
      toAt,
      window,
      zone: zone.name,
      cutAt,
    });
    expect(sortedOf(found), about).toEqual(sortedOf(wanted));
    if (isWhole && cutAt === null) await expectRanking(world, { version, definition, fromAt, toAt });
  }
}

/** Some or all customers at once, each over its own stretch, narrowed to some values or none. */
async function askMany({ log, dice, meters, definitions }: World, knownAt: number): Promise<void> {
  const version = dice.pick(meters);
  const definition = definitions.find((one) => one.version.meter === version.meter);
  if (definition === undefined) throw new Error(`no definition of ${version.meter}`);
  const isOneSpan = dice.chance(30);
  const spanOf = (): { fromAt: number; toAt: number } => {
    const fromAt = START_AT - 3 * HOUR_MS + dice.between(0, SPAN_MS);
    const toAt = fromAt + dice.pick([dice.between(1, 20 * MINUTE_MS), dice.between(1, SPAN_MS)]);
    const isWhole = dice.chance(30);
    return isWhole
      ? { fromAt: Math.floor(fromAt / WINDOW_MS) * WINDOW_MS, toAt: Math.ceil(toAt / WINDOW_MS) * WINDOW_MS }
      : { fromAt, toAt };
  };
  const shared = spanOf();
  const asked = CUSTOMERS.filter(() => dice.chance(75));
  const spans = (asked.length === 0 ? CUSTOMERS : asked).map((customer) => ({
    customer,
    ...(isOneSpan ? shared : spanOf()),
  }));
  const where = dice.pick<DimensionFilter>([
    {},
    { region: ["eu"] },
    { region: ["eu", "us"], model: ["a"] },
    { model: ["", "b"] },
  ]);
  const groupBy = dice.pick(GROUPINGS);
  const cutAt = dice.chance(50) ? null : cutOf(dice.between(START_AT, knownAt), log.stream);
  const reading = await readTotalsOfMany(analytics, {
    mode: "live",
    definition,
    spans,
    groupBy,
    where,
    cutAt,
    watermarkAt: null,
    rowsMax: 10_000,
    eventsMax: 10_000,
  });
  if (reading.kind === "refused") throw new Error(reading.refusal.kind);
  const found = new Map(
    reading.groups.map(({ customer, group, quantity }) => [
      JSON.stringify([customer, ...group]),
      quantity / 10_000_000n,
    ]),
  );
  expect(found.size).toBe(reading.groups.length);
  const wanted = new Map<string, bigint>();
  for (const { customer, fromAt, toAt } of spans) {
    const keyOf = (usage: TestUsage): string =>
      matches(where, usage) ? JSON.stringify([customer, ...groupBy.map((name) => textOf(usage.data[name]))]) : "";
    const rows = recount(log, { version, mode: "live", customer, fromAt, toAt, cutAt, keyOf });
    for (const [key, quantity] of rows) if (key !== "") wanted.set(key, quantity);
  }
  const about = JSON.stringify({ meter: version.meter, spans, groupBy, where, cutAt });
  expect(sortedOf(found), about).toEqual(sortedOf(wanted));
}

async function expectRanking(
  { log, dice }: World,
  question: { version: MeterVersion; definition: MeterDefinition; fromAt: number; toAt: number },
): Promise<void> {
  const { definition, fromAt, toAt } = question;
  const limit = dice.between(1, CUSTOMERS.length);
  const reading = await readCustomerTotals(analytics, {
    mode: "live",
    definition,
    fromAt,
    toAt,
    limit,
    eventsMax: 10_000,
  });
  const wanted = recount(log, {
    ...question,
    mode: "live",
    customer: null,
    cutAt: null,
    keyOf: ({ customer }) => customer,
  });
  const ranked = [...wanted].sort(([a, x], [b, y]) => (x === y ? (a < b ? -1 : 1) : y > x ? 1 : -1)).slice(0, limit);
  if (reading.kind === "refused") throw new Error(reading.refusal.kind);
  expect(reading.customers.map(({ customer, quantity }) => [customer, quantity / 10_000_000n])).toEqual(ranked);
}

/** Every meter and customer over a period that begins and ends in the middle of a window. */
async function sealAll({ log, meters }: World, cutAt: number): Promise<SealedTotals[]> {
  const totals: SealedTotals[] = [];
  for (const { meter, version } of meters) {
    for (const customer of CUSTOMERS) {
      const period = { fromAt: START_AT + 1_234_567, toAt: START_AT + SPAN_MS / 2 - 7_654_321 };
      const question = { ...period, mode: "live", customer, meter, version, cutAt, groupBy: ["region"] } as const;
      const reading = await readSealedTotals(analytics, log.stream, question);
      if (reading.kind !== "totals") throw new Error(`${meter}: ${reading.kind}`);
      totals.push(reading.totals);
    }
  }
  return totals;
}

/** Usage events one by one add up to the sealed totals, each once, in order, and the same from any place on. */
async function expectWalk(world: World, sealed: readonly SealedTotals[]): Promise<void> {
  const definitions = world.meters.map((version) => definitionOf(world, version));
  for (const customer of CUSTOMERS) {
    const totals = sealed.filter((one) => one.customer === customer);
    const [first] = totals;
    if (first === undefined) throw new Error("a sealed total of each customer");
    const question = { ...first, definitions, after: null };
    const events = await walkAll(question);
    const places = events.map(({ occurredAt, stream, partition, offset }) => [occurredAt, stream, partition, offset]);
    expect(places).toEqual([...new Set(places)].sort((a, b) => placeOrder(a, b)));
    expect(events.length).toBeGreaterThan(0);
    for (const { groups, meter } of totals) {
      const found = foldWalked(events, definitionOf(world, { meter } as MeterVersion).version);
      expect(found, meter).toEqual(new Map(groups.map(({ group, quantity }) => [group[0], quantity])));
    }
    const middle = world.dice.between(0, events.length - 1);
    const rest = await walkAll({ ...question, after: events[middle] ?? null, firstRows: 1 });
    expect(rest).toEqual(events.slice(middle + 1));
  }
}

async function walkAll(question: WalkQuestion): Promise<WalkedEvent[]> {
  const events: WalkedEvent[] = [];
  for await (const page of walkCountedEvents(analytics, question)) events.push(...page);
  return events;
}

function placeOrder(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((value, index) => value !== b[index]);
  return at === -1 ? 0 : (a[at] ?? 0) - (b[at] ?? 0);
}

/** Quantity by region, in the order of the walk. */
function foldWalked(events: readonly WalkedEvent[], { meter, rule }: MeterVersion): Map<string | undefined, bigint> {
  const values = new Map<string | undefined, string[]>();
  for (const { parts } of events) {
    for (const { dims, value } of parts.filter((part) => part.meter === meter))
      values.set(dims[0], [...(values.get(dims[0]) ?? []), value]);
  }
  return new Map([...values].sort(([a = ""], [b = ""]) => (a < b ? -1 : 1)).map(([group, all]) => [group, fold(all)]));

  function fold(all: readonly string[]): bigint {
    if (rule.aggregation === "unique_count") return BigInt(new Set(all).size) * ONE_QUANTITY;
    const quantities = all.map((text) => BigInt(parseQuantity(text) ?? 0n));
    switch (rule.aggregation) {
      case "sum":
      case "count":
        return quantities.reduce((a, b) => a + b, 0n);
      case "min":
        return quantities.reduce((a, b) => (a < b ? a : b));
      case "max":
        return quantities.reduce((a, b) => (a > b ? a : b));
      case "latest":
        return quantities.at(-1) ?? 0n;
    }
  }
}

/** What a zombie or a replay writes: any of the rows again, then merges. */
async function replay(log: TestLog, dice: Dice): Promise<void> {
  const again = Object.entries(log.written).map(
    ([table, rows]) => [table, rows.filter(() => dice.chance(50))] as const,
  );
  await log.insert(Object.fromEntries(again));
  for (const [table] of again) if (dice.chance(60)) await analytics.execute(`OPTIMIZE TABLE ${table} FINAL`);
}

/** The seal and the difference to a later cut give what the later cut gives. */
async function expectLateUsage(world: World, sealed: readonly SealedTotals[]): Promise<void> {
  const later = await sealAll(world, cutOf(START_AT + SPAN_MS, world.log.stream));
  let differences = 0;
  for (const [index, before] of sealed.entries()) {
    const after = later[index] as SealedTotals;
    for (const { group, difference } of lateUsage(before, after)) {
      const [then, now] = [before, after].map(
        ({ groups }) => groups.find((one) => one.group[0] === group[0])?.quantity ?? 0n,
      );
      expect((then as bigint) + difference).toBe(now);
      differences += 1;
    }
  }
  expect(differences).toBeGreaterThan(0);
}

function zoneOf(name: string): Zone {
  const reading = readZone(name, { fromAt: START_AT - 24 * HOUR_MS, toAt: START_AT + 48 * HOUR_MS });
  return reading.kind === "zone" ? reading.zone : UTC;
}

/** What the zone's clock calls the row; the offset tells the two hours of a clock set back apart. */
function namer(zone: Zone, window: UsageWindow): (at: number) => string {
  const format = new Intl.DateTimeFormat("sv-SE", { timeZone: zone.name, dateStyle: "short", timeStyle: "medium" });
  const offset = new Intl.DateTimeFormat("en-US", { timeZone: zone.name, timeZoneName: "longOffset" });
  return (at) => {
    const local = format.format(at);
    switch (window) {
      case "15m":
        return String(Math.floor(at / WINDOW_MS));
      case "hour":
        return `${local.slice(0, 13)} ${offset.format(at).split(" ").at(-1) ?? ""}`;
      case "day":
        return local.slice(0, 10);
      case "month":
        return local.slice(0, 7);
      case "total":
        return "total";
    }
  };
}

function sortedOf(rows: ReadonlyMap<string, bigint>): [string, bigint][] {
  return [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
}

function matches(where: DimensionFilter, { data }: TestUsage): boolean {
  return Object.entries(where).every(([name, values]) => values.includes(textOf(data[name])));
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
