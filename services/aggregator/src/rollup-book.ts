import { formatQuantity, type Quantity, uniqueHashOf } from "@tallyhouse/domain";
import { type ActiveMeter, meterLabel } from "./meter-set.ts";
import type { RollupKey, RollupValues, Row } from "./tables.ts";

/** One key's cumulative state: S(p, max(position, base)) of the design. */
interface Tally extends RollupValues {
  readonly key: RollupKey;
  /** Version of the stored row it was loaded from; contributions of earlier offsets are in it already. */
  readonly base: number;
  isDirty: boolean;
  /** Hashes of unique_count that this process handed to a flush, so that one is not inserted with every usage event. */
  uniques: Set<bigint> | null;
}

/** Tallies of one meter version and window, by {@link keyText}. */
type Tallies = Map<string, Tally>;

/** Lane of the live fold's rows. */
export const LIVE_LANE = 0;
/** Lane of a backfill's rows: in the live lane they would fight the live row of the activation's booking window. */
export const BACKFILL_LANE = 1;

/** A usage event's contribution to one meter. */
export interface RollupContribution {
  readonly meter: ActiveMeter;
  readonly customer: string;
  readonly dims: readonly string[];
  readonly quantity: Quantity;
  /** The text that unique_count tells apart; null for every other aggregation. */
  readonly uniqueText: string | null;
  /** Epoch milliseconds. */
  readonly occurredAt: number;
  /** Epoch seconds. */
  readonly windowStart: number;
  readonly bookedStart: number;
  readonly offset: number;
}

/** Hashes remembered at a time, some 64 MB. Forgetting them costs a second row for each, which is the same row. */
const UNIQUES_KEPT_MAX = 500_000;

/** The rollup keys of one task's current booking window, and of later ones that another writer reached before us. */
export class RollupBook {
  /** bookedStart → meter label → windowStart → customer and dims → state. */
  readonly #windows = new Map<number, Map<string, Map<number, Tallies>>>();
  readonly #dirty: Tally[] = [];
  readonly #withUniques = new Set<Tally>();
  #uniquesKept = 0;
  #uniqueRows: Row[] = [];

  get dirtyCount(): number {
    return this.#dirty.length;
  }

  /** Rows of `rollup_uniq` that wait for a flush. */
  get uniqueCount(): number {
    return this.#uniqueRows.length;
  }

  /** Takes over a stored row. `ver` may be ahead of the task: whoever wrote it folded the same log further. */
  load(key: RollupKey, ver: number, values: RollupValues): void {
    const label = meterLabel({ ...key, version: key.meterVersion });
    const tally = { key, base: ver, isDirty: false, uniques: null, ...values };
    this.#talliesOf(label, key).set(keyText(key), tally);
  }

  /** Adds a contribution, unless the loaded row holds it. */
  add(contribution: RollupContribution): void {
    const tally = this.#tallyOf(contribution);
    // Whatever the skip rule says: the process that stored the row may have died before it stored the hash.
    if (contribution.uniqueText !== null) this.#noteUnique(tally, contribution.uniqueText);
    if (isSkipped(tally, contribution)) return;
    addTo(tally, contribution);
    this.#markDirty(tally);
  }

  /** Takes a contribution back, unless the loaded row holds that. Nothing can be un-maxed: readers look at `voided`. */
  takeBack(contribution: RollupContribution): void {
    const tally = this.#tallyOf(contribution);
    if (isSkipped(tally, contribution)) return;
    tally.voided += 1;
    tally.sumQty -= contribution.quantity;
    this.#markDirty(tally);
  }

