/**
 * A log and what the aggregator would have stored of it, in the plainest way: used by tests alone. It folds with the domain's own
 * meters and keeps every row that it wrote, so that a test can write them again as a replay would.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { migrateClickHouse, openClickHouse } from "@tallyhouse/clickhouse";
import {
  type AnalyticsStore,
  type AnalyticsValue,
  assert,
  type CompiledMeter,
  compileMeter,
  formatInstant,
  formatQuantity,
  type MeterVersion,
  type Mode,
  parseInstant,
  quantityFromScaled,
  uniqueHashOf,
  windowStartOf,
} from "@tallyhouse/domain";
import { usageEvent } from "@tallyhouse/testkit";
import type { SealedStream } from "./seal.ts";

/** A usage event as the log holds it. */
export interface TestUsage {
  readonly mode: Mode;
  readonly customer: string;
  readonly occurredAt: number;
  readonly data: Readonly<Record<string, unknown>>;
}

export type TestFact =
  | { readonly kind: "usage"; readonly usage: TestUsage }
  | { readonly kind: "void"; readonly target: number }
  | { readonly kind: "replace"; readonly target: number; readonly usage: TestUsage }
  | { readonly kind: "meter.activate"; readonly version: MeterVersion }
  | { readonly kind: "meter.end"; readonly version: MeterVersion; readonly untilAt: number }
  | { readonly kind: "tick" };

export interface TestRecord {
  readonly bookedAt: number;
  readonly fact: TestFact;
}

type Row = Readonly<Record<string, AnalyticsValue>>;

interface Active {
  readonly meter: CompiledMeter;
  readonly activatedOffset: number;
  readonly activatedAt: number;
  untilAt: number;
}

interface Cumulated {
  readonly key: Row;
  counted: number;
  voided: number;
  sum: bigint;
  min: bigint;
  max: bigint;
  last: { quantity: bigint; at: number; offset: number };
}

interface Partition {
  readonly records: TestRecord[];
  stored: number;
  readonly active: Active[];
  readonly voided: Set<number>;
  readonly keys: Map<string, Cumulated>;
}

/** What a store wrote, by table: writing any of it again must change nothing. */
export type Written = Readonly<Record<string, Row[]>>;

export class TestLog {
  readonly stream: SealedStream;
  readonly partitions: readonly Partition[];
  readonly written: Record<string, Row[]> = {};
  readonly #analytics: AnalyticsStore;

  constructor(analytics: AnalyticsStore, stream: SealedStream) {
    this.#analytics = analytics;
    this.stream = stream;
    this.partitions = Array.from({ length: stream.partitionCount }, () => ({
      records: [],
      stored: 0,
      active: [],
      voided: new Set<number>(),
      keys: new Map<string, Cumulated>(),
    }));
  }

  /** Returns the offset. `bookedAt` may not fall within a partition. */
  append(partition: number, bookedAt: number, fact: TestFact): number {
    const { records } = this.#partition(partition);
    assert((records.at(-1)?.bookedAt ?? 0) <= bookedAt, "the log clock never falls");
    return records.push({ bookedAt, fact }) - 1;
  }

  /** To every partition, as the outbox sends it. */
  everywhere(bookedAt: number, fact: TestFact): void {
    for (const partition of this.partitions.keys()) this.append(partition, bookedAt, fact);
  }

