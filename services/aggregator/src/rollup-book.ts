import { formatQuantity, type Quantity } from "@tallyhouse/domain";
import { type ActiveMeter, meterLabel } from "./meter-set.ts";
import type { RollupKey, RollupValues, Row } from "./tables.ts";

/** One key's cumulative state: S(p, max(position, base)) of the design. */
interface Tally extends RollupValues {
  readonly key: RollupKey;
  /** Version of the stored row it was loaded from; contributions of earlier offsets are in it already. */
  readonly base: number;
  isDirty: boolean;
}

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
  /** Epoch milliseconds. */
  readonly occurredAt: number;
  /** Epoch seconds. */
  readonly windowStart: number;
  readonly bookedStart: number;
  readonly offset: number;
}

/** The rollup keys of one task's current booking window, and of later ones that another writer reached before us. */
export class RollupBook {
  /** bookedStart → key text → state. */
  readonly #windows = new Map<number, Map<string, Tally>>();
  #dirty: Tally[] = [];

  get dirtyCount(): number {
    return this.#dirty.length;
  }

  /** Takes over a stored row. `ver` may be ahead of the task: whoever wrote it folded the same log further. */
  load(key: RollupKey, ver: number, values: RollupValues): void {
    const text = keyText({ ...key, label: meterLabel({ ...key, version: key.meterVersion }) });
    this.#windowOf(key.bookedStart).set(text, { key, base: ver, isDirty: false, ...values });
  }

  add(contribution: RollupContribution): void {
    const window = this.#windowOf(contribution.bookedStart);
    const text = keyText({ ...contribution, label: contribution.meter.label });
    let tally = window.get(text);
    if (tally === undefined) {
      tally = emptyTally(contribution);
      window.set(text, tally);
    }
    // The skip rule: a row loaded at version v holds every offset below v. Without it a restart behind that row, or
    // beside the process that wrote it, would count those offsets a second time.
    if (contribution.offset < tally.base) return;
    addTo(tally, contribution);
    if (!tally.isDirty) {
      tally.isDirty = true;
      this.#dirty.push(tally);
    }
  }

  /**
   * Rows of every key changed since the last call, with this version. Serialised here and now: a value read later would
   * belong to a longer prefix than its version says.
   */
  takeRows(input: { stream: number; partition: number; ver: number; lane: number }): Row[] {
    const rows = this.#dirty.map((tally) => {
      tally.isDirty = false;
      return rowOf(tally, input);
    });
    this.#dirty = [];
    return rows;
  }

  /** Drops keys booked before this window (epoch seconds): the log clock never falls, so nothing touches them again. */
  forgetBefore(bookedStart: number): void {
    for (const start of this.#windows.keys()) if (start < bookedStart) this.#windows.delete(start);
  }

  #windowOf(bookedStart: number): Map<string, Tally> {
    let window = this.#windows.get(bookedStart);
    if (window === undefined) {
      window = new Map();
      this.#windows.set(bookedStart, window);
    }
    return window;
  }
}

/** Lengths before free text: no choice of customer and dimension values can imitate another key. */
function keyText(key: { label: string; customer: string; windowStart: number; dims: readonly string[] }): string {
  let text = `${key.label}/${key.windowStart}/${key.customer.length}:${key.customer}`;
  for (const value of key.dims) text += `${value.length}:${value}`;
  return text;
}

function emptyTally({ meter, customer, windowStart, dims, bookedStart }: RollupContribution): Tally {
  const { mode, meter: name, version } = meter.compiled.version;
  return {
    key: { mode, customer, meter: name, meterVersion: version, windowStart, dims, bookedStart },
    base: 0,
    isDirty: false,
    counted: 0,
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
    0, // voided
    formatQuantity(tally.sumQty),
    formatQuantity(tally.minQty),
    formatQuantity(tally.maxQty),
    formatQuantity(tally.lastQty),
    tally.lastAt,
    tally.lastOffset,
  ];
}
