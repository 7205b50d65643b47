/** A plan as far as its fields can be read each on its own: what is judged beside every other mistake of a file. */
import { isJsonObject, type JsonObject } from "@tallyhouse/domain";
import type { z } from "zod";
import { DEFAULT_ALLOW } from "./plan-defaults.ts";
import { DeclaredPlanSchema, EndpointSchema, ITEM_FIELDS, LIMITS_FIELDS, TIER_END } from "./plan-schema.ts";

/** Each field: undefined is absent, null is there and wrong (its own problem is told by the schema). */
type Parts<Fields extends Readonly<Record<string, z.ZodType>>> = {
  readonly [Name in keyof Fields]: z.output<Fields[Name]> | undefined | null;
};

/** An item, field by field. */
export interface ItemParts extends Parts<typeof ITEM_FIELDS> {
  /** Of the price, whatever else of it is wrong. */
  readonly model: unknown;
  /** Where each tier ends; null: that cannot be read. */
  readonly tierEnds: readonly (string | null)[];
}
/** Limits, field by field. */
export type LimitsParts = Parts<typeof LIMITS_FIELDS>;
/** An endpoint, whole. */
export type EndpointParts = z.output<typeof EndpointSchema>;

/** A plan, field by field; of limits and items also "custom". */
export interface PlanParts {
  readonly key: string;
  readonly price: string | null | undefined;
  readonly currency: string | null | undefined;
  readonly allow: readonly string[];
  readonly deny: readonly string[];
  readonly limits: LimitsParts | "custom";
  readonly items: ReadonlyMap<string, ItemParts> | "custom";
}

/** Reads each field by its own schema. */
function partsOf<Fields extends Readonly<Record<string, z.ZodType>>>(fields: Fields, raw: JsonObject): Parts<Fields> {
  const entries = Object.entries(fields).map(([name, schema]) => {
    if (raw[name] === undefined) return [name, undefined];
    const parsed = schema.safeParse(raw[name]);
    return [name, parsed.success ? parsed.data : null];
  });
  return Object.fromEntries(entries) as Parts<Fields>;
}

const PLAN_FIELDS = DeclaredPlanSchema.shape;

/** `defaults` as the file says them, for fields that the plan leaves out. */
export function planPartsOf(key: string, raw: unknown, defaults: unknown): PlanParts {
  const declared = isJsonObject(raw) ? raw : {};
  const { price, currency, allow, deny } = PLAN_FIELDS;
  const given = { ...(isJsonObject(defaults) ? defaults : {}), ...declared };
  const parts = partsOf({ price, currency, allow, deny }, given);
  const { limits, items } = declared;
  return {
    key,
    price: parts.price,
    currency: parts.currency,
    allow: parts.allow === undefined ? DEFAULT_ALLOW : (parts.allow ?? []),
    deny: parts.deny ?? [],
    limits: limits === "custom" ? "custom" : partsOf(LIMITS_FIELDS, isJsonObject(limits) ? limits : {}),
    items: items === "custom" ? "custom" : itemPartsOf(items),
  };
}

function itemPartsOf(items: unknown): Map<string, ItemParts> {
  const entries = isJsonObject(items) ? Object.entries(items) : [];
  return new Map(
    entries.map(([key, value]) => {
      const item = isJsonObject(value) ? value : {};
      const price = isJsonObject(item["price"]) ? item["price"] : {};
      const tiers: readonly unknown[] = Array.isArray(price["tiers"]) ? price["tiers"] : [];
      return [key, { ...partsOf(ITEM_FIELDS, item), model: price["model"], tierEnds: tiers.map(tierEndOf) }];
    }),
  );
}

function tierEndOf(tier: unknown): string | null {
  const parsed = TIER_END.safeParse(isJsonObject(tier) ? tier["upTo"] : undefined);
  return parsed.success ? parsed.data : null;
}

/** Those that can be read, in their order. */
export function endpointPartsOf(endpoints: unknown): EndpointParts[] {
  if (!Array.isArray(endpoints)) return [];
  return endpoints.flatMap((endpoint: unknown) => {
    const parsed = EndpointSchema.safeParse(endpoint);
    return parsed.success ? [parsed.data] : [];
  });
}
