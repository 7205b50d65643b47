/** What must hold at every instant of a schedule and at its end: I1 to I9 of the design, by the guarantee that breaks with each. */
import { Violation } from "@tallyhouse/testkit";
import { isDeepStrictEqual } from "node:util";
import type { ProgressRow, ResultTable, Row } from "../../tables.ts";
import { type ModelStore, type NamedRow, nameColumns, textOf } from "../model-store.ts";
import {
  identityOf,
  type ReferenceFate,
  type ReferenceLimits,
  ReferencePartition,
  type ReferenceValues,
  spelled,
} from "./reference.ts";
import type { SimLog } from "./sim-log.ts";
import type { Correctable } from "./workload.ts";

interface Landed {
  readonly raw: Set<number>;
  readonly identities: Set<number>;
  readonly controls: Set<number>;
  /** Rollup key → the row of the highest version stored. */
  readonly newest: Map<string, NamedRow<"rollup">>;
  /** The same of lane 1. */
  readonly earlier: Map<string, NamedRow<"rollup">>;
  /** Names of meters whose earlier usage is counted. */
  readonly backfilled: Set<string>;
  progress: number;
}

/** Watches everything that is sent to the store and everything that becomes visible in it. */
export class Checks {
  readonly references: readonly ReferencePartition[];
  readonly #log: SimLog;
  readonly #model: ModelStore;
  readonly #limits: ReferenceLimits;
  readonly #landed: readonly Landed[];
  /** Hashes of unique_count that are stored. */
  readonly #uniques = new Set<string>();
  /** Cut → what a reader saw below it the first time. */
  readonly #seals = new Map<number, string>();

