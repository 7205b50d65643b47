/** Usage events as records of the log: the one place that knows how a record's bytes become an event. */
import { isJsonObject, parseJson } from "./json.ts";
import { type EventReading, readUsageEvent, USAGE_EVENT_LIMITS } from "./usage-event.ts";
import type { LogEntry } from "./event-log.ts";

/**
 * Bytes of one record's value and headers; larger ones are `invalid`. Four times what the gateway lets through: services that
 * produce directly may write their events with blanks, escapes and attributes of their own. Headers count, because the copy of
 * a misplaced record carries them: with more than the log takes in one record, no copy could ever be appended.
 */
export const RECORD_BYTES_MAX = 4 * USAGE_EVENT_LIMITS.eventBytesMax;
/** What a header counts beside its name and value: Kafka's varints take at most 10 bytes. */
const HEADER_OVERHEAD_BYTES = 10;

const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * Decodes a usage event in structured mode, or in binary mode when the record has the header `ce_specversion`. Pure: the
 * answer depends on the record alone. A CloudEvent without `mode` is `live`.
 * @see https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md (read 2026-11)
 */
export function decodeUsageRecord(entry: Pick<LogEntry, "value" | "headers">): EventReading {
  if (usageRecordBytes(entry) > RECORD_BYTES_MAX) {
    return invalid("EVENT_TOO_LARGE", `a record holds at most ${RECORD_BYTES_MAX} bytes`);
  }
  let content: unknown;
  let attributes: Record<string, string> | null;
  try {
    content = entry.value === null || entry.value.length === 0 ? undefined : parseJson(decoder.decode(entry.value));
    attributes = entry.headers["ce_specversion"] === undefined ? null : attributesOf(entry.headers);
  } catch (error) {
    // parseJson throws the first, the decoder the second; anything else is a bug and ends the process.
    if (error instanceof SyntaxError || error instanceof TypeError)
      return invalid("EVENT_NOT_AN_OBJECT", "a record is UTF-8 JSON");
    throw error;
  }
  if (attributes !== null) {
    return readUsageEvent({ ...attributes, ...(content === undefined ? {} : { data: content }) }, "live");
  }
  if (!isJsonObject(content) || !Object.hasOwn(content, "specversion"))
    return invalid("EVENT_NOT_AN_OBJECT", "a record holds one CloudEvent 1.0");
  return readUsageEvent(content, "live");
}

/** What {@link RECORD_BYTES_MAX} bounds: value and headers, before any compression. */
export function usageRecordBytes({ value, headers }: Pick<LogEntry, "value" | "headers">): number {
  let bytes = value?.length ?? 0;
  for (const name in headers) bytes += HEADER_OVERHEAD_BYTES + Buffer.byteLength(name) + (headers[name]?.length ?? 0);
  return bytes;
}

/** Without a prototype, so that a header named `ce___proto__` becomes an attribute, to be refused like any such name. */
function attributesOf(headers: LogEntry["headers"]): Record<string, string> {
  const attributes: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith("ce_")) attributes[name.slice(3)] = decoder.decode(value);
    else if (name === "content-type") attributes["datacontenttype"] = decoder.decode(value);
  }
  return attributes;
}

function invalid(code: "EVENT_TOO_LARGE" | "EVENT_NOT_AN_OBJECT", rule: string): EventReading {
  return { kind: "rejected", rejection: { code, pointer: "", rule } };
}
