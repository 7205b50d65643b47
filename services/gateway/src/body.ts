/** Request bodies: bytes and media type in, the events they hold out. */
import { parseJson, type PlainEvent, type Rejection, USAGE_EVENT_LIMITS } from "@tallyhouse/domain";
import { locateJsonFault } from "./json-fault.ts";
import { readPlainBody } from "./plain-body.ts";
import type { Problem } from "./problem.ts";

/** What each media type may hold. `one`: one event, not a list. `cloudEvents`: the native shape is refused. */
export const MEDIA_TYPES = {
  "application/json": { isLines: false, one: true, many: true, cloudEvents: false },
  "application/cloudevents+json": { isLines: false, one: true, many: false, cloudEvents: true },
  "application/cloudevents-batch+json": { isLines: false, one: false, many: true, cloudEvents: true },
  "application/x-ndjson": { isLines: true, one: false, many: false, cloudEvents: false },
  "application/ndjson": { isLines: true, one: false, many: false, cloudEvents: false },
  "application/jsonl": { isLines: true, one: false, many: false, cloudEvents: false },
} as const;
export type MediaType = keyof typeof MEDIA_TYPES;

/** One event of a body: plain, parsed and still to be read, or refused before it could be. */
export type EventInput =
  | PlainEvent
  | { readonly kind: "parsed"; readonly value: unknown }
  | { readonly kind: "broken"; readonly rejection: Rejection };

export type BodyReading =
  | { readonly kind: "events"; readonly events: readonly EventInput[]; readonly isCloudEventsOnly: boolean }
  | { readonly kind: "problem"; readonly problem: Problem };

/** Takes the bytes of one body as they arrive. */
export interface BodyReader {
  /** A problem ends the reading: what follows need not be received. */
  write(chunk: Buffer): Problem | null;
  end(): BodyReading;
}

export type JsonReading =
  | { readonly kind: "json"; readonly value: unknown }
  | { readonly kind: "problem"; readonly problem: Problem };

const LINE_FEED = 0x0a;
const decoder = new TextDecoder("utf-8", { fatal: true });

/** The reader that a media type asks for. */
export function createBodyReader(mediaType: MediaType, eventsMax: number): BodyReader {
  return MEDIA_TYPES[mediaType].isLines
    ? createLineReader(eventsMax)
    : createWholeReader((bytes) => readBody(bytes, mediaType, eventsMax));
}

/** Keeps everything until the end; the caller bounds it. */
export function createWholeReader(read: (bytes: Buffer) => BodyReading): BodyReader {
  const chunks: Buffer[] = [];
  return {
    write(chunk) {
      chunks.push(chunk);
      return null;
    },
    end: () => read(Buffer.concat(chunks)),
  };
}

/**
 * Reads newline-delimited JSON line by line: of the text it never holds more than one line of at most `eventBytesMax` bytes. A line
 * that is longer, no UTF-8 or no JSON is the rejection of that line alone. Blank lines are skipped; the last line needs no end.
 */
export function createLineReader(eventsMax: number): BodyReader {
  const { eventBytesMax } = USAGE_EVENT_LIMITS;
  const events: EventInput[] = [];
  // One buffer that doubles: a list of pieces would cost a hundred bytes for each byte of a sender that dribbles.
  let line = Buffer.alloc(1_024);
  let lineBytes = 0;
  let isTooLong = false;
  const keep = (piece: Buffer): void => {
    const bytes = lineBytes + piece.length;
    isTooLong ||= bytes > eventBytesMax;
    if (isTooLong) return;
    if (bytes > line.length) line = Buffer.concat([line.subarray(0, lineBytes)], Math.max(2 * line.length, bytes));
    piece.copy(line, lineBytes);
    lineBytes = bytes;
  };
  const endLine = (): Problem | null => {
    const input = isTooLong ? LINE_TOO_LONG : readLine(line.subarray(0, lineBytes));
    lineBytes = 0;
    isTooLong = false;
    if (input !== null) events.push(input);
    return events.length > eventsMax ? tooManyEvents(eventsMax) : null;
  };
  return {
    write(chunk) {
      let from = 0;
      for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, from)) {
        keep(chunk.subarray(from, end));
        const problem = endLine();
        if (problem !== null) return problem;
        from = end + 1;
      }
      keep(chunk.subarray(from));
      return null;
    },
    end() {
      const problem = endLine();
      if (problem !== null) return { kind: "problem", problem };
      if (events.length === 0) return refused("BODY_INVALID", "the body has no line with an event");
      return { kind: "events", events, isCloudEventsOnly: false };
    },
  };
}

