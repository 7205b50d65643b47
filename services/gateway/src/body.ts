/** Request bodies: bytes and media type in, the events they hold out. */
import { parseJson } from "@tallyhouse/domain";
import { locateJsonFault } from "./json-fault.ts";
import type { Problem } from "./problem.ts";

/** What each media type may hold. `one`: one event, not a list. `cloudEvents`: the native shape is refused. */
export const MEDIA_TYPES = {
  "application/json": { one: true, many: true, cloudEvents: false },
  "application/cloudevents+json": { one: true, many: false, cloudEvents: true },
  "application/cloudevents-batch+json": { one: false, many: true, cloudEvents: true },
} as const;
export type MediaType = keyof typeof MEDIA_TYPES;

export type BodyReading =
  | { readonly kind: "events"; readonly events: readonly unknown[]; readonly mediaType: MediaType }
  | { readonly kind: "problem"; readonly problem: Problem };

const decoder = new TextDecoder("utf-8", { fatal: true });

/** Decodes a body to the events it holds, each still to be read. Numbers keep every digit (`parseJson` of the domain). Pure. */
export function readBody(bytes: Buffer, mediaType: MediaType, eventsMax: number): BodyReading {
  const text = textOf(bytes);
  if (text === null) return refused(400, "BODY_INVALID", "the body is not UTF-8 text");
  let content: unknown;
  try {
    content = parseJson(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const fault = locateJsonFault(text);
    const where =
      fault === null ? error.message : `line ${fault.line}, column ${fault.column} (position ${fault.offset})`;
    return refused(400, "BODY_INVALID", `the body is no JSON: ${where}`);
  }
  const { one, many } = MEDIA_TYPES[mediaType];
  if (!Array.isArray(content)) {
    return one
      ? { kind: "events", events: [content], mediaType }
      : refused(400, "BODY_INVALID", `${mediaType} is a list of events`);
  }
  if (!many)
    return refused(400, "BODY_INVALID", `${mediaType} is one event; send a list as application/cloudevents-batch+json`);
  if (content.length === 0) return refused(400, "BODY_INVALID", "the list of events is empty");
  if (content.length > eventsMax) {
    return refused(
      413,
      "TOO_MANY_EVENTS",
      `one request holds at most ${eventsMax} events, this one ${content.length}; split it`,
    );
  }
  return { kind: "events", events: content, mediaType };
}

function textOf(bytes: Buffer): string | null {
  try {
    return decoder.decode(bytes);
  } catch (error) {
    // What a fatal decoder throws on bytes that are no UTF-8.
    if (error instanceof TypeError) return null;
    throw error;
  }
}

function refused(status: number, code: Problem["code"], detail: string): BodyReading {
  return { kind: "problem", problem: { status, code, detail } };
}