  /** Folds what is not stored yet in flushes of `flushRecords`, and stores it with its progress. */
  async store(flushRecords = 7): Promise<void> {
    const rows: Record<string, Row[]> = {};
    for (const [number, partition] of this.partitions.entries()) {
      while (partition.stored < partition.records.length) {
        const end = Math.min(partition.records.length, partition.stored + flushRecords);
        const dirty = new Set<Cumulated>();
        for (let offset = partition.stored; offset < end; offset += 1) this.#step(rows, { number, offset, dirty });
        for (const key of dirty) add(rows, "rollup", this.#rollupRow(key, { number, ver: end, lane: 0 }));
        partition.stored = end;
      }
      const logClock = partition.records.at(-1)?.bookedAt ?? 0;
      add(rows, "progress", {
        ...{ stream: this.stream.streamId, logPartition: number, nextOffset: partition.stored, logClock },
        ...{ lastRecord: 0, counted: 0, writer: "test", storedAt: 0 },
      });
    }
    await this.insert(rows);
  }

  /** Folds what stands in front of the version's activation in one partition, and says so. */
  async backfill(number: number, version: MeterVersion): Promise<void> {
    const partition = this.#partition(number);
    const active = partition.active.find(({ meter }) => meter.version === version);
    assert(active !== undefined, "only an activated meter is backfilled");
    const rows: Record<string, Row[]> = {};
    const voidedBelow = new Set<number>();
    for (const { fact } of partition.records.slice(0, active.activatedOffset))
      if (fact.kind === "void" || fact.kind === "replace") voidedBelow.add(fact.target);
    const keys = new Map<string, Cumulated>();
    const counted = this.#counted(partition).filter(({ offset }) => offset < active.activatedOffset);
    for (const { offset, usage } of counted) {
      if (voidedBelow.has(offset)) continue;
      const bookedStart = this.#bookedStart(active.activatedAt);
      this.#contribute(rows, { keys, active, usage, offset, sign: 1, bookedStart, dirty: new Set() });
    }
    for (const key of keys.values())
      add(rows, "rollup", this.#rollupRow(key, { number, ver: active.activatedOffset, lane: 1 }));
    add(rows, "backfills", {
      ...{ stream: this.stream.streamId, logPartition: number, mode: version.mode, meter: version.meter },
      ...{ meterVersion: version.version, ver: active.activatedOffset },
    });
    await this.insert(rows);
  }

  /** Writes rows, new or again. */
  async insert(rows: Written): Promise<void> {
    for (const [table, all] of Object.entries(rows)) {
      const [first] = all;
      if (first === undefined) continue;
      await this.#analytics.insert({ table, columns: Object.keys(first), rows: all.map((row) => Object.values(row)) });
      (this.written[table] ??= []).push(...all);
    }
  }

  #partition(number: number): Partition {
    const partition = this.partitions[number];
    assert(partition !== undefined, `no partition ${number}`);
    return partition;
  }

  #bookedStart(bookedAt: number): number {
    const seconds = Math.floor(bookedAt / 1_000);
    return seconds - (seconds % this.stream.bookingWindowSeconds);
  }

