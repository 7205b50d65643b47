import { readFileSync } from "node:fs";
import { assert } from "./assert.ts";

/** The part of an OpenAPI 3.0 schema that Stripe's description uses. */
export interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
  readonly enum?: readonly unknown[];
  readonly maxLength?: number;
  readonly format?: string;
  readonly nullable?: boolean;
  readonly $ref?: string;
  readonly "x-expandableFields"?: readonly string[];
}

/** One documented operation. */
interface Operation {
  /** Method and path template, e.g. `POST /v1/customers/{id}`. */
  readonly key: string;
  readonly version: "v1" | "v2";
  /** Query and form parameters in one object schema. */
  readonly parameters: Schema;
  /** The 200 answer. */
  readonly answer: Schema;
}

export interface Match {
  readonly operation: Operation;
  /** The value of `{id}`, decoded; empty for a path without. */
  readonly id: string;
}

/** The API as documented: routes, parameters, answer shapes. */
export interface ApiDescription {
  /** E.g. `2026-10-28.endive`. */
  readonly version: string;
  readonly operations: readonly Operation[];
  /** Undefined when no documented operation has this method and path. */
  match(method: string, path: string): Match | undefined;
  /** Follows a `$ref` into the description's components. */
  resolve(schema: Schema): Schema;
}

interface RawOperation {
  readonly parameters?: readonly { name: string; in: string; required?: boolean; schema: Schema }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> };
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, { schema: Schema }>> }>>;
}

interface RawDescription {
  readonly info: { readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, RawOperation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

/** Reads `api/openapi.trimmed.json` beside the sources. */
export function loadApiDescription(): ApiDescription {
  const file = new URL("../api/openapi.trimmed.json", import.meta.url);
  const raw = JSON.parse(readFileSync(file, "utf8")) as RawDescription;
  const fixed = new Map<string, Operation>();
  const templated: { operation: Operation; method: string; segments: string[] }[] = [];
  for (const [path, methods] of Object.entries(raw.paths)) {
    for (const [method, rawOperation] of Object.entries(methods)) {
      const operation = readOperation(`${method.toUpperCase()} ${path}`, rawOperation);
      if (path.includes("{")) templated.push({ operation, method: method.toUpperCase(), segments: path.split("/") });
      else fixed.set(operation.key, operation);
    }
  }
  return {
    version: raw.info.version,
    operations: [...fixed.values(), ...templated.map((route) => route.operation)],
    match(method, path) {
      // Fixed paths first: `/v1/customers/search` is not a customer named "search".
      const operation = fixed.get(`${method} ${path}`);
      if (operation !== undefined) return { operation, id: "" };
      const segments = path.split("/");
      for (const route of templated) {
        const id = route.method === method ? matchSegments(route.segments, segments) : undefined;
        if (id !== undefined) return { operation: route.operation, id };
      }
      return undefined;
    },
    resolve(schema) {
      if (schema.$ref === undefined) return schema;
      const name = schema.$ref.slice("#/components/schemas/".length);
      const target = raw.components.schemas[name];
      assert(target !== undefined, `the API description has no schema ${name}`);
      return target;
    },
  };
}

function readOperation(key: string, raw: RawOperation): Operation {
  const properties: Record<string, Schema> = {};
  const required: string[] = [];
  for (const parameter of raw.parameters ?? []) {
    if (parameter.in !== "query") continue;
    properties[parameter.name] = parameter.schema;
    if (parameter.required === true) required.push(parameter.name);
  }
  const body = raw.requestBody?.content["application/x-www-form-urlencoded"]?.schema;
  return {
    key,
    version: key.includes(" /v2/") ? "v2" : "v1",
    parameters: {
      type: "object",
      properties: { ...properties, ...body?.properties },
      required: [...required, ...(body?.required ?? [])],
    },
    answer: raw.responses["200"]?.content?.["application/json"]?.schema ?? {},
  };
}

/** The value of the last `{…}` when all segments fit, else undefined. */
function matchSegments(template: readonly string[], segments: readonly string[]): string | undefined {
  if (template.length !== segments.length) return undefined;
  let id = "";
  for (const [at, expected] of template.entries()) {
    const segment = segments[at] ?? "";
    if (expected.startsWith("{")) {
      if (segment === "") return undefined;
      id = segment;
    } else if (expected !== segment) {
      return undefined;
    }
  }
  try {
    return decodeURIComponent(id);
  } catch {
    return undefined; // broken percent-encoding names no object: the URL is unrecognised
  }
}
