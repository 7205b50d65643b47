/** The shapes of a plans file, field by field. What fields mean to each other is judged in plan-rules.ts. */
import { DIMENSION_BYTES_MAX, textOfJson } from "@tallyhouse/domain";
import { minorDigitsOf } from "@tallyhouse/pricing";
import { z } from "zod";

/** Plans, items, bundles and meters are named alike. */
const keyText = z
  .string({ error: "must match [a-z][a-z0-9_]{0,62}" })
  .regex(/^[a-z][a-z0-9_]{0,62}$/, "must match [a-z][a-z0-9_]{0,62}");
const nameText = z.string().regex(/^[a-z][a-zA-Z0-9_]{0,62}$/, "must match [a-z][a-zA-Z0-9_]{0,62}");
/** Words for people: one line. */
const words = z
  .string()
  .min(1, "is empty")
  .max(200, "has at most 200 characters")
  .refine((text) => text.isWellFormed() && !/\p{Cc}/u.test(text), "must be one line of text");

/** 2^53: what a counter, a double of somebody else's JSON and Stripe's tier bounds hold exactly. */
const TOTAL_LIMIT = 2n ** 53n;
/** Twelve digits before the point are more money than any price has. */
const MONEY_DIGITS_MAX = 12;
/** Stripe's `unit_amount_decimal` takes twelve decimals. */
const MONEY_DECIMALS_MAX = 12;

const PLAIN_DECIMAL = /^(?:0|[1-9]\d*)(?:\.\d+)?$/;
/** One text for each number, so that equal plans have equal digests. */
const withoutEndZeros = (text: string): string =>
  text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;

/** Money in major units. */
const money = z
  .string({ error: 'must be decimal text in quotes, such as "0.002"' })
  .regex(PLAIN_DECIMAL, 'must be decimal text such as "0.002": no sign, exponent or leading zeros')
  .refine((text) => (text.split(".")[0] ?? "").length <= MONEY_DIGITS_MAX, `has over ${MONEY_DIGITS_MAX} digits`)
  .transform(withoutEndZeros)
  .refine((text) => (text.split(".")[1] ?? "").length <= MONEY_DECIMALS_MAX, `has over ${MONEY_DECIMALS_MAX} decimals`);

/** Amounts that are charged as they are cannot be finer than the currency; null: it is not. */
export function tooManyDecimals(amount: string, currencyCode: string): string | null {
  const digits = minorDigitsOf(currencyCode);
  const decimals = (amount.split(".")[1] ?? "").length;
  return digits === null || decimals <= digits ? null : `has more decimals than ${currencyCode}, which has ${digits}`;
}

/** Units of a period. Whole: counters and Stripe's tier bounds are. */
const units = z
  .string({ error: 'must be a whole number in quotes, such as "100000"' })
  .regex(/^(?:0|[1-9]\d*)$/, 'must be a whole number such as "100000": fractions need a smaller unit')
  // A long row of digits is not turned into a number first.
  .refine((text) => !/^\d+$/.test(text) || (text.length <= 16 && BigInt(text) < TOTAL_LIMIT), "must be below 2^53");
const unitsAboveZero = units.refine((text) => text !== "0", "must be at least 1");

const percent = z
  .string({ error: 'must be decimal text in quotes, such as "99.95"' })
  .regex(/^(?:100(?:\.0+)?|[1-9]?\d(?:\.\d{1,6})?)$/, 'must be a percentage such as "99.95"')
  .transform(withoutEndZeros);

const atLeastOne = z.int({ error: "must be a whole number" }).min(1, "must be at least 1");
const bucketFields = { limit: atLeastOne, burst: atLeastOne.optional() };
const dayLimit = z.strictObject({ limit: atLeastOne });

/** Fields of `limits`. */
export const LIMITS_FIELDS = {
  minute: z
    .strictObject({
      ...bucketFields,
      kind: z.enum(["bucket", "strict"], { error: "must be bucket or strict" }).optional(),
    })
    .refine(({ kind, burst }) => kind !== "strict" || burst === undefined, {
      path: ["burst"],
      message: "is not for a strict limit, which lets no burst pass",
    })
    .optional(),
  day: dayLimit.optional(),
  perKey: z.strictObject({ minute: z.strictObject(bucketFields).optional(), day: dayLimit.optional() }).optional(),
  countersDown: z.enum(["local", "deny"], { error: "must be local or deny" }).optional(),
};

/** Where a tier ends. */
export const TIER_END = z.union([z.literal("inf"), unitsAboveZero], {
  error: 'must be a whole number in quotes, such as "100000", or inf',
});

const PRICE = z.discriminatedUnion(
  "model",
  [
    z.strictObject({ model: z.literal("per_unit"), unit: money }),
    z.strictObject({
      model: z.literal("package"),
      size: unitsAboveZero,
      price: money,
      round: z.enum(["up", "down"], { error: "must be up or down" }).default("up"),
    }),
    z.strictObject({
      model: z.enum(["graduated", "volume"]),
      tiers: z
        .array(
          z.strictObject({
            upTo: TIER_END,
            unit: money.default("0"),
            flat: money.default("0"),
          }),
        )
        .min(1, "needs at least one tier, up to inf")
        .max(100, "has at most 100 tiers"),
    }),
  ],
  { error: "must be one of per_unit, package, graduated, volume" },
);

const exactNumber = z
  .number()
  .refine((value) => !Number.isInteger(value) || Number.isSafeInteger(value), "2^53 and more must be written as text");
