/** One usage event: its wire shapes (CloudEvents 1.0 and the native shape), its limits, and the one reader of both. */
import { z } from "zod";
import type { RejectionCode } from "./errors.ts";
import { isJsonObject, isRawNumber, type JsonObject, pointerOf } from "./json.ts";
import { formatInstant, parseInstant } from "./time.ts";

/** A data partition: a test key never reads or writes live data. */
export type Mode = "live" | "test";

/** Named limits of one usage event (edge.md §9 row 4); each is tested, each violation names its field. */
export const USAGE_EVENT_LIMITS = {
  /** UTF-8 bytes of the event as it stands in the log ({@link encodeUsageEvent}): blanks and line breaks as sent do not count. */
  eventBytesMax: 65_536,
  /** customer, source, id: UTF-16 units. Their sum is a part of every sort key. */
  identityCharactersMax: 256,
  typeCharactersMax: 128,
  /** Properties of `data`, counted at every depth. */
  propertiesMax: 32,
  /** Objects and arrays inside each other, `data` itself being the first. */
  depthMax: 32,
  /**
   * Values of `data` at every depth, elements of lists included: two bytes each are the least they take, so more do not fit into
   * a record of 262,144 bytes. Keeps the check of a body of short lists from taking a hundred times its size.
   */
  valuesMax: 131_072,
} as const;

/** Names that would reach a prototype when copied; refused at any depth, attributes included. */
const FORBIDDEN_NAMES: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"]);
const FORBIDDEN_RULE = "this name is refused";

/** A usage event as every part of Tallyhouse sees it. */
export interface UsageEvent {
  readonly mode: Mode;
  readonly customer: string;
  readonly source: string;
  readonly id: string;
  readonly type: string;
  /** The customer's clock; null means "when the log received it". */
  readonly occurredAt: number | null;
  /** Whether the gateway set the time: such a time is no part of the payload's identity, so a retry is no conflict. */
  readonly isStamped: boolean;
  /** When a decision was taken for this usage; null when none was. */
  readonly decidedAt: number | null;
  readonly data: JsonObject;
}

/** One reason why a usage event is refused: which field, which rule. */
export interface Rejection {
  readonly code: RejectionCode;
  /** JSON pointer into the event as sent; "" is the event itself. */
  readonly pointer: string;
  /** One sentence for the sender. */
  readonly rule: string;
}

/** A valid usage event with the extension attributes it carried, or why it was refused. */
export type EventReading =
  | { readonly kind: "event"; readonly event: UsageEvent; readonly extensions: JsonObject }
  | { readonly kind: "rejected"; readonly rejection: Rejection };

const CONTROL_CHARACTER = /\p{Cc}/u;

function text(charactersMax: number): z.ZodType<string> {
  return z
    .string()
    .min(1)
    .max(charactersMax)
    .refine(
      (value) => value.isWellFormed() && !CONTROL_CHARACTER.test(value),
      "must be Unicode text without control characters",
    );
}

const identityText = text(USAGE_EVENT_LIMITS.identityCharactersMax);
const typeText = text(USAGE_EVENT_LIMITS.typeCharactersMax);
const instantText = z
  .string()
  .max(64)
  .refine((value) => parseInstant(value) !== null, {
    params: { code: "TIME_INVALID" },
    message: "must be an RFC 3339 instant such as 2026-11-20T10:00:00Z",
  })
  .meta({ format: "date-time" });
// What `meta` adds is for the JSON Schema of these: zod alone cannot see into a check of ours.
const data = z.custom<JsonObject>(isJsonObject, "must be a JSON object of properties").meta({ type: "object" });

/** The native shape of a usage event. Not everything about one: depth, names and size are {@link readUsageEvent}'s. */
export const NativeEventSchema = z.strictObject({
  id: identityText,
  customer: identityText,
  type: typeText,
  source: identityText.default("api"),
  time: instantText.optional(),
  data: data.nullish(),
});

/** CloudEvents 1.0, structured JSON. Extension attributes are lowercase letters and digits, as the specification says. */
export const CloudEventSchema = z.looseObject({
  specversion: z.literal("1.0"),
  id: identityText,
  source: identityText,
  type: typeText,
  subject: identityText,
  time: instantText.nullish(),
  datacontenttype: z
    .string()
    .regex(/^application\/(json|[a-z0-9.+-]+\+json)\s*(;.*)?$/i, "must be a JSON media type")
    .nullish(),
  dataschema: z.string().max(2_048).nullish(),
  data: data.nullish(),
  data_base64: z.undefined("binary data carries no usage; send data").optional().meta({ not: {} }),
  mode: z.enum(["live", "test"]).nullish(),
  decidedat: instantText.nullish(),
  stamped: z.union([z.boolean(), z.enum(["true", "false"])]).nullish(),
});

/** Attributes with a place of their own in {@link UsageEvent} or a fixed value; every other one, `dataschema` too, is passed on. */
const CORE_ATTRIBUTES: ReadonlySet<string> = new Set(
  Object.keys(CloudEventSchema.shape).filter((name) => name !== "dataschema"),
);
const EXTENSION_NAME = /^[a-z0-9]{1,64}$/;