  #counted({ records }: Partition): { offset: number; usage: TestUsage }[] {
    return records.flatMap(({ fact }, offset) => ("usage" in fact ? [{ offset, usage: fact.usage }] : []));
  }

  #step(rows: Record<string, Row[]>, at: { number: number; offset: number; dirty: Set<Cumulated> }): void {
    const partition = this.#partition(at.number);
    const record = partition.records[at.offset];
    assert(record !== undefined, "an offset below the end");
    const { fact, bookedAt } = record;
    const place = { stream: this.stream.streamId, logPartition: at.number, logOffset: at.offset };
    const usage = "usage" in fact ? fact.usage : null;
    add(rows, "raw_events", rawRow(place, { fact, usage, bookedAt }));
    const contribute = (given: TestUsage, offset: number, sign: 1 | -1): void => {
      for (const active of partition.active) {
        const bookedStart = this.#bookedStart(bookedAt);
        this.#contribute(rows, {
          keys: partition.keys,
          active,
          usage: given,
          offset,
          sign,
          bookedStart,
          dirty: at.dirty,
        });
      }
    };
    const control = (target: string, body: object): void =>
      add(rows, "control_records", { ...place, bookedAt, kind: fact.kind, target, body: JSON.stringify(body) });
    if (fact.kind === "meter.activate") {
      const { mode, meter, version, rule } = fact.version;
      const known = partition.active.some(({ meter: one }) => one.version === fact.version);
      if (!known) {
        const meterOf = { meter: compileMeter(fact.version), activatedOffset: at.offset, activatedAt: bookedAt };
        partition.active.push({ ...meterOf, untilAt: Number.POSITIVE_INFINITY });
        control("", { mode, meter, version, rule });
      }
    }
    if (fact.kind === "meter.end") {
      const { mode, meter, version } = fact.version;
      const active = partition.active.find(({ meter: one }) => one.version === fact.version);
      if (active !== undefined) active.untilAt = Math.min(active.untilAt, fact.untilAt);
      control("", { mode, meter, version, until: formatInstant(fact.untilAt) });
    }
    if (fact.kind === "void" || fact.kind === "replace") {
      const target = partition.records[fact.target]?.fact;
      assert(target !== undefined && "usage" in target, "a correction names a counted usage event");
      assert(!partition.voided.has(fact.target), "and one that still counts");
      partition.voided.add(fact.target);
      contribute(target.usage, fact.target, -1);
      control(String(fact.target), { offset: fact.target });
    }
    if (usage !== null) contribute(usage, at.offset, 1);
  }

  #contribute(
    rows: Record<string, Row[]>,
    input: {
      keys: Map<string, Cumulated>;
      active: Active;
      usage: TestUsage;
      offset: number;
      sign: 1 | -1;
      bookedStart: number;
      dirty: Set<Cumulated>;
    },
  ): void {
    const { active, usage, offset, sign, bookedStart } = input;
    const { meter, untilAt } = active;
    const { version } = meter;
    if (usage.mode !== version.mode || usage.occurredAt < meter.fromAt || usage.occurredAt >= untilAt) return;
    const contribution = meter.contributionOf(usageEvent({ ...usage, data: usage.data as never }));
    if (contribution.kind !== "quantity") return;
    const { quantity, dims, uniqueText } = contribution;
    const key: Row = {
      ...{ mode: usage.mode, customer: usage.customer, meter: version.meter, meterVersion: version.version },
      ...{ windowStart: windowStartOf(usage.occurredAt) / 1_000, dims, bookedStart },
    };
    const text = JSON.stringify(key);
    const known = input.keys.get(text) ?? {
      ...{ key, counted: 0, voided: 0, sum: 0n, min: 0n, max: 0n },
      last: { quantity: 0n, at: 0, offset: 0 },
    };
    input.keys.set(text, known);
    input.dirty.add(known);
    known.sum += BigInt(sign) * quantity;
    if (sign === -1) {
      known.voided += 1;
      return;
    }
    const isFirst = known.counted === 0;
    known.counted += 1;
    if (isFirst || quantity < known.min) known.min = quantity;
    if (isFirst || quantity > known.max) known.max = quantity;
    const isLast = isFirst || usage.occurredAt > known.last.at;
    if (isLast || (usage.occurredAt === known.last.at && offset > known.last.offset))
      known.last = { quantity, at: usage.occurredAt, offset };
    if (uniqueText !== null) add(rows, "rollup_uniq", { ...key, valueHash: uniqueHashOf(uniqueText).toString() });
  }

  #rollupRow(tally: Cumulated, input: { number: number; ver: number; lane: 0 | 1 }): Row {
    const text = (scaled: bigint): string => formatQuantity(quantityFromScaled(scaled));
    return {
      ...tally.key,
      ...{ stream: this.stream.streamId, logPartition: input.number, lane: input.lane, ver: input.ver },
      ...{ counted: tally.counted, voided: tally.voided },
      ...{ sumQty: text(tally.sum), minQty: text(tally.min), maxQty: text(tally.max) },
      ...{ lastQty: text(tally.last.quantity), lastAt: tally.last.at, lastOffset: tally.last.offset },
    };
  }
}

function rawRow(
  place: Row,
  { fact, usage, bookedAt }: { fact: TestFact; usage: TestUsage | null; bookedAt: number },
): Row {
  return {
    ...place,
    ...{ mode: usage?.mode ?? "none", customer: usage?.customer ?? "", source: "api", id: JSON.stringify(place) },
    ...{
      type: usage === null ? "" : "llm.request",
      occurredAt: usage?.occurredAt ?? 0,
      receivedAt: bookedAt,
      bookedAt,
    },
    ...{ decidedAt: 0, status: usage === null ? "control" : "counted", reason: fact.kind === "usage" ? "" : fact.kind },
    ...{ payloadHash: 0, payload: usage === null ? "" : JSON.stringify(usage.data) },
  };
}

function add(rows: Record<string, Row[]>, table: string, row: Row): void {
  (rows[table] ??= []).push(row);
}

/** The engine on a fresh folder, with the tables. */
export async function openTestAnalytics(): Promise<{ store: AnalyticsStore; close: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-usage-"));
  const opened = await openClickHouse({ path: join(folder, "clickhouse") });
  await migrateClickHouse(opened.store, fileURLToPath(new URL("../../../infra/clickhouse", import.meta.url)));
  return {
    store: opened.store,
    async close() {
      await opened.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Instants in tests are written as text. */
export function instant(text: string): number {
  const at = parseInstant(text);
  assert(at !== null, `no instant: ${text}`);
  return at;
}
