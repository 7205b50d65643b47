/** Meters: versioned rules that turn matching usage events into quantities, and the file that declares them. */
import { createHash } from "node:crypto";
import { z } from "zod";
import { assert } from "./assert.ts";
import { canonicalJson, compilePointer, isJsonObject, textOfJson } from "./json.ts";
import { ONE_QUANTITY, type Quantity, quantityFromScaled, quantityOfJson } from "./quantity.ts";
import { parseInstant } from "./time.ts";
import type { Mode, UsageEvent } from "./usage-event.ts";

/** Every way to turn usage events into one quantity. */
export const AGGREGATIONS = ["sum", "count", "max", "min", "latest", "unique_count"] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

const pointer = z
  .string()
  .max(512)
  .regex(/^\/([^~]|~[01])*$/, "must be a JSON pointer into data, such as /inputTokens");
const exactNumber = z.number().refine((value) => !Number.isInteger(value) || Number.isSafeInteger(value), {
  message: "an integer of 2^53 or more must be written as text",
});
const conditionText = z.union([z.string(), exactNumber, z.boolean()]).transform((value) => textOfJson(value) ?? "");

const ConditionSchema = z
  .strictObject({
    path: pointer,
    equals: conditionText.optional(),
    in: z.array(conditionText).min(1).max(100).optional(),
    exists: z.boolean().optional(),
  })
  .refine(
    (condition) => [condition.equals, condition.in, condition.exists].filter((test) => test !== undefined).length === 1,
    "needs exactly one of equals, in, exists",
  );

const fromInstant = z
  .string()
  .refine((text) => parseInstant(text) !== null, "must be an RFC 3339 instant such as 2000-01-01T00:00:00Z");
const ruleFields = {
  key: z.string().regex(/^[a-z][a-z0-9_]{0,62}$/, "must match [a-z][a-z0-9_]{0,62}"),
  eventType: z.string().min(1).max(128),
  aggregation: z.enum(AGGREGATIONS),
  value: pointer.optional(),
  where: z.array(ConditionSchema).max(16).default([]),
  dimensions: z
    .record(z.string().regex(/^[a-z][a-zA-Z0-9_]{0,62}$/, "must match [a-z][a-zA-Z0-9_]{0,62}"), pointer)
    .refine((dimensions) => Object.keys(dimensions).length <= 8, "at most 8 dimensions")
    .default({}),
  unit: z.string().min(1).max(64).default("units"),
};

const takesValue = (rule: { aggregation: Aggregation; value?: string | undefined }): boolean =>
  (rule.aggregation === "count") === (rule.value === undefined);
const VALUE_RULE = {
  path: ["value"],
  message: "is required for every aggregation but count, which takes none",
  // Also when another field is wrong: every problem at once.
  when: ({ value }: { value: unknown }) =>
    isJsonObject(value) && AGGREGATIONS.some((known) => known === value["aggregation"]),
};

/** One rule as stored in a meter version and in a `meter.activate` record: text and JSON only. */
export const MeterRuleSchema = z.strictObject({ ...ruleFields, from: fromInstant }).refine(takesValue, VALUE_RULE);
/** One rule as a meters file declares it: without `from` it counts from its activation on. */
export const DeclaredMeterSchema = z
  .strictObject({ ...ruleFields, from: fromInstant.optional() })
  .refine(takesValue, VALUE_RULE);
export type DeclaredMeter = z.infer<typeof DeclaredMeterSchema>;
export type MeterRule = z.infer<typeof MeterRuleSchema>;

/** An immutable version of a meter. */
export interface MeterVersion {
  readonly mode: Mode;
  readonly meter: string;
  readonly version: number;
  readonly rule: MeterRule;
}

/** SHA-256 (hex) of everything but the unit's text: an equal digest is the same version. */
export function meterDigest(rule: MeterRule): string {
  const { unit: _unit, ...counted } = rule;
  return (
    createHash("sha256")
      // The order of dimensions is a part of the rule: it is the order of dims.
      .update(canonicalJson({ ...counted, dimensions: Object.entries(rule.dimensions) }))
      .digest("hex")
  );
}