/**
 * Reads a CloudEvent (it has `specversion`) or the native shape from parsed JSON. Pure. Everything but the size is checked here;
 * the caller checks that on the encoded event. What is accepted here is read back as the same event from the log.
 * @param defaultMode what a CloudEvent without `mode`, and every native event, gets
 */
export function readUsageEvent(input: unknown, defaultMode: Mode): EventReading {
  if (!isJsonObject(input)) return rejected("EVENT_NOT_AN_OBJECT", "", "a usage event is a JSON object");
  for (const name of Object.keys(input))
    if (FORBIDDEN_NAMES.has(name)) return rejected("NAME_FORBIDDEN", pointerOf([name]), FORBIDDEN_RULE);
  const reading = Object.hasOwn(input, "specversion")
    ? readCloudEvent(input, defaultMode)
    : readNativeEvent(input, defaultMode);
  if (reading.kind === "rejected") return reading;
  const fault = checkData(reading.event.data);
  return fault === null ? reading : { kind: "rejected", rejection: fault };
}

function readNativeEvent(input: JsonObject, mode: Mode): EventReading {
  const parsed = NativeEventSchema.safeParse(input);
  if (!parsed.success) return { kind: "rejected", rejection: rejectionOf(parsed.error, input) };
  const { id, customer, type, source, time, data: properties } = parsed.data;
  const occurredAt = time === undefined ? null : parseInstant(time);
  const event = {
    mode,
    customer,
    source,
    id,
    type,
    occurredAt,
    isStamped: false,
    decidedAt: null,
    data: properties ?? {},
  };
  return { kind: "event", event, extensions: {} };
}

function readCloudEvent(input: JsonObject, defaultMode: Mode): EventReading {
  const plain = readPlainCloudEvent(input, defaultMode);
  if (plain !== null) return { kind: "event", event: plain, extensions: {} };
  const parsed = CloudEventSchema.safeParse(input);
  if (!parsed.success) return { kind: "rejected", rejection: rejectionOf(parsed.error, input) };
  const attributes = parsed.data;
  const extensions: Record<string, unknown> = {};
  for (const name of Object.keys(input)) {
    if (CORE_ATTRIBUTES.has(name)) continue;
    if (!EXTENSION_NAME.test(name))
      return rejected(
        "FIELD_UNKNOWN",
        pointerOf([name]),
        "extension attributes are named in lowercase letters and digits",
      );
    if (typeof input[name] === "object" && input[name] !== null && !isRawNumber(input[name])) {
      return rejected("FIELD_INVALID", pointerOf([name]), "an extension attribute is text, a number or a boolean");
    }
    extensions[name] = input[name];
  }
  const event = {
    mode: attributes.mode ?? defaultMode,
    customer: attributes.subject,
    source: attributes.source,
    id: attributes.id,
    type: attributes.type,
    occurredAt: instantOf(attributes.time),
    isStamped: attributes.stamped === true || attributes.stamped === "true",
    decidedAt: instantOf(attributes.decidedat),
    data: attributes.data ?? {},
  };
  return { kind: "event", event, extensions };
}

/**
 * The CloudEvents of nearly every sender, read by hand: the schema costs three times as much. Null for whatever is not plainly right,
 * which is left to the schema: the two agree on everything that this one reads.
 */
function readPlainCloudEvent(input: JsonObject, defaultMode: Mode): UsageEvent | null {
  const { specversion, id, source, type, subject, time, datacontenttype, mode = defaultMode, data: properties } = input;
  if (specversion !== "1.0" || !isPlain(id) || !isPlain(source) || !isPlain(subject) || !isPlain(type)) return null;
  if (type.length > USAGE_EVENT_LIMITS.typeCharactersMax) return null;
  if (mode !== "live" && mode !== "test") return null;
  if (datacontenttype !== undefined && datacontenttype !== "application/json") return null;
  const { stamped, decidedat } = input;
  if (stamped !== undefined && stamped !== "true") return null;
  const occurredAt = typeof time === "string" ? parseInstant(time) : null;
  const decidedAt = typeof decidedat === "string" ? parseInstant(decidedat) : null;
  if ((time !== undefined && occurredAt === null) || (decidedat !== undefined && decidedAt === null)) return null;
  if (!isJsonObject(properties)) return null;
  for (const name in input) if (!PLAIN_ATTRIBUTES.has(name)) return null;
  const isStamped = stamped === "true";
  return { mode, customer: subject, source, id, type, occurredAt, isStamped, decidedAt, data: properties };
}

const PLAIN_ATTRIBUTES: ReadonlySet<string> = new Set(
  "specversion id source type subject time datacontenttype mode data stamped decidedat".split(" "),
);

