import { add, type Decimal, parseDecimal, ZERO } from "./decimal.ts";
import { assert } from "./assert.ts";

/**
 * What became of a meter event. Codes are those of Stripe's error reports.
 * Snapshots store positions of this list: append only.
 */
const FATES = [
  "counted",
  "duplicate",
  "no_meter",
  "archived_meter",
  "meter_event_no_customer_defined",
  "meter_event_customer_not_found",
  "meter_event_value_not_found",
  "meter_event_invalid_value",
  "meter_event_value_too_many_digits",
  "timestamp_too_far_in_past",
  "timestamp_in_future",
] as const;
export type Fate = (typeof FATES)[number];

/** One meter event as received. */
export interface MeterEventRow {
  readonly identifier: string;
  readonly eventName: string;
  /** The meter it was held against; null when none could be found. */
  readonly meter: string | null;
  /** As sent; null when the payload had none. */
  readonly customer: string | null;
  readonly value: string | null;
  /** Unix seconds. */
  readonly timestamp: number;
  /** Epoch milliseconds. */
  readonly receivedAt: number;
  readonly fate: Fate;
}

/** The row of one event in a snapshot: the fields of {@link MeterEventRow} in order, the fate as its position. */
export type PackedEvent = readonly [
  string,
  string,
  string | null,
  string | null,
  string | null,
  number,
  number,
  number,
];

/**
 * Every meter event of one mode, in order of receipt, in columns: about 240 bytes each (measured with identifiers of 44 characters).
 * Repeated texts (meters, customers, event names) are stored once.
 */
export class EventTable {
  readonly #identifiers: string[] = [];
  readonly #eventNames: string[] = [];
  readonly #meters: (string | null)[] = [];
  readonly #customers: (string | null)[] = [];
  readonly #values: (string | null)[] = [];
  readonly #timestamps: number[] = [];
  readonly #receivedAt: number[] = [];
  readonly #fates: number[] = [];
  readonly #texts = new Map<string, string>();
  /** Identifier → the event that holds it. A duplicate never takes it over. */
  readonly #holders = new Map<string, number>();
  /** Meter → customer → positions of counted events. */
  readonly #pairs = new Map<string, Map<string, number[]>>();

  get length(): number {
    return this.#identifiers.length;
  }

  /** Appends one event and returns its position. */
  push(row: MeterEventRow): number {
    const position = this.length;
    const meter = row.meter === null ? null : this.#shared(row.meter);
    const customer = row.customer === null ? null : this.#shared(row.customer);
    this.#identifiers.push(row.identifier);
    this.#eventNames.push(this.#shared(row.eventName));
    this.#meters.push(meter);
    this.#customers.push(customer);
    this.#values.push(row.value);
    this.#timestamps.push(row.timestamp);
    this.#receivedAt.push(row.receivedAt);
    this.#fates.push(FATES.indexOf(row.fate));
    if (row.fate !== "duplicate") this.#holders.set(row.identifier, position);
    if (row.fate === "counted") {
      assert(meter !== null && customer !== null, "a counted event has a meter and a customer");
      this.#pairPositions(meter, customer).push(position);
    }
    return position;
  }

  at(position: number): MeterEventRow {
    const fate = FATES[this.#fates[position] ?? -1];
    assert(fate !== undefined, `no meter event at ${position}`);
    return {
      identifier: this.#identifiers[position] ?? "",
      eventName: this.#eventNames[position] ?? "",
      meter: this.#meters[position] ?? null,
      customer: this.#customers[position] ?? null,
      value: this.#values[position] ?? null,
      timestamp: this.#timestamps[position] ?? 0,
      receivedAt: this.#receivedAt[position] ?? 0,
      fate,
    };
  }

  /** When the event that holds this identifier was received (epoch ms); undefined when none does. */
  heldSince(identifier: string): number | undefined {
    const position = this.#holders.get(identifier);
    return position === undefined ? undefined : this.#receivedAt[position];
  }

  /** Positions of the counted events of one meter and customer, in order of receipt. */
  counted(meter: string, customer: string): readonly number[] {
    return this.#pairs.get(meter)?.get(customer) ?? [];
  }

  /** Every (meter, customer) that has counted events, in order of the first one. */
  *pairs(): Generator<{ meter: string; customer: string; positions: readonly number[] }> {
    for (const [meter, customers] of this.#pairs) {
      for (const [customer, positions] of customers) yield { meter, customer, positions };
    }
  }

  timestampAt(position: number): number {
    return this.#timestamps[position] ?? 0;
  }

  receivedAtAt(position: number): number {
    return this.#receivedAt[position] ?? 0;
  }

  /** The exact value; 0 where a counting meter took an event without one. */
  valueAt(position: number): Decimal {
    return parseDecimal(this.#values[position] ?? "0") ?? ZERO;
  }

  pack(position: number): PackedEvent {
    const row = this.at(position);
    const fate = FATES.indexOf(row.fate);
    return [row.identifier, row.eventName, row.meter, row.customer, row.value, row.timestamp, row.receivedAt, fate];
  }

  pushPacked(packed: PackedEvent): void {
    const [identifier, eventName, meter, customer, value, timestamp, receivedAt, at] = packed;
    const fate = FATES[at];
    assert(fate !== undefined, `unknown fate ${at} in a snapshot`);
    this.push({ identifier, eventName, meter, customer, value, timestamp, receivedAt, fate });
  }

  #shared(text: string): string {
    const known = this.#texts.get(text);
    if (known !== undefined) return known;
    this.#texts.set(text, text);
    return text;
  }

  #pairPositions(meter: string, customer: string): number[] {
    let customers = this.#pairs.get(meter);
    if (customers === undefined) this.#pairs.set(meter, (customers = new Map<string, number[]>()));
    let positions = customers.get(customer);
    if (positions === undefined) customers.set(customer, (positions = []));
    return positions;
  }
}

/** Sum, number and last value of some counted events. */
export interface Aggregate {
  readonly sum: Decimal;
  readonly count: number;
  /** Of the latest timestamp; of equal timestamps the one received last. 0 without events. */
  readonly last: Decimal;
}

/** Aggregates events given in order of receipt. */
export function aggregate(table: EventTable, positions: Iterable<number>): Aggregate {
  let sum = ZERO;
  let count = 0;
  let last = -1;
  for (const position of positions) {
    sum = add(sum, table.valueAt(position));
    count += 1;
    if (last === -1 || table.timestampAt(position) >= table.timestampAt(last)) last = position;
  }
  return { sum, count, last: last === -1 ? ZERO : table.valueAt(last) };
}
