/** `Idempotency-Key`: the id of a request's only event, said in a header. */
import { isJsonObject } from "@tallyhouse/domain";
import type { BodyReading } from "./body.ts";
import type { Problem } from "./problem.ts";

/** A quoted string as the draft has it, or bare as most clients send it: visible ASCII without quotes and commas. */
const QUOTED = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"$/;
const BARE = /^[\x21\x23-\x2b\x2d-\x7e]+$/;

/**
 * Gives the only event its id. The key is the `id` and no second memory of answers: a repeat is recognised where every repeat is, by
 * identity, for as long as the dedupe horizon. Pure.
 * @see https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ (read 2026-11)
 */
export function applyIdempotencyKey(reading: BodyReading, header: string | readonly string[] | undefined): BodyReading {
  if (header === undefined || reading.kind === "problem") return reading;
  const key = typeof header === "string" ? keyOf(header.trim()) : null;
  if (key === null)
    return refused(400, "IDEMPOTENCY_KEY_INVALID", "Idempotency-Key is one quoted string, or text without blanks");
  const [input] = reading.events;
  if (reading.events.length !== 1 || input === undefined) {
    const detail = `Idempotency-Key is for one event, this request has ${reading.events.length}; give each its id`;
    return refused(422, "IDEMPOTENCY_KEY_MISMATCH", detail);
  }
  if (input.kind === "broken") return reading;
  if (input.kind === "plain")
    return input.bytes.toString("latin1", input.idAt, input.idEnd) === key ? reading : DIFFERENT;
  if (!isJsonObject(input.value)) return reading;
  if (!Object.hasOwn(input.value, "id")) {
    return { ...reading, events: [{ kind: "parsed", value: { ...input.value, id: key } }] };
  }
  return input.value["id"] === key ? reading : DIFFERENT;
}

function keyOf(header: string): string | null {
  const quoted = QUOTED.exec(header)?.[1];
  if (quoted !== undefined) return quoted.replaceAll(/\\(.)/g, "$1");
  return BARE.test(header) ? header : null;
}

const DIFFERENT = refused(
  422,
  "IDEMPOTENCY_KEY_MISMATCH",
  "Idempotency-Key and the event's id differ; send one of them",
);

function refused(status: number, code: Problem["code"], detail: string): BodyReading {
  return { kind: "problem", problem: { status, code, detail } };
}