/** Text within the limit of an identity's parts, without controls (Cc) and without surrogates, of which one may be alone. */
function isPlain(value: unknown): value is string {
  if (typeof value !== "string" || value === "" || value.length > USAGE_EVENT_LIMITS.identityCharactersMax)
    return false;
  for (let i = 0; i < value.length; i += 1) {
    const code = value.charCodeAt(i);
    if (code < 0x20 || (code >= 0x7f && code <= 0x9f) || (code >= 0xd800 && code <= 0xdfff)) return false;
  }
  return true;
}

function instantOf(value: string | null | undefined): number | null {
  return value === null || value === undefined ? null : parseInstant(value);
}

function rejected(code: RejectionCode, pointer: string, rule: string): EventReading {
  return { kind: "rejected", rejection: { code, pointer, rule } };
}

/** The first problem zod found, in our codes. */
function rejectionOf(error: z.ZodError, input: JsonObject): Rejection {
  const [issue] = error.issues;
  if (issue === undefined) return { code: "FIELD_INVALID", pointer: "", rule: error.message };
  const pointer = pointerOf(issue.path);
  const [field] = issue.path;
  if (issue.code === "unrecognized_keys") {
    const [name = ""] = issue.keys;
    return {
      code: "FIELD_UNKNOWN",
      pointer: pointerOf([name]),
      rule: "the native shape has id, customer, type, source, time and data",
    };
  }
  if (field !== undefined && input[String(field)] === undefined)
    return { code: "FIELD_MISSING", pointer, rule: "is required" };
  if (issue.code === "too_big")
    return { code: "FIELD_TOO_LONG", pointer, rule: `has at most ${String(issue.maximum)} characters` };
  if (issue.code === "too_small") return { code: "FIELD_INVALID", pointer, rule: "must not be empty" };
  const code = issue.code === "custom" && issue.params?.["code"] === "TIME_INVALID" ? "TIME_INVALID" : "FIELD_INVALID";
  return { code, pointer, rule: issue.message };
}

/** Depth, number and names of properties, without recursion deeper than the limit. */
function checkData(root: JsonObject): Rejection | null {
  return isFlat(root) ? null : checkNested(root);
}

/** A few scalars with harmless names, as most usage events hold. */
function isFlat(root: JsonObject): boolean {
  const names = Object.keys(root);
  if (names.length > USAGE_EVENT_LIMITS.propertiesMax) return false;
  for (const name of names) {
    const value = root[name];
    if ((typeof value === "object" && value !== null) || FORBIDDEN_NAMES.has(name)) return false;
  }
  return true;
}

function checkNested(root: JsonObject): Rejection | null {
  let properties = 0;
  let values = 0;
  const pending: { readonly value: unknown; readonly path: readonly string[] }[] = [{ value: root, path: ["data"] }];
  for (let entry = pending.pop(); entry !== undefined; entry = pending.pop()) {
    const { value, path } = entry;
    if (path.length > USAGE_EVENT_LIMITS.depthMax) {
      return {
        code: "DATA_TOO_DEEP",
        pointer: pointerOf(path),
        rule: `data nests at most ${USAGE_EVENT_LIMITS.depthMax} levels`,
      };
    }
    if (typeof value !== "object" || value === null || isRawNumber(value)) continue;
    values += Array.isArray(value) ? value.length : 0;
    if (values > USAGE_EVENT_LIMITS.valuesMax) {
      const rule = `data holds at most ${USAGE_EVENT_LIMITS.valuesMax} values`;
      return { code: "EVENT_TOO_LARGE", pointer: "/data", rule };
    }
    for (const [name, child] of Object.entries(value)) {
      if (!Array.isArray(value)) {
        properties += 1;
        if (FORBIDDEN_NAMES.has(name))
          return { code: "NAME_FORBIDDEN", pointer: pointerOf([...path, name]), rule: FORBIDDEN_RULE };
      }
      if (typeof child === "object" && child !== null) pending.push({ value: child, path: [...path, name] });
    }
    if (properties > USAGE_EVENT_LIMITS.propertiesMax) {
      return {
        code: "DATA_TOO_MANY_PROPERTIES",
        pointer: "/data",
        rule: `data has at most ${USAGE_EVENT_LIMITS.propertiesMax} properties, nested ones included`,
      };
    }
  }
  return null;
}

/** The CloudEvent that stands in the log for this usage event. Extension attributes of the sender are kept. */
export function encodeUsageEvent(event: UsageEvent, extensions: JsonObject): Buffer {
  const cloudEvent = {
    ...extensions,
    specversion: "1.0",
    id: event.id,
    source: event.source,
    type: event.type,
    subject: event.customer,
    mode: event.mode,
    ...(event.occurredAt === null ? {} : { time: formatInstant(event.occurredAt) }),
    ...(event.isStamped ? { stamped: "true" } : {}),
    ...(event.decidedAt === null ? {} : { decidedat: formatInstant(event.decidedAt) }),
    datacontenttype: "application/json",
    data: event.data,
  };
  return Buffer.from(JSON.stringify(cloudEvent), "utf8");
}
