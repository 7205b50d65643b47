/** CloudEvents in binary mode: attributes in `ce-…` headers, the body is the data. */
import type { EventInput } from "./body.ts";

const PREFIX = "ce-";
const QUOTED = /^"(?:[^"\\]|\\.)*"$/;
const PRINTABLE = /^[\x20-\x7e]*$/;
/** Attributes that have no header of their own: the body and its Content-Type say them. */
const NOT_BY_HEADER: ReadonlySet<string> = new Set(["data", "data_base64", "datacontenttype"]);

/** Whether the headers carry attributes of a CloudEvent. */
export function isBinaryMode(headers: Readonly<Record<string, unknown>>): boolean {
  return Object.keys(headers).some((name) => name.startsWith(PREFIX));
}

/**
 * Puts together the event of a request in binary mode. `rawHeaders` as Node gives them, name and value in turn: joined ones would
 * hide that a header came twice. `data` undefined: the body was empty. Pure.
 * @see https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md (read 2026-11)
 */
export function readBinaryEvent(input: {
  rawHeaders: readonly string[];
  contentType: string | undefined;
  data: unknown;
}): EventInput {
  // Without a prototype, so that a header `ce-__proto__` becomes an attribute, to be refused like any such name.
  const event: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (let at = 0; at + 1 < input.rawHeaders.length; at += 2) {
    const header = (input.rawHeaders[at] ?? "").toLowerCase();
    if (!header.startsWith(PREFIX)) continue;
    const name = header.slice(PREFIX.length);
    if (NOT_BY_HEADER.has(name)) return broken("FIELD_UNKNOWN", name, "is no attribute that a header may carry");
    if (Object.hasOwn(event, name)) return broken("FIELD_INVALID", name, `the header ${header} stands twice`);
    const value = attributeOf(input.rawHeaders[at + 1] ?? "");
    if (value === null) {
      const rule = `the header ${header} is not percent-encoded UTF-8; write % as %25 and what is not ASCII encoded`;
      return broken("FIELD_INVALID", name, rule);
    }
    event[name] = value;
  }
  if (input.contentType !== undefined) event["datacontenttype"] = input.contentType;
  if (input.data !== undefined) event["data"] = input.data;
  return { kind: "parsed", value: event };
}

/** First the quotes of older senders, then one round of percent-decoding (section 3.1.3.2). Null when that cannot be done. */
function attributeOf(header: string): string | null {
  const text = QUOTED.test(header) ? header.slice(1, -1).replaceAll(/\\(.)/g, "$1") : header;
  if (!PRINTABLE.test(text)) return null;
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) return null;
    throw error;
  }
}

function broken(code: "FIELD_INVALID" | "FIELD_UNKNOWN", name: string, rule: string): EventInput {
  return { kind: "broken", rejection: { code, pointer: `/${name}`, rule } };
}