const dimensionValue = z
  .union([z.string(), exactNumber, z.boolean()], { error: "must be text, a number or a boolean" })
  .transform((value) => textOfJson(value) ?? "")
  // Longer values are stored with a digest in their place, and would never be met.
  .refine((text) => Buffer.byteLength(text) <= DIMENSION_BYTES_MAX, `has over ${DIMENSION_BYTES_MAX} bytes`);
/** A value or a list; stored as a sorted list without repeats: what it matches is a set. */
const whereValues = z
  .union([dimensionValue.transform((value) => [value]), z.array(dimensionValue).min(1).max(100)], {
    error: "must be a value or a list of 1 to 100 values; whole numbers of 2^53 and more as text",
  })
  .transform((values) => [...new Set(values)].sort());

/** Fields of one item. */
export const ITEM_FIELDS = {
  meter: keyText,
  where: z.record(nameText, whereValues).default({}),
  included: units.optional(),
  policy: z.enum(["block", "overage", "throttle", "auto_upgrade"], {
    error: "must be one of block, overage, throttle, auto_upgrade",
  }),
  cap: units.optional(),
  price: PRICE.optional(),
  to: keyText.optional(),
  throttle: z.strictObject({ limit: atLeastOne }).optional(),
};

const PATTERN_SHAPE = /^(?:\*|[A-Z]{1,16}) (?:\/|(?:\/(?:\*|[A-Za-z0-9._~!$&'()+,;=:@{}-]+))*(?:\/\*\*)?)$/;
const pattern = z
  .string()
  .max(512)
  .refine(
    (text) => PATTERN_SHAPE.test(text) && !text.endsWith(" ") && !/\/\.{1,2}(?:\/|$)/.test(text),
    'must be METHOD and path such as "GET /v1/search", with * for one segment and ** for the rest',
  );
const patterns = z.array(pattern).max(200);

const currency = z
  .string({ error: "must be an ISO 4217 code in lower case, such as usd" })
  .refine(
    (code) => minorDigitsOf(code) !== null,
    "must be an ISO 4217 code in lower case that can be billed, such as usd",
  );
const monthOrYear = z.enum(["month", "year"], { error: "must be month or year" });
const sharedFields = {
  currency: currency.optional(),
  interval: monthOrYear.optional(),
  alerts: z
    .array(atLeastOne.max(1_000, "must be at most 1000"))
    .max(20)
    .refine((levels) => levels.every((level, i) => i === 0 || level > (levels[i - 1] ?? 0)), "must rise")
    .optional(),
  latePolicy: z
    .enum(["carry_forward", "invoice_item", "credit_note", "write_off"], {
      error: "must be one of carry_forward, invoice_item, credit_note, write_off",
    })
    .optional(),
  allow: patterns.optional(),
  deny: patterns.optional(),
};

const custom = z.literal("custom");

/** A plan as a file or a contract declares it: absent is absent, defaults come later. */
export const DeclaredPlanSchema = z.strictObject({
  ...sharedFields,
  price: z.union([custom, money], { error: 'must be decimal text in quotes, such as "49", or custom' }),
  billing: z.enum(["stripe", "none"], { error: "must be stripe or none" }).optional(),
  limits: z.union([custom, z.strictObject(LIMITS_FIELDS)], { error: "must be limits, or custom" }).optional(),
  items: z
    .union([custom, z.record(keyText, z.strictObject(ITEM_FIELDS))], { error: "must be items by key, or custom" })
    .default({}),
  features: z
    .record(
      nameText,
      z.union([z.boolean(), z.int().min(0), z.literal("unlimited")], {
        error: "must be true, false, a whole number or unlimited",
      }),
    )
    .default({}),
  support: z.strictObject({ level: words, responseHours: atLeastOne.optional() }).optional(),
  sla: z.strictObject({ uptimePercent: percent, creditPercent: percent }).optional(),
  dunning: z
    .strictObject({ suspend: z.enum(["never", "after_grace"], { error: "must be never or after_grace" }) })
    .optional(),
});
/** See {@link DeclaredPlanSchema}. */
export type DeclaredPlan = z.output<typeof DeclaredPlanSchema>;

/** Defaults of the file, for plans that do not say otherwise. */
export const DefaultsSchema = z.strictObject(sharedFields);

/** One entry of `endpoints`. */
export const EndpointSchema = z.strictObject({
  match: pattern,
  cost: z.int({ error: "must be a whole number" }).min(0, "must not be negative").max(1_000_000).default(1),
  capability: words.optional(),
  units: z.record(keyText, z.int({ error: "must be a whole number" }).min(0)).default({ api_calls: 1 }),
});

/** One entry of `bundles`. */
export const BundleSchema = z.strictObject({
  meter: keyText,
  units: unitsAboveZero,
  price: z
    .record(currency, money)
    .refine((prices) => Object.keys(prices).length > 0, "needs at least one currency")
    .superRefine((prices, context) => {
      for (const [code, price] of Object.entries(prices)) {
        const rule = tooManyDecimals(price, code);
        if (rule !== null) context.addIssue({ code: "custom", path: [code], message: rule });
      }
    }),
  months: atLeastOne.max(120, "must be at most 120"),
});

/** The whole file. */
export const PlansFileSchema = z.strictObject({
  schema: z.literal("tallyhouse.plans/1", { error: "must be tallyhouse.plans/1" }),
  defaults: DefaultsSchema.default({}),
  endpoints: z.array(EndpointSchema).max(1_000).default([]),
  bundles: z.record(keyText, BundleSchema).default({}),
  plans: z
    .record(keyText, DeclaredPlanSchema)
    .refine((plans) => Object.keys(plans).length <= 1_000, "has at most 1000 plans"),
});
