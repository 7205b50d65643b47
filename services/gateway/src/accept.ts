/** One usage event of a request: accepted as a record of the log, or rejected with its field and rule. */
import {
  encodeUsageEvent,
  isJsonObject,
  type LogRecord,
  type Mode,
  parseJson,
  partitionOfKey,
  type PlainEvent,
  PlainRecordWriter,
  readUsageEvent,
  recordKeyOf,
  type Rejection,
  unreachable,
  USAGE_EVENT_LIMITS,
} from "@tallyhouse/domain";
import type { EventInput } from "./body.ts";

export type Acceptance =
  | { readonly kind: "accepted"; readonly id: string; readonly record: LogRecord }
  /** `id` as sent, null when there is none that could be shown. */
  | { readonly kind: "rejected"; readonly id: string | null; readonly rejection: Rejection };

/** What an event's acceptance depends on beside the event. */
export interface AcceptanceContext {
  /** The credential's mode: the only one its holder can write to. */
  readonly mode: Mode;
  /** Whether the native shape is refused. */
  readonly cloudEventsOnly: boolean;
  readonly receivedAt: number;
  readonly partitionCount: number;
  readonly writer: PlainRecordWriter;
}

/** Bytes of a plain event's record beside the event: its key, and what an event leaves out and a record says. */
const RECORD_EXTRA_BYTES = 100;

/** Decides the events of one request, in their order. Pure. */
export function acceptEvents(
  events: readonly EventInput[],
  context: Omit<AcceptanceContext, "writer">,
): readonly Acceptance[] {
  let bytesExpected = 0;
  for (const event of events) {
    if (event.kind === "plain") bytesExpected += event.end - event.at + RECORD_EXTRA_BYTES;
  }
  const writer = new PlainRecordWriter({ ...context, bytesExpected });
  const withWriter = { ...context, writer };
  return events.map((event) => acceptEvent(event, withWriter));
}

/**
 * Decides one event. Pure. An event without `time` is stamped with `receivedAt` and says so, so that a resend of it, stamped
 * later, is a duplicate and no conflict; whether an event is stamped is never the sender's word.
 */
function acceptEvent(event: EventInput, context: AcceptanceContext): Acceptance {
  switch (event.kind) {
    case "plain":
      return acceptPlain(event, context);
    case "parsed":
      return acceptParsed(event.value, context);
    case "broken":
      return rejected(null, event.rejection);
    default:
      return unreachable(event);
  }
}

function acceptPlain(event: PlainEvent, context: AcceptanceContext): Acceptance {
  const { bytes, at, end } = event;
  const record = context.cloudEventsOnly && !event.isCloudEvent ? null : context.writer.write(event);
  if (record === null) return acceptParsed(parseJson(bytes.toString("utf8", at, end)), context);
  return { kind: "accepted", id: bytes.toString("latin1", event.idAt, event.idEnd), record };
}

function acceptParsed(input: unknown, context: AcceptanceContext): Acceptance {
  if (context.cloudEventsOnly && isJsonObject(input) && !Object.hasOwn(input, "specversion")) {
    return rejected(input, { code: "FIELD_MISSING", pointer: "/specversion", rule: "is required" });
  }
  const reading = readUsageEvent(input, context.mode);
  if (reading.kind === "rejected") return rejected(input, reading.rejection);
  if (reading.event.mode !== context.mode) {
    const rule = `the credential is for mode ${context.mode}; leave mode out or use the other credential`;
    return rejected(input, { code: "MODE_MISMATCH", pointer: "/mode", rule });
  }
  const isStamped = reading.event.occurredAt === null;
  const event = { ...reading.event, isStamped, occurredAt: reading.event.occurredAt ?? context.receivedAt };
  const value = encodeUsageEvent(event, reading.extensions);
  const { eventBytesMax } = USAGE_EVENT_LIMITS;
  if (value.length > eventBytesMax) {
    const rule = `an event has at most ${eventBytesMax} bytes as stored, this one ${value.length}`;
    return rejected(input, { code: "EVENT_TOO_LARGE", pointer: "", rule });
  }
  const key = recordKeyOf(event);
  return {
    kind: "accepted",
    id: event.id,
    record: { partition: partitionOfKey(key, context.partitionCount), key, value, headers: {} },
  };
}

function rejected(input: unknown, rejection: Rejection): Acceptance {
  const id = isJsonObject(input) ? input["id"] : undefined;
  const isShown = typeof id === "string" && id.length <= USAGE_EVENT_LIMITS.identityCharactersMax;
  return { kind: "rejected", id: isShown ? id : null, rejection };
}