const LINE_TOO_LONG: EventInput = {
  kind: "broken",
  rejection: {
    code: "EVENT_TOO_LARGE",
    pointer: "",
    rule: `a line has at most ${USAGE_EVENT_LIMITS.eventBytesMax} bytes`,
  },
};

/** Null for a blank line. */
function readLine(bytes: Buffer): EventInput | null {
  // A copy, because a plain event keeps a view of its bytes, and these are written over by the next line.
  const plain = readPlainBody(Buffer.from(bytes), 1);
  const [event] = plain?.events ?? [];
  if (event !== undefined && plain?.isList === false) return event;
  const text = textOf(bytes);
  if (text === null) return brokenLine("the line is not UTF-8 text");
  if (text.trim() === "") return null;
  try {
    return { kind: "parsed", value: parseJson(text) };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const fault = locateJsonFault(text);
    return brokenLine(`the line is no JSON: ${fault === null ? error.message : `column ${fault.column}`}`);
  }
}

function brokenLine(rule: string): EventInput {
  return { kind: "broken", rejection: { code: "EVENT_NOT_AN_OBJECT", pointer: "", rule } };
}

/** Decodes a body to the events it holds, each still to be read. Plain ones keep views of the bytes. Pure. */
export function readBody(bytes: Buffer, mediaType: MediaType, eventsMax: number): BodyReading {
  const { one, many, cloudEvents: isCloudEventsOnly } = MEDIA_TYPES[mediaType];
  const plain = readPlainBody(bytes, eventsMax);
  if (plain === null || !(plain.isList ? many : one)) return readWholeBody(bytes, mediaType, eventsMax);
  return { kind: "events", events: plain.events, isCloudEventsOnly };
}

/** {@link readBody} with nothing plain: of every body as a whole. Numbers keep every digit (`parseJson` of the domain). */
export function readWholeBody(bytes: Buffer, mediaType: MediaType, eventsMax: number): BodyReading {
  const reading = readJson(bytes);
  if (reading.kind === "problem") return reading;
  const content = reading.value;
  const { one, many, cloudEvents: isCloudEventsOnly } = MEDIA_TYPES[mediaType];
  if (!Array.isArray(content)) {
    return one
      ? { kind: "events", events: [{ kind: "parsed", value: content }], isCloudEventsOnly }
      : refused("BODY_INVALID", `${mediaType} is a list of events`);
  }
  if (!many)
    return refused("BODY_INVALID", `${mediaType} is one event; send a list as application/cloudevents-batch+json`);
  if (content.length === 0) return refused("BODY_INVALID", "the list of events is empty");
  if (content.length > eventsMax) return { kind: "problem", problem: tooManyEvents(eventsMax, content.length) };
  const events = content.map((value: unknown): EventInput => ({ kind: "parsed", value }));
  return { kind: "events", events, isCloudEventsOnly };
}

/** Parses a whole body as one JSON text, or says where it is none. */
export function readJson(bytes: Buffer): JsonReading {
  const text = textOf(bytes);
  if (text === null) return refused("BODY_INVALID", "the body is not UTF-8 text");
  try {
    return { kind: "json", value: parseJson(text) };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const fault = locateJsonFault(text);
    const where =
      fault === null ? error.message : `line ${fault.line}, column ${fault.column} (position ${fault.offset})`;
    return refused("BODY_INVALID", `the body is no JSON: ${where}`);
  }
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

function tooManyEvents(eventsMax: number, events?: number): Problem {
  const found = events === undefined ? "" : `, this one ${events}`;
  const detail = `one request holds at most ${eventsMax} events${found}; split it`;
  return { status: 413, code: "TOO_MANY_EVENTS", detail };
}

function refused(code: "BODY_INVALID", detail: string): { readonly kind: "problem"; readonly problem: Problem } {
  return { kind: "problem", problem: { status: 400, code, detail } };
}