  constructor(world: { log: SimLog; model: ModelStore; limits: ReferenceLimits }) {
    this.#log = world.log;
    this.#model = world.model;
    this.#limits = world.limits;
    this.references = world.log.partitions.map((_, partition) => new ReferencePartition(partition, world.limits));
    this.#landed = world.log.partitions.map(() => ({
      raw: new Set(),
      identities: new Set(),
      controls: new Set(),
      newest: new Map(),
      earlier: new Map(),
      backfilled: new Set(),
      progress: 0,
    }));
  }

  /** I3, I5, I8: every row that any process ever sends, whether it arrives or not, states its prefix of the log. */
  sent(table: ResultTable, rows: readonly Row[]): void {
    for (const row of rows) {
      if (table === "rollup") this.#sentRollup(nameColumns("rollup", row));
      if (table === "raw_events") this.#sentRaw(nameColumns("raw_events", row));
      if (table === "identities") this.#sentIdentity(nameColumns("identities", row));
      if (table === "rollup_uniq") this.#sentUnique(nameColumns("rollup_uniq", row));
      if (table === "control_records") this.#sentControl(nameColumns("control_records", row));
    }
  }

  /** Rows that are visible from now on. */
  landed(table: ResultTable, rows: readonly Row[]): void {
    for (const row of rows) {
      if (table === "raw_events") {
        const { logPartition, logOffset } = nameColumns("raw_events", row);
        this.#at(logPartition).raw.add(logOffset);
      } else if (table === "identities") {
        const { logPartition, logOffset } = nameColumns("identities", row);
        this.#at(logPartition).identities.add(logOffset);
      } else if (table === "control_records") {
        const { logPartition, logOffset } = nameColumns("control_records", row);
        this.#at(logPartition).controls.add(logOffset);
      } else if (table === "rollup_uniq") {
        this.#uniques.add(uniqueOf(nameColumns("rollup_uniq", row)));
      } else if (table === "rollup") {
        const named = nameColumns("rollup", row);
        const landed = this.#at(named.logPartition);
        const newest = named.lane === 0 ? landed.newest : landed.earlier;
        const key = keyOf(named);
        if (named.ver >= (newest.get(key)?.ver ?? 0)) newest.set(key, named);
      }
    }
  }

  /** I7: progress covers nothing that is not stored at that instant. */
  progress(row: ProgressRow): void {
    const { partition, nextOffset } = row;
    const landed = this.#at(partition);
    const reference = this.#reference(partition);
    const place = `progress ${nextOffset} of partition ${partition}`;
    if (nextOffset > reference.fates.length) throw new Violation("G3", `${place} lies beyond the log`);
    for (let offset = landed.progress; offset < nextOffset; offset += 1)
      this.#expectStored({ partition, offset, place });
    for (const [key, history] of reference.histories) {
      const last = history.findLast(({ offset }) => offset < nextOffset);
      if (last !== undefined && (landed.newest.get(key)?.ver ?? 0) <= last.offset)
        throw new Violation("G1", `${place}, but ${key} is not stored beyond offset ${last.offset}`);
    }
    for (const [unique, offset] of reference.uniques)
      if (offset < nextOffset && !this.#uniques.has(unique))
        throw new Violation("G1", `${place}, but ${unique} of offset ${offset} is not stored`);
    const fate = reference.fates[nextOffset - 1];
    if (fate !== undefined && (fate.bookedAt !== row.logClockAt || fate.countedSoFar !== row.counted))
      throw new Violation("G3", `${place} says clock ${row.logClockAt}, ${row.counted} counted, not ${textOf(fate)}`);
    landed.progress = Math.max(landed.progress, nextOffset);
  }

  /** The `backfills` row comes after everything it speaks of. */
  backfilled(partition: number, meter: { mode: string; meter: string; version: number }): void {
    const name = `${meter.mode}|${meter.meter}|${meter.version}`;
    const wanted = this.#reference(partition).backfillOf(name);
    const place = `backfill of ${name} in partition ${partition}`;
    if (wanted === null) throw new Violation("G3", `${place}, which is not activated there`);
    const landed = this.#at(partition);
    for (const key of wanted.rows.keys())
      if (!landed.earlier.has(key)) throw new Violation("G1", `${place}, but ${key} is not stored`);
    for (const unique of wanted.uniques)
      if (!this.#uniques.has(unique)) throw new Violation("G1", `${place}, but ${unique} is not stored`);
    landed.backfilled.add(name);
  }

  /** Whether the earlier usage of every meter activated before the instant is counted everywhere; of all meters without one. */
  isBackfilled(beforeAt = Infinity): boolean {
    return this.references.every((_, partition) => {
      const { fates, meters } = this.#reference(partition);
      const { backfilled } = this.#at(partition);
      return [...meters].every(
        ([name, { activatedAtOffset }]) =>
          backfilled.has(name) || (fates[activatedAtOffset]?.bookedAt ?? 0) >= beforeAt,
      );
    });
  }

  /** The partition's progress now. */
  storedOffset(partition: number): number {
    return this.#at(partition).progress;
  }

  /** What an operator finds counted and stored. */
  correctable(): Correctable[] {
    return this.references.flatMap(({ fates }, partition) =>
      fates
        .slice(0, this.storedOffset(partition))
        .flatMap(({ status, event, occurredAt }, offset) =>
          status === "counted" && event !== null ? [{ partition, offset, event, occurredAt }] : [],
        ),
    );
  }

  /** I9: a cut that the watermark has passed reads the same for ever. */
  async readSeals(dice: { pick<Item>(items: readonly Item[]): Item }): Promise<void> {
    const watermarkAt = await this.#watermarkAt();
    if (watermarkAt === null) return;
    const { bookingWindowSeconds } = this.#limits;
    const newest = Math.floor(watermarkAt / 1_000 / bookingWindowSeconds) * bookingWindowSeconds;
    for (const cut of new Set([newest, dice.pick([newest, ...this.#seals.keys()])]))
      if (this.isBackfilled(cut * 1_000)) this.#readSeal(cut);
  }

  /** Everything is stored and nothing is under way: I1, I2, I4, I6, and every seal once more. */
  atEnd(): void {
    const rows = this.#model.rows("raw_events");
    for (const [partition, { entries }] of this.#log.partitions.entries()) {
      const reference = this.#reference(partition);
      const stored = rows.filter(({ logPartition }) => logPartition === partition);
      if (stored.length !== entries.length)
        throw new Violation("G1", `partition ${partition} has ${entries.length} records and ${stored.length} raw rows`);
      for (const row of this.#model.newestRollups()) if (row.logPartition === partition) this.#sentRollup(row);
      for (const name of reference.meters.keys()) this.backfilled(partition, nameParts(name));
      const keys = this.#at(partition).newest;
      for (const key of reference.histories.keys())
        if (!keys.has(key)) throw new Violation("G1", `partition ${partition} has no row of ${key}`);
    }
    this.#countTotals();
    this.#checkIdentities(rows);
    for (const cut of this.#seals.keys()) this.#readSeal(cut);
  }

  /** What the totals are, by usage alone: the sum over every key of every partition. */
  #countTotals(): void {
    const wanted = this.references.flatMap(({ histories }) =>
      [...histories.values()].map((history) => history.at(-1)?.values),
    );
    const stored = this.#model.newestRollups().filter(({ lane }) => lane === 0);
    const wantedCounted = wanted.reduce((sum, values) => sum + (values?.counted ?? 0), 0);
    const storedCounted = stored.reduce((sum, { counted }) => sum + counted, 0);
    if (storedCounted < wantedCounted) throw new Violation("G1", `${storedCounted} counted of ${wantedCounted}`);
    if (storedCounted > wantedCounted)
      throw new Violation("G2", `${storedCounted} counted instead of ${wantedCounted}`);
  }

  #sentRollup(row: NamedRow<"rollup">): void {
    const key = keyOf(row);
    const reference = this.#reference(row.logPartition);
    const place = `rollup of partition ${row.logPartition}, lane ${row.lane}, ${key}, version ${row.ver}`;
    if (row.ver > reference.fates.length) throw new Violation("G3", `${place} is beyond the log`);
    const values = row.lane === 0 ? reference.valuesAt(key, row.ver) : this.#earlierValues(row);
    if (values === null) throw new Violation("G3", `${place}: nothing touched it`);
    const wanted = spelled(values);
    const stated = valuesOf(row);
    if (isDeepStrictEqual(stated, wanted)) return;
    const wrong = Object.keys(wanted).filter((name) => stated[name] !== wanted[name]);
    const guarantee = wrong.every((name) => name === "sumQty") ? "G4" : moreOrLess(row.counted, values.counted);
    throw new Violation(guarantee, `${place}: ${textOf(stated)} instead of ${textOf(wanted)}`);
  }

  #earlierValues(row: NamedRow<"rollup">): ReferenceValues | null {
    const backfill = this.#reference(row.logPartition).backfillOf(`${row.mode}|${row.meter}|${row.meterVersion}`);
    return backfill?.version === row.ver ? (backfill.rows.get(keyOf(row)) ?? null) : null;
  }

  #sentRaw(row: NamedRow<"raw_events">): void {
    const fate = this.#fateOf(row.logPartition, row.logOffset);
    const place = `raw row ${row.logPartition}:${row.logOffset}`;
    if (fate === undefined) throw new Violation("G3", `${place} is beyond the log`);
    if (fate.status === row.status && fate.reason === row.reason && fate.bookedAt === row.bookedAt) return;
    const isMore = row.status === "counted" && fate.status !== "counted";
    const isLess = row.status !== "counted" && fate.status === "counted";
    throw new Violation(
      isMore ? "G2" : isLess ? "G1" : "G3",
      `${place} is ${row.status}(${row.reason}) booked ${row.bookedAt}, not ${fate.status}(${fate.reason}) booked ${fate.bookedAt}`,
    );
  }

  #sentIdentity(row: NamedRow<"identities">): void {
    const fate = this.#fateOf(row.logPartition, row.logOffset);
    if (fate?.status !== "counted" || Math.floor(fate.bookedAt / 1_000) !== row.bookedAt)
      throw new Violation("G3", `identity of ${row.logPartition}:${row.logOffset}, which is ${textOf(fate)}`);
  }

  #sentUnique(row: NamedRow<"rollup_uniq">): void {
    const unique = uniqueOf(row);
    const name = `${row.mode}|${row.meter}|${row.meterVersion}`;
    const isKnown = this.references.some((_, partition) => {
      const reference = this.#reference(partition);
      return reference.uniques.has(unique) || reference.backfillOf(name)?.uniques.has(unique) === true;
    });
    if (!isKnown) throw new Violation("G3", `${unique} is of no usage event`);
  }

  #sentControl(row: NamedRow<"control_records">): void {
    const fate = this.#fateOf(row.logPartition, row.logOffset);
    if (fate?.hasControlRow !== true || fate.reason !== row.kind)
      throw new Violation("G3", `control record ${textOf(row)}, which is ${textOf(fate)}`);
  }

  #expectStored(at: { partition: number; offset: number; place: string }): void {
    const { partition, offset, place } = at;
    const landed = this.#at(partition);
    const fate = this.#fateOf(partition, offset);
    if (fate === undefined) return;
    if (!landed.raw.has(offset)) throw new Violation("G1", `${place}, but offset ${offset} has no raw row`);
    if (fate.status === "counted" && !landed.identities.has(offset))
      throw new Violation("G2", `${place}, but the identity counted at offset ${offset} is not stored`);
    if (fate.hasControlRow && !landed.controls.has(offset))
      throw new Violation("G3", `${place}, but the control record at offset ${offset} is not stored`);
    if (fate.status === "redirected" && fate.event !== null && !this.#hasArrived(fate.event))
      throw new Violation("G1", `${place}, but the copy of misplaced offset ${offset} is not in the log`);
  }

  #hasArrived(event: NonNullable<ReferenceFate["event"]>): boolean {
    const identity = identityOf(event);
    return this.references.some((_, partition) =>
      this.#reference(partition).fates.some(
        (fate) => fate.status !== "redirected" && fate.event !== null && identityOf(fate.event) === identity,
      ),
    );
  }

  /** I4, from the stored rows alone; and I1 for whatever was redirected. */
  #checkIdentities(rows: readonly NamedRow<"raw_events">[]): void {
    const usage = rows.filter(({ mode }) => mode !== "none");
    for (const [identity, copies] of Map.groupBy(usage, (row) => identityOf(row))) {
      const counted = copies
        .filter(({ status, reason }) => status === "counted" && reason !== "replace")
        .toSorted((a, b) => a.logOffset - b.logOffset);
      for (const [index, later] of counted.entries()) {
        for (const earlier of counted.slice(0, index)) {
          const apartSeconds = Math.floor(later.bookedAt / 1_000) - Math.floor(earlier.bookedAt / 1_000);
          if (apartSeconds <= this.#limits.horizonSeconds)
            throw new Violation("G2", `${identity} is counted twice within ${apartSeconds} s`);
          if (later.occurredAt === earlier.occurredAt)
            throw new Violation("G2", `${identity}: a retry with the same time is counted twice`);
        }
      }
      // A copy that comes behind a `stream.close` is invalid there, and its row names no identity.
      const isClosed = this.references.some((reference) => reference.isClosed);
      if (copies.every(({ status }) => status === "redirected") && !isClosed)
        throw new Violation("G1", `${identity} was redirected and never arrived`);
      const isRepeated = copies.some(({ status }) => status === "duplicate" || status === "conflict");
      if (isRepeated && !copies.some(({ status }) => status === "counted"))
        throw new Violation("G1", `${identity} is a duplicate of nothing`);
    }
  }

  #readSeal(cut: number): void {
    const rows = this.#landed.flatMap(({ newest, earlier }) =>
      [...newest.values(), ...earlier.values()].filter(({ bookedStart }) => bookedStart < cut),
    );
    const reading = rows
      .map((row) => `${row.logPartition} ${row.lane} ${keyOf(row)} ${textOf(valuesOf(row))}`)
      // The hashes of unique_count are a set beside the rows; the booking window stands before the hash.
      .concat([...this.#uniques].filter((unique) => Number(unique.split("|").at(-2)) < cut))
      .sort()
      .join("\n");
    const before = this.#seals.get(cut);
    if (before !== undefined && before !== reading)
      throw new Violation("G3", `the usage as known at ${cut} changed from\n${before}\nto\n${reading}`);
    this.#seals.set(cut, reading);
  }

  /** The instant before which everything is booked: the clock of the partition that is furthest behind. */
  async #watermarkAt(): Promise<number | null> {
    const stored = await Promise.all(this.references.map((_, partition) => this.#model.readProgress(partition)));
    if (stored.some((row) => row === null)) return null;
    return Math.min(...stored.map((row) => row?.logClockAt ?? 0));
  }

  #fateOf(partition: number, offset: number): ReferenceFate | undefined {
    return this.#reference(partition).fates[offset];
  }

  #reference(partition: number): ReferencePartition {
    const reference = this.references[partition];
    if (reference === undefined) throw new Error(`no partition ${partition}`);
    reference.follow(this.#log.at(partition).entries);
    return reference;
  }

  #at(partition: number): Landed {
    const landed = this.#landed[partition];
    if (landed === undefined) throw new Error(`no partition ${partition}`);
    return landed;
  }
}

function nameParts(name: string): { mode: string; meter: string; version: number } {
  const [mode = "", meter = "", version = ""] = name.split("|");
  return { mode, meter, version: Number(version) };
}

function moreOrLess(stated: number, wanted: number): "G1" | "G2" | "G3" {
  if (stated === wanted) return "G3";
  return stated > wanted ? "G2" : "G1";
}

function uniqueOf(row: NamedRow<"rollup_uniq">): string {
  return `${keyOf(row)}|${row.valueHash}`;
}

function keyOf(row: NamedRow<"rollup" | "rollup_uniq">): string {
  const { mode, customer, meter, meterVersion, windowStart, dims, bookedStart } = row;
  return [mode, customer, meter, meterVersion, windowStart, JSON.stringify(dims), bookedStart].join("|");
}

function valuesOf(row: NamedRow<"rollup">): Record<string, string | number> {
  const { counted, voided, sumQty, minQty, maxQty, lastQty, lastAt, lastOffset } = row;
  return { counted, voided, sumQty, minQty, maxQty, lastQty, lastAt, lastOffset };
}