  /**
   * Rows of every key changed since the last call, with this version. Serialised here and now: a value read later would
   * belong to a longer prefix than its version says. With `rowsMax` no more than that many; the others stay for the next call.
   */
  takeRows(input: { stream: number; partition: number; ver: number; lane: number; rowsMax?: number }): Row[] {
    return this.#dirty.splice(0, input.rowsMax ?? this.#dirty.length).map((tally) => {
      tally.isDirty = false;
      return rowOf(tally, input);
    });
  }

  /** Rows of every hash noted since the last call. A set: inserting one again, now or after a restart, changes nothing. */
  takeUniqueRows(): Row[] {
    const rows = this.#uniqueRows;
    this.#uniqueRows = [];
    if (this.#uniquesKept > UNIQUES_KEPT_MAX) this.#forgetUniques();
    return rows;
  }

  /** Drops keys booked before this window (epoch seconds): the log clock never falls, so nothing touches them again. */
  forgetBefore(bookedStart: number): void {
    for (const start of this.#windows.keys()) {
      if (start >= bookedStart) continue;
      this.#windows.delete(start);
      this.#forgetUniques();
    }
  }

  #tallyOf(contribution: RollupContribution): Tally {
    const tallies = this.#talliesOf(contribution.meter.label, contribution);
    const text = keyText(contribution);
    let tally = tallies.get(text);
    if (tally === undefined) {
      tally = emptyTally(contribution);
      tallies.set(text, tally);
    }
    return tally;
  }

  #markDirty(tally: Tally): void {
    if (tally.isDirty) return;
    tally.isDirty = true;
    this.#dirty.push(tally);
  }

  #noteUnique(tally: Tally, text: string): void {
    const hash = uniqueHashOf(text);
    tally.uniques ??= new Set();
    if (tally.uniques.has(hash)) return;
    tally.uniques.add(hash);
    this.#withUniques.add(tally);
    this.#uniquesKept += 1;
    this.#uniqueRows.push(uniqueRowOf(tally.key, hash));
  }

  #forgetUniques(): void {
    for (const tally of this.#withUniques) tally.uniques = null;
    this.#withUniques.clear();
    this.#uniquesKept = 0;
  }

  #talliesOf(label: string, { bookedStart, windowStart }: Pick<RollupKey, "bookedStart" | "windowStart">): Tallies {
    let meters = this.#windows.get(bookedStart);
    if (meters === undefined) this.#windows.set(bookedStart, (meters = new Map()));
    let windows = meters.get(label);
    if (windows === undefined) meters.set(label, (windows = new Map()));
    let tallies = windows.get(windowStart);
    if (tallies === undefined) windows.set(windowStart, (tallies = new Map()));
    return tallies;
  }
}

/**
 * The skip rule: a row loaded at version v holds every offset below v. Without it a restart behind that row, or beside the process
 * that wrote it, would count those offsets a second time, or take them back a second time.
 */
function isSkipped(tally: Tally, { offset }: RollupContribution): boolean {
  return offset < tally.base;
}

/**
 * The customer and the dimension values, of which a meter version always has the same number. Without any it is the customer's own
 * text: making one for every contribution costs more than all the maps. Else lengths stand before free text: no choice of customer
 * and values can imitate another key.
 */
function keyText({ customer, dims }: Pick<RollupKey, "customer" | "dims">): string {
  if (dims.length === 0) return customer;
  let text = `${customer.length}:${customer}`;
  for (const value of dims) text += `${value.length}:${value}`;
  return text;
}

function emptyTally({ meter, customer, windowStart, dims, bookedStart }: RollupContribution): Tally {
  const { mode, meter: name, version } = meter.compiled.version;
  return {
    key: { mode, customer, meter: name, meterVersion: version, windowStart, dims, bookedStart },
    base: 0,
    isDirty: false,
    uniques: null,
    counted: 0,
    voided: 0,
    sumQty: 0n,
    minQty: 0n,
    maxQty: 0n,
    lastQty: 0n,
    lastAt: 0,
    lastOffset: 0,
  };
}

function addTo(tally: Tally, { quantity, occurredAt, offset }: RollupContribution): void {
  const isFirst = tally.counted === 0;
  tally.counted += 1;
  tally.sumQty += quantity;
  if (isFirst || quantity < tally.minQty) tally.minQty = quantity;
  if (isFirst || quantity > tally.maxQty) tally.maxQty = quantity;
  // Latest by (occurredAt, stream, partition, offset); offsets only rise here, so an equal instant replaces.
  if (isFirst || occurredAt >= tally.lastAt) {
    tally.lastQty = quantity;
    tally.lastAt = occurredAt;
    tally.lastOffset = offset;
  }
}

function rowOf(tally: Tally, input: { stream: number; partition: number; ver: number; lane: number }): Row {
  const { key } = tally;
  return [
    key.mode,
    key.customer,
    key.meter,
    key.meterVersion,
    key.windowStart,
    key.dims,
    input.stream,
    input.partition,
    input.lane,
    key.bookedStart,
    input.ver,
    tally.counted,
    tally.voided,
    formatQuantity(tally.sumQty),
    formatQuantity(tally.minQty),
    formatQuantity(tally.maxQty),
    formatQuantity(tally.lastQty),
    tally.lastAt,
    tally.lastOffset,
  ];
}

function uniqueRowOf(key: RollupKey, valueHash: bigint): Row {
  const { mode, customer, meter, meterVersion, windowStart, dims, bookedStart } = key;
  return [mode, customer, meter, meterVersion, windowStart, dims, valueHash, bookedStart];
}
