import { type Answer, badRequest, unsupported } from "./answer.ts";
import type { ApiDescription, Schema } from "./api-description.ts";

/** Levels of `expand[]=a.b.c.d`. @see https://docs.stripe.com/api/expanding_objects (read 2026-07) */
const LEVELS_MAX = 4;

/**
 * Checks `expand[]` against the answer's schema; undefined when all is well.
 * Everything expandable on the objects built so far is null, so there is nothing to replace. Fields that appear only
 * when expanded (a customer's subscriptions) are refused, not guessed.
 */
export function checkExpand(api: ApiDescription, answer: Schema, paths: readonly string[]): Answer | undefined {
  for (const path of paths) {
    const problem = checkPath(api, answer, path);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function checkPath(api: ApiDescription, answer: Schema, path: string): Answer | undefined {
  const names = path.split(".");
  if (names.length > LEVELS_MAX) {
    return badRequest(`You cannot expand more than ${LEVELS_MAX} levels of a property (${path}).`, { param: "expand" });
  }
  let schema = objectSchema(api, answer);
  for (const [level, name] of names.entries()) {
    const property = schema.properties?.[name];
    if (property === undefined) return badRequest(`This property cannot be expanded (${path}).`, { param: "expand" });
    const isLast = level === names.length - 1;
    if (isLast && !(schema["x-expandableFields"] ?? []).includes(name)) {
      if (property.type === "object" && !(schema.required ?? []).includes(name)) {
        return unsupported(`expanding ${path}`);
      }
      return badRequest(`This property cannot be expanded (${path}).`, { param: "expand" });
    }
    schema = objectSchema(api, property);
  }
  return undefined;
}

/** The object behind references, alternatives and list items. */
function objectSchema(api: ApiDescription, schema: Schema): Schema {
  const target = api.resolve(schema);
  if (target.items !== undefined) return objectSchema(api, target.items);
  const alternative = target.anyOf?.find((branch) => branch.type !== "string");
  return alternative === undefined ? target : objectSchema(api, alternative);
}