/** What a matching usage event contributes to a meter. */
export type Contribution =
  | { readonly kind: "none" }
  | {
      readonly kind: "quantity";
      /** 0 for `unique_count`, whose quantity is no sum of its usage events'. */
      readonly quantity: Quantity;
      readonly dims: readonly string[];
      /** The text that `unique_count` tells apart, null for every other aggregation. */
      readonly uniqueText: string | null;
    }
  /** The value is there but cannot be read: the usage event is invalid, and says which meter could not read it. */
  | { readonly kind: "invalid" };

/**
 * What `unique_count` stores of a text: the first 128 bits of its SHA-256, little-endian, as
 * `reinterpretAsUInt128(substring(SHA256(text), 1, 16))` gives in ClickHouse. Without a secret, so that streams agree; not a
 * fast hash, so that nobody can choose two texts that count as one.
 */
export function uniqueHashOf(text: string): bigint {
  const digest = createHash("sha256").update(text).digest();
  return digest.readBigUInt64LE(0) | (digest.readBigUInt64LE(8) << 64n);
}

/** A meter version ready to be applied to many usage events. `fromAt`: usage that occurred before it does not count. */
export interface CompiledMeter {
  readonly version: MeterVersion;
  readonly fromAt: number;
  /** Pure. Does not look at mode, type or time: the caller selects by those. */
  contributionOf(event: UsageEvent): Contribution;
}

const ZERO_QUANTITY = quantityFromScaled(0n);
const NONE: Contribution = { kind: "none" };
const INVALID: Contribution = { kind: "invalid" };
const NO_DIMS: readonly string[] = [];
/** Dimension text beyond this many UTF-8 bytes is cut and gets a digest, so that two long values stay two. */
export const DIMENSION_BYTES_MAX = 256;

/** Compiles a version once; the result is used for every usage event of its mode and type. */
export function compileMeter(version: MeterVersion): CompiledMeter {
  const { rule } = version;
  const fromAt = parseInstant(rule.from);
  assert(fromAt !== null, "a meter version was validated before it is compiled");
  const isUnique = rule.aggregation === "unique_count";
  const readValue = rule.value === undefined ? null : compilePointer(rule.value);
  const conditions = rule.where.map(compileCondition);
  const dimensions = Object.values(rule.dimensions).map((path) => compilePointer(path));
  return {
    version,
    fromAt,
    contributionOf(event) {
      if (!conditions.every((holds) => holds(event.data))) return NONE;
      let quantity: Quantity | null = ONE_QUANTITY;
      let uniqueText: string | null = null;
      if (readValue !== null) {
        const value = readValue(event.data);
        // Absent is "this event says nothing about this meter"; present but unreadable is a mistake of the sender.
        if (value === undefined || value === null) return NONE;
        if (isUnique) uniqueText = textOfJson(value);
        quantity = isUnique ? ZERO_QUANTITY : quantityOfJson(value);
        if (isUnique && uniqueText === null) return INVALID;
      }
      if (quantity === null) return INVALID;
      const dims = dimensions.length === 0 ? NO_DIMS : dimensions.map((read) => dimensionText(read(event.data)));
      return { kind: "quantity", quantity, dims, uniqueText };
    },
  };
}

function compileCondition(condition: MeterRule["where"][number]): (data: unknown) => boolean {
  const read = compilePointer(condition.path);
  if (condition.exists !== undefined) {
    return (data) => (read(data) !== undefined && read(data) !== null) === condition.exists;
  }
  const wanted = new Set(condition.in ?? [condition.equals]);
  return (data) => {
    const text = textOfJson(read(data));
    return text !== null && wanted.has(text);
  };
}

/** Absent, null, objects and arrays are `""`. */
function dimensionText(value: unknown): string {
  const text = textOfJson(value) ?? "";
  if (text.length * 3 <= DIMENSION_BYTES_MAX) return text.toWellFormed();
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length <= DIMENSION_BYTES_MAX) return text.toWellFormed();
  const digest = createHash("sha256").update(bytes).digest("hex").slice(0, 32);
  // 33 = "~" and the digest; a cut inside a character leaves U+FFFD, which is at most 3 bytes.
  return `${bytes.subarray(0, DIMENSION_BYTES_MAX - 36).toString("utf8")}~${digest}`;
}
