import { type Answer, badRequest, missingReference } from "./answer.ts";
import { parseDecimal, significantDigits } from "./decimal.ts";
import type { Fate, MeterEventRow } from "./event-table.ts";
import { type Call, type Handlers, livemode, type Result, seconds } from "./handler.ts";
import { seededText } from "./ids.ts";
import type { Parameters } from "./parameters.ts";
import { isDeleted, type Meter, type ModeState } from "./state.ts";

const DAY_MS = 24 * 3_600_000;
/** How long an identifier is remembered with `identifierMemory: "24h"`: the least that Stripe promises. */
const IDENTIFIER_MEMORY_MS = DAY_MS;
const PAST_MAX_MS = 35 * DAY_MS;
const FUTURE_MAX_MS = 5 * 60_000;
/** @see https://docs.stripe.com/changelog (2026-04-22) */
const VALUE_DIGITS_MAX = 15;
/** Bounds the zeros behind the point, which are no significant digits (assumption). */
const VALUE_LENGTH_MAX = 100;

interface MeterEventParameters {
  readonly event_name: string;
  readonly payload: Readonly<Record<string, string>>;
  readonly identifier?: string;
  /** Unix seconds. */
  readonly timestamp?: number;
}

/** `POST /v1/billing/meter_events`. Every call that reaches it is kept with its fate, refused ones included. */
export const meterEventHandlers: Handlers = {
  "POST /v1/billing/meter_events": {
    effect: "write",
    supported: ["event_name", "payload", "identifier", "timestamp"],
    run: create,
  },
};

/** The customer a meter event is for, as far as the active meter tells; what the limit of one call per pair looks at. */
export function pairOf(data: ModeState, parameters: Parameters): string {
  const { event_name: eventName, payload } = parameters as unknown as MeterEventParameters;
  return JSON.stringify([eventName, customerIn(findMeter(data, eventName), payload)]);
}

/** The answer of a counted event, built from the stored row and the payload of the request that repeats it. */
export function countedAnswer(data: ModeState, position: number, parameters: Parameters): Answer {
  return accepted(data, data.events.at(position), parameters as unknown as MeterEventParameters);
}

function create(call: Call): Result {
  const { state, data, at } = call;
  const wanted = call.parameters as unknown as MeterEventParameters;
  const identifier =
    wanted.identifier ?? `mevt_${seededText(state.seed, `${data.mode} event ${data.events.length}`, 24)}`;
  const meter = findMeter(data, wanted.event_name);
  const row: MeterEventRow = {
    identifier,
    eventName: wanted.event_name,
    meter: meter?.id ?? null,
    customer: customerIn(meter, wanted.payload),
    value: wanted.payload[meter?.value_settings.event_payload_key ?? "value"] ?? null,
    timestamp: wanted.timestamp ?? seconds(at),
    receivedAt: at,
    fate: "counted",
  };
  const verdict = isHeld(call, identifier)
    ? { fate: "duplicate" as const, answer: badRequest(`An event already exists with identifier ${identifier}.`) }
    : judge(data, row, meter);
  const position = data.events.push({ ...row, fate: verdict?.fate ?? "counted" });
  if (verdict !== undefined) return verdict.answer;
  return { ...accepted(data, row, wanted), eventPosition: position };
}

/** The active meter of this name, else the newest inactive one. */
function findMeter(data: ModeState, eventName: string): Meter | undefined {
  const active = data.activeMeters.get(eventName);
  if (active !== undefined) return data.meters.get(active);
  return data.meters.rows.findLast((meter) => meter.event_name === eventName);
}

function customerIn(meter: Meter | undefined, payload: Readonly<Record<string, string>>): string | null {
  return payload[meter?.customer_mapping.event_payload_key ?? "stripe_customer_id"] ?? null;
}

/** By receipt, not by timestamp. An identifier is held by refused events too (assumption; the stricter reading). */
function isHeld({ state, data, at }: Call, identifier: string): boolean {
  const since = data.events.heldSince(identifier);
  if (since === undefined) return false;
  return state.identifierMemory === "forever" || at - since <= IDENTIFIER_MEMORY_MS;
}

interface Verdict {
  readonly fate: Fate;
  readonly answer: Answer;
}

/** Why an event is refused; undefined when it counts. */
function judge(data: ModeState, row: MeterEventRow, meter: Meter | undefined): Verdict | undefined {
  if (meter === undefined || meter.status === "inactive") {
    const message = `Invalid event_name: ${row.eventName}. No active meter found with this event name.`;
    const fate = meter === undefined ? "no_meter" : "archived_meter";
    return { fate, answer: badRequest(message, { param: "event_name" }) };
  }
  return judgeCustomer(data, row, meter) ?? judgeValue(row, meter) ?? judgeTimestamp(row);
}

function judgeCustomer(data: ModeState, row: MeterEventRow, meter: Meter): Verdict | undefined {
  const key = meter.customer_mapping.event_payload_key;
  const param = `payload[${key}]`;
  if (row.customer === null || row.customer === "") {
    return { fate: "meter_event_no_customer_defined", answer: missingKey(key) };
  }
  const customer = data.customers.get(row.customer);
  if (customer !== undefined && !isDeleted(customer)) return undefined;
  const answer = missingReference({ noun: "customer", id: row.customer, param });
  return { fate: "meter_event_customer_not_found", answer };
}

function judgeValue({ value }: MeterEventRow, meter: Meter): Verdict | undefined {
  const key = meter.value_settings.event_payload_key;
  const param = `payload[${key}]`;
  if (value === null || value === "") {
    // A meter that counts events needs no value (assumption).
    if (value === null && meter.default_aggregation.formula === "count") return undefined;
    return { fate: "meter_event_value_not_found", answer: missingKey(key) };
  }
  if (value.length > VALUE_LENGTH_MAX || parseDecimal(value) === undefined) {
    const message = `Invalid value in the event payload: ${value.slice(0, VALUE_LENGTH_MAX)}. It must be a plain decimal number.`;
    return { fate: "meter_event_invalid_value", answer: badRequest(message, { param }) };
  }
  if (significantDigits(value) <= VALUE_DIGITS_MAX) return undefined;
  const message = `The value in the event payload can have at most ${VALUE_DIGITS_MAX} digits. Received ${value}.`;
  return { fate: "meter_event_value_too_many_digits", answer: badRequest(message, { param }) };
}

function missingKey(key: string): Answer {
  return badRequest(`Missing required payload key: ${key}.`, { param: "payload" });
}

function judgeTimestamp({ timestamp, receivedAt }: MeterEventRow): Verdict | undefined {
  const param = "timestamp";
  if (timestamp * 1_000 < receivedAt - PAST_MAX_MS) {
    const answer = badRequest("Timestamp must be no more than 35 days in the past.", { param });
    return { fate: "timestamp_too_far_in_past", answer };
  }
  if (timestamp * 1_000 <= receivedAt + FUTURE_MAX_MS) return undefined;
  const answer = badRequest("Timestamp must be no more than 5 minutes in the future.", { param });
  return { fate: "timestamp_in_future", answer };
}

function accepted(data: ModeState, row: MeterEventRow, wanted: MeterEventParameters): Answer {
  const body = {
    object: "billing.meter_event",
    created: seconds(row.receivedAt),
    event_name: row.eventName,
    identifier: row.identifier,
    livemode: livemode(data),
    payload: wanted.payload,
    timestamp: row.timestamp,
  };
  return { status: 200, body };
}
