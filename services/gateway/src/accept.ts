/** One usage event of a request: accepted as a record of the log, or rejected with its field and rule. */
import {
  encodeUsageEvent,
  isJsonObject,
  type LogRecord,
  type Mode,
  partitionOfKey,
  readUsageEvent,
  recordKeyOf,
  type Rejection,
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
}

/**
 * Decides one event. Pure. An event without `time` is stamped with `receivedAt` and says so, so that a resend of it, stamped
 * later, is a duplicate and no conflict; whether an event is stamped is never the sender's word.
 */
export function acceptEvent(event: EventInput, context: AcceptanceContext): Acceptance {
  if (event.kind === "broken") return rejected(null, event.rejection);
  return acceptParsed(event.value, context);
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
