/** What the description of a route is made of. */
import { z } from "zod";

export type Json = Readonly<Record<string, unknown>>;
/** Path → method in lower case → operation. */
export type Paths = Readonly<Record<string, Readonly<Record<string, Json>>>>;

const ProblemSchema = z.looseObject({
  type: z.literal("about:blank"),
  title: z.string(),
  status: z.int().min(400).max(599),
  code: z.string(),
  detail: z.string(),
  problems: z
    .array(z.looseObject({ field: z.string(), rule: z.string(), line: z.int().min(1).optional() }))
    .optional()
    .describe("every wrong field"),
});

/** What may be sent: before defaults and conversions, which is all a caller sees. */
export function schemaOf(schema: z.ZodType): Json {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return rest;
}

export const problem = (description: string): Json => ({
  description,
  content: { "application/problem+json": { schema: schemaOf(ProblemSchema) } },
});
export const answer = (type: string, description: string, schema: Json): Json => ({
  description,
  content: { [type]: { schema } },
});
export const json = (description: string): Json => answer("application/json", description, { type: "object" });

/** Query parameters, each with its example. */
export function parametersOf(schema: z.ZodObject, examples: Readonly<Record<string, string | number>>): Json[] {
  const { properties = {}, required = [] } = schemaOf(schema) as {
    properties?: Record<string, Json>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: "query",
    required: required.includes(name),
    schema: property,
    ...(name in examples ? { example: examples[name] } : {}),
  }));
}

/** A route that needs a service token. */
export const operation = (input: { id: string; summary: string; responses: Json; more?: Json }): Json => ({
  operationId: input.id,
  summary: input.summary,
  security: [{ token: [] }, { key: [] }],
  ...input.more,
  responses: {
    "401": problem("no credential, or an unknown one"),
    "429": problem("too many unknown credentials from this network, says the gateway; try again after Retry-After"),
    "500": problem("a bug of ours"),
    "503": problem("a store, or the console itself, does not answer; try again after Retry-After"),
    ...input.responses,
  },
});
