/** Control records: facts that travel in the log itself, so that replaying it gives the same result for ever. */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import type { LogEntry, LogRecord } from "./event-log.ts";
import { isJsonObject, parseJson } from "./json.ts";
import { MeterRuleSchema } from "./meter.ts";
import { decodeUsageRecord } from "./record.ts";
import { parseInstant } from "./time.ts";
import type { UsageEvent } from "./usage-event.ts";

/** Header that makes a record a control record; its value is the kind. */
export const CONTROL_HEADER = "tallyhouse-control";
/** Header `name:hex` of the HMAC-SHA256 under the named key. */
export const CONTROL_MAC_HEADER = "tallyhouse-control-mac";

const ActivateSchema = z.strictObject({
  kind: z.literal("meter.activate"),
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int().min(1).max(65_535),
  rule: MeterRuleSchema,
});
const EndSchema = z.strictObject({
  kind: z.literal("meter.end"),
  mode: z.enum(["live", "test"]),
  meter: z.string(),
  version: z.int().min(1).max(65_535),
  until: z.string().refine((text) => parseInstant(text) !== null, "must be an RFC 3339 instant"),
});
const TickSchema = z.strictObject({ kind: z.literal("tick") });
/**
 * The stream whose offsets are meant; absent: the first one, which has no predecessor. A log that is read again under a new stream
 * holds the records of the old one, and there they must have no effect.
 */
const stream = z.int().min(0).max(65_535).optional();
const CloseSchema = z.strictObject({ kind: z.literal("stream.close"), stream });
/** As text, so that no JSON reader on the way (a json column, a driver) touches its numbers. */
const eventText = z
  .string()
  .refine((text) => readCorrectedEvent(text) !== null, "must be a CloudEvent with a time, as JSON text");
/** The partition is the record's own; the offset is one below progress when the correction is made. */
const target = { stream, offset: z.int().min(0), event: eventText };
const VoidSchema = z.strictObject({ kind: z.literal("void"), ...target });
const ReplaceSchema = z.strictObject({ kind: z.literal("replace"), ...target, replacement: eventText });
const ControlSchema = z.discriminatedUnion("kind", [
  ActivateSchema,
  EndSchema,
  VoidSchema,
  ReplaceSchema,
  CloseSchema,
  TickSchema,
]);

/**
 * A fact for every task that reads the partition. `tick` moves the partition's clock and nothing else. `void` takes the counted
 * usage event at `offset` back, `replace` also counts another in its place; `event` is the one that was counted, with its
 * occurredAt as `time`, so that the fold needs no look into the store.
 */
export type ControlFact = z.infer<typeof ControlSchema>;

/** The usage event of a correction: {@link encodeUsageEvent}'s text, with a time. Null when it is none. Pure. */
export function readCorrectedEvent(text: string): (UsageEvent & { readonly occurredAt: number }) | null {
  const reading = decodeUsageRecord({ value: Buffer.from(text, "utf8"), headers: {} });
  if (reading.kind === "rejected" || reading.event.occurredAt === null) return null;
  return { ...reading.event, occurredAt: reading.event.occurredAt };
}

/** A named signing key. Verification keys are kept for ever; the first one signs. */
export interface ControlKey {
  readonly name: string;
  readonly secret: Buffer;
}

/** Named by a part of its digest, so that a record names the key that signed it without telling anything of it. */
export function controlKeyOf(secret: Buffer): ControlKey {
  return { name: createHash("sha256").update(secret).digest("hex").slice(0, 16), secret };
}

/** Key name and MAC; the whole of it, so that no second text passes for the same signature. */
const MAC_TEXT = /^(.+):([0-9a-f]{64})$/;

/** Builds the signed record for one partition. Equal input gives equal bytes. */
export function encodeControl(input: { fact: ControlFact; partition: number; key: ControlKey }): LogRecord {
  const { kind, ...body } = input.fact;
  const value = Buffer.from(JSON.stringify(body), "utf8");
  const mac = macOf({ kind, partition: input.partition, value, secret: input.key.secret });
  return {
    partition: input.partition,
    key: null,
    value,
    headers: {
      [CONTROL_HEADER]: Buffer.from(kind),
      [CONTROL_MAC_HEADER]: Buffer.from(`${input.key.name}:${mac.toString("hex")}`),
    },
  };
}

/** A verified fact, or the rule that the record broke. */
export type ControlReading =
  | { readonly kind: "control"; readonly fact: ControlFact }
  | { readonly kind: "invalid"; readonly rule: string };

/** Whether the record claims to be a control record. */
export function isControl(entry: Pick<LogEntry, "headers">): boolean {
  return entry.headers[CONTROL_HEADER] !== undefined;
}

/** Verifies and decodes. Unsigned, wrongly signed, signed for another partition or malformed: `invalid`. Pure. */
export function decodeControl(input: {
  entry: Pick<LogEntry, "headers" | "value">;
  partition: number;
  keys: readonly ControlKey[];
}): ControlReading {
  const { entry, partition, keys } = input;
  const kind = entry.headers[CONTROL_HEADER]?.toString("utf8") ?? "";
  const [, name, hex = ""] = MAC_TEXT.exec(entry.headers[CONTROL_MAC_HEADER]?.toString("utf8") ?? "") ?? [];
  const key = keys.find((candidate) => candidate.name === name);
  if (key === undefined || entry.value === null)
    return { kind: "invalid", rule: "control record without a known signature" };
  const wanted = macOf({ kind, partition, value: entry.value, secret: key.secret });
  const given = Buffer.from(hex, "hex");
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted))
    return { kind: "invalid", rule: "control record with a wrong signature" };
  const body = jsonOf(entry.value);
  const parsed = ControlSchema.safeParse(isJsonObject(body) ? { ...body, kind } : null);
  return parsed.success
    ? { kind: "control", fact: parsed.data }
    : { kind: "invalid", rule: `control record of unknown shape: ${kind}` };
}

/** Undefined when the bytes are no JSON: a signed record of another shape is `invalid`, never a crash of every reader. */
function jsonOf(bytes: Buffer): unknown {
  try {
    return parseJson(bytes.toString("utf8"));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Kind and partition are signed too: a record cannot be moved to another partition or read as another kind. */
function macOf(input: { kind: string; partition: number; value: Buffer; secret: Buffer }): Buffer {
  return createHmac("sha256", input.secret)
    .update(`${input.kind.length}:${input.kind}:${input.partition}:`)
    .update(input.value)
    .digest();
}
