import type { Schema } from "./api-description.ts";
import type { ApiError } from "./answer.ts";
import { emptyGroup, type FormGroup, type FormNode } from "./form.ts";

/** Parameters after the check: numbers, booleans and arrays as the API description types them. */
export type Parameters = Readonly<Record<string, unknown>>;

export type Checked =
  | { readonly kind: "valid"; readonly parameters: Parameters }
  | { readonly kind: "invalid"; readonly error: ApiError };

/** Texts without a documented limit. @see https://github.com/stripe/openapi (maxLength of plain texts, read 2026-09) */
const TEXT_LENGTH_MAX = 5_000;

interface Check {
  readonly problems: ApiError[];
}

/**
 * Holds a request to the documented parameters: unknown, missing, type, length, enum; the first problem is answered.
 * An empty text is taken only where the description says it unsets something, and inside maps, where it unsets one key.
 */
export function checkParameters(schema: Schema, form: FormGroup): Checked {
  const check: Check = { problems: [] };
  const parameters = checkObject(check, schema, { node: form, name: "" }) as Parameters;
  const error = check.problems[0];
  return error === undefined ? { kind: "valid", parameters } : { kind: "invalid", error };
}

interface Named {
  readonly node: FormNode;
  /** In brackets, e.g. `default_aggregation[formula]`. */
  readonly name: string;
}

function problem(check: Check, name: string, rest: { message: string; code?: string }): void {
  check.problems.push({ type: "invalid_request_error", ...rest, param: name });
}

function checkNode(check: Check, schema: Schema, named: Named): unknown {
  if (schema.anyOf !== undefined) return checkAnyOf(check, schema.anyOf, named);
  if (schema.type === "object") return checkObject(check, schema, named);
  if (schema.type === "array") return checkArray(check, schema, named);
  return checkScalar(check, schema, named);
}

function checkAnyOf(check: Check, branches: readonly Schema[], named: Named): unknown {
  const fitting = branches.filter((branch) => fits(branch, named.node));
  for (const branch of fitting) {
    const attempt: Check = { problems: [] };
    const value = checkNode(attempt, branch, named);
    if (attempt.problems.length === 0) return value;
  }
  // No alternative takes it: what the last fitting one says is answered (`inf` or an integer: "Invalid integer").
  return checkNode(check, fitting.at(-1) ?? branches[0] ?? {}, named);
}

/** Which alternative a text, an empty text or a group can only mean. */
function fits(branch: Schema, node: FormNode): boolean {
  const unsets = branch.enum?.length === 1 && branch.enum[0] === "";
  if (node === "") return unsets;
  if (typeof node === "string") return !unsets && branch.type !== "object" && branch.type !== "array";
  return branch.type === "object" || branch.type === "array";
}

function checkObject(check: Check, schema: Schema, { node, name }: Named): unknown {
  if (typeof node === "string") {
    problem(check, name, { message: "Invalid object" });
    return undefined;
  }
  const extra = typeof schema.additionalProperties === "object" ? schema.additionalProperties : undefined;
  const value: Record<string, unknown> = emptyGroup();
  for (const [key, child] of Object.entries(node)) {
    const childName = name === "" ? key : `${name}[${key}]`;
    const property = Object.hasOwn(schema.properties ?? {}, key) ? schema.properties?.[key] : undefined;
    if (property !== undefined) value[key] = checkNode(check, property, { node: child, name: childName });
    else if (extra !== undefined)
      value[key] = child === "" ? "" : checkNode(check, extra, { node: child, name: childName });
    else problem(check, childName, { code: "parameter_unknown", message: `Received unknown parameter: ${childName}` });
  }
  for (const key of schema.required ?? []) {
    const childName = name === "" ? key : `${name}[${key}]`;
    if (node[key] === undefined) {
      problem(check, childName, { code: "parameter_missing", message: `Missing required param: ${childName}.` });
    }
  }
  return value;
}

function checkArray(check: Check, schema: Schema, { node, name }: Named): unknown {
  if (typeof node === "string" || Object.keys(node).some((key) => !/^\d+$/.test(key))) {
    problem(check, name, { message: "Invalid array" });
    return undefined;
  }
  const items = schema.items ?? {};
  const indices = Object.keys(node).sort((left, right) => Number(left) - Number(right));
  return indices.map((key) => checkNode(check, items, { node: node[key] ?? "", name: `${name}[${key}]` }));
}

function checkScalar(check: Check, schema: Schema, { node, name }: Named): unknown {
  if (typeof node !== "string") {
    problem(check, name, { message: `Invalid ${schema.type ?? "string"}` });
    return undefined;
  }
  if (schema.enum?.includes(node)) return node;
  if (node === "") {
    const message =
      `You passed an empty string for '${name}'. We assume empty values are an attempt to unset a parameter; ` +
      `however '${name}' cannot be unset. You should remove '${name}' from your request or supply a non-empty value.`;
    problem(check, name, { code: "parameter_invalid_empty", message });
    return undefined;
  }
  if (schema.enum !== undefined) {
    problem(check, name, { message: `Invalid ${name}: must be one of ${listed(schema.enum.map(String))}` });
    return undefined;
  }
  return checkText(check, schema, { text: node, name });
}

function checkText(check: Check, schema: Schema, { text, name }: { text: string; name: string }): unknown {
  switch (schema.type ?? "string") {
    case "integer":
      if (/^-?\d+$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text);
      problem(check, name, { code: "parameter_invalid_integer", message: `Invalid integer: ${text}` });
      return undefined;
    case "number":
      if (/^-?\d+(?:\.\d+)?$/.test(text)) return Number(text);
      problem(check, name, { message: `Invalid decimal: ${text}` });
      return undefined;
    case "boolean":
      if (text === "true" || text === "false") return text === "true";
      problem(check, name, { message: `Invalid boolean: ${text}` });
      return undefined;
    default: {
      const lengthMax = schema.maxLength ?? TEXT_LENGTH_MAX;
      if (text.length <= lengthMax) return text;
      const shown = `${text.slice(0, 4)}...${text.slice(-4)}`;
      problem(check, name, { message: `Invalid string: ${shown}; must be at most ${lengthMax} characters` });
      return undefined;
    }
  }
}

function listed(values: readonly string[]): string {
  if (values.length <= 2) return values.join(" or ");
  return `${values.slice(0, -1).join(", ")}, or ${values.at(-1)}`;
}
