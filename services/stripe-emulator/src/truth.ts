import { formatDecimal } from "./decimal.ts";
import { aggregate } from "./event-table.ts";
import type { EmulatorState, Mode } from "./state.ts";
import { MODES } from "./state.ts";

/** A meter event with its fate. `code` says why a rejected one was rejected. */
export interface TruthEvent {
  readonly mode: Mode;
  readonly identifier: string;
  readonly event_name: string;
  readonly meter: string | null;
  readonly customer: string | null;
  /** As sent. */
  readonly value: string | null;
  /** Unix seconds. */
  readonly timestamp: number;
  /** Epoch milliseconds. */
  readonly received_at: number;
  readonly fate: "counted" | "rejected" | "duplicate";
  readonly code: string | null;
}

/** All counted events of one meter and customer, whatever the meter's formula: exact decimals as texts. */
export interface TruthTotal {
  readonly mode: Mode;
  readonly meter: string;
  readonly event_name: string;
  readonly customer: string;
  readonly count: number;
  readonly sum: string;
  readonly last: string;
}

/** A customer or meter as the API shows it, with its mode. Deleted customers are tombstones. */
export type TruthObject = { readonly mode: Mode; readonly id: string; readonly object: string } & Readonly<
  Record<string, unknown>
>;

/** Everything the emulator knows. Follows from the journal alone: equal commands, equal bytes. */
export interface Truth {
  readonly customers: readonly TruthObject[];
  readonly meters: readonly TruthObject[];
  /** In order of receipt, test mode first. */
  readonly events: readonly TruthEvent[];
  readonly totals: readonly TruthTotal[];
}

/** The whole truth as one object: for tests and small states. */
export function truthOf(state: Readonly<EmulatorState>): Truth {
  return {
    customers: customersOf(state),
    meters: metersOf(state),
    events: [...eventsOf(state)],
    totals: totalsOf(state),
  };
}

/** The same as JSON in pieces, so that a million events need no second copy in memory. */
export function* truthJson(state: Readonly<EmulatorState>): Generator<string> {
  const totals = totalsOf(state); // now, as are the events' bounds: later commands do not show
  const events = eventsOf(state);
  yield `{"customers":${JSON.stringify(customersOf(state))},"meters":${JSON.stringify(metersOf(state))},"events":[`;
  let separator = "\n";
  for (const rows of chunks(events)) {
    yield separator + rows.map((row) => JSON.stringify(row)).join(",\n");
    separator = ",\n";
  }
  yield `],"totals":${JSON.stringify(totals)}}\n`;
}

/** The same as lines of JSON, each with a `kind`: customer, meter, event, total. */
export function* truthLines(state: Readonly<EmulatorState>): Generator<string> {
  const totals = totalsOf(state);
  const events = eventsOf(state);
  for (const row of customersOf(state)) yield line("customer", row);
  for (const row of metersOf(state)) yield line("meter", row);
  for (const rows of chunks(events)) yield rows.map((row) => line("event", row)).join("");
  for (const row of totals) yield line("total", row);
}

const ROWS_PER_CHUNK = 500;

function line(kind: string, row: object): string {
  return `${JSON.stringify({ kind, ...row })}\n`;
}

function* chunks<T>(rows: Iterable<T>): Generator<T[]> {
  let chunk: T[] = [];
  for (const row of rows) {
    if (chunk.push(row) < ROWS_PER_CHUNK) continue;
    yield chunk;
    chunk = [];
  }
  if (chunk.length > 0) yield chunk;
}

function customersOf(state: Readonly<EmulatorState>): TruthObject[] {
  return MODES.flatMap((mode) => state.modes[mode].customers.rows.map((row) => ({ mode, ...row })));
}

function metersOf(state: Readonly<EmulatorState>): TruthObject[] {
  return MODES.flatMap((mode) => state.modes[mode].meters.rows.map((row) => ({ mode, ...row })));
}

/** The events there are when this is called, whatever is received while they are read. */
function eventsOf(state: Readonly<EmulatorState>): Iterable<TruthEvent> {
  const bounds = MODES.map((mode) => ({ mode, length: state.modes[mode].events.length }));
  return (function* () {
    for (const { mode, length } of bounds) {
      for (let position = 0; position < length; position += 1) yield truthEvent(state, mode, position);
    }
  })();
}

function truthEvent(state: Readonly<EmulatorState>, mode: Mode, position: number): TruthEvent {
  const { identifier, eventName, meter, customer, value, timestamp, receivedAt, fate } =
    state.modes[mode].events.at(position);
  const isRejected = fate !== "counted" && fate !== "duplicate";
  return {
    mode,
    identifier,
    event_name: eventName,
    meter,
    customer,
    value,
    timestamp,
    received_at: receivedAt,
    fate: isRejected ? "rejected" : fate,
    code: isRejected ? fate : null,
  };
}

/** The last `count` events of a mode, newest first. */
export function recentEvents(state: Readonly<EmulatorState>, mode: Mode, count: number): TruthEvent[] {
  const { length } = state.modes[mode].events;
  return Array.from({ length: Math.min(count, length) }, (_, at) => truthEvent(state, mode, length - 1 - at));
}

function totalsOf(state: Readonly<EmulatorState>): TruthTotal[] {
  return MODES.flatMap((mode) => {
    const { events, meters } = state.modes[mode];
    return Array.from(events.pairs(), ({ meter, customer, positions }) => {
      const { sum, count, last } = aggregate(events, positions);
      const eventName = meters.get(meter)?.event_name ?? "";
      return {
        mode,
        meter,
        event_name: eventName,
        customer,
        count,
        sum: formatDecimal(sum),
        last: formatDecimal(last),
      };
    });
  });
}
