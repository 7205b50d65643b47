import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { Ajv2020 } from "ajv/dist/2020.js";
import Fastify, { type FastifyInstance } from "fastify";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildConsole, ConsoleConfigSchema, type ConsolePorts } from "./app.ts";
import { addOpenApi } from "./openapi.ts";
import { CONTROL_KEY, LIVE_TOKEN, memoryLog, STREAM } from "./test-support.ts";

interface Operation {
  readonly parameters?: readonly {
    name: string;
    in: "path" | "query";
    required: boolean;
    schema: object;
    example?: string | number;
  }[];
  readonly requestBody?: { readonly content: Record<string, { schema: object; example: unknown }> };
}
interface Document {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
}

/** Where a good question about nothing is no unknown meter. */
const ANSWERS_OF_NOTHING: Record<string, readonly [number, string | undefined]> = {
  "/admin/v1/corrections": [200, undefined],
  "/admin/v1/plans/{key}": [404, "PLAN_UNKNOWN"],
  "/admin/v1/customers": [200, undefined],
  "/admin/v1/customers/unbilled": [200, undefined],
  "/admin/v1/customers/{id}": [404, "CUSTOMER_UNKNOWN"],
  "/admin/v1/audit-log": [200, undefined],
  "/v1/usage/events/{source}/{id}": [404, "EVENT_UNKNOWN"],
  "/v1/usage/current-period": [404, "CUSTOMER_UNKNOWN"],
  "/api/usage/current-period": [404, "CUSTOMER_UNKNOWN"],
  "/v1/usage/projection": [404, "CUSTOMER_UNKNOWN"],
  "/v1/usage/events": [404, "EVENT_UNKNOWN"],
};
const ajv = new Ajv2020({ strict: false, validateFormats: false });
let app: FastifyInstance;
let document: Document;
beforeAll(async () => {
  // What is read here is read before any store is asked.
  const empty = { select: async () => [], query: async () => [] };
  const stores = {
    ...empty,
    transaction: async (body: (tx: typeof empty) => Promise<unknown>) => body(empty),
  } as unknown as ConsolePorts["analytics"] & ConsolePorts["control"];
  ({ app } = await buildConsole(
    { ...ConsoleConfigSchema.parse({}), stream: STREAM, controlKey: CONTROL_KEY },
    {
      analytics: stores,
      control: stores,
      log: memoryLog(),
      authenticator: { verify: async (token) => (token === LIVE_TOKEN ? { mode: "live" } : null) },
      clock: { now: () => Date.UTC(2026, 10, 22) },
      logger: createLogger({ level: "silent", name: "test" }),
      metrics: createMetrics(),
    },
  ));
  document = (await app.inject({ url: "/openapi.json" })).json();
});
afterAll(() => app.close());

test("every described route is registered", () => {
  expect(document.openapi).toBe("3.1.0");
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const method of Object.keys(methods)) {
      expect([
        path,
        app.hasRoute({ method: method.toUpperCase() as "GET", url: path.replace(/\{(\w+)\}/g, ":$1") }),
      ]).toEqual([path, true]);
    }
  }
  expect(Object.keys(document.paths)).toHaveLength(33);
});

test("a route that is not described ends the start", () => {
  const other = Fastify();
  addOpenApi(other);
  expect(() => other.get("/v1/usage", () => "")).not.toThrow();
  expect(() => other.post("/v1/usage", () => "")).toThrow("POST /v1/usage is not described");
});

test("every example is valid by its schema, and is no wrong question", async () => {
  let examples = 0;
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, { parameters = [], requestBody }] of Object.entries(methods)) {
      for (const { schema, example } of parameters.filter((parameter) => parameter.example !== undefined)) {
        examples += 1;
        expect([path, ajv.validate(schema, example)]).toEqual([path, true]);
      }
      for (const { schema, example } of Object.values(requestBody?.content ?? {})) {
        examples += 1;
        expect([path, ajv.validate(schema, example)]).toEqual([path, true]);
      }
      if (method !== "get" || parameters.length === 0) continue;
      const query = new URLSearchParams();
      let url = path;
      for (const { name, in: place, example } of parameters) {
        if (place === "path") url = url.replace(`{${name}}`, String(example));
        else if (example !== undefined) query.set(name, String(example));
      }
      const answer = await app.inject({
        url: `${url}?${query.toString()}`,
        headers: { authorization: `Bearer ${LIVE_TOKEN}` },
      });
      // Nothing is there: that, and not the question, is what is wrong.
      const { code } = answer.json() as { code?: string };
      expect([path, answer.statusCode, code]).toEqual([path, ...(ANSWERS_OF_NOTHING[path] ?? [404, "METER_UNKNOWN"])]);
    }
  }
  expect(examples).toBeGreaterThan(10);
});

test("what the route needs is required, and nothing else", () => {
  const required = (path: string): string[] =>
    (document.paths[path]?.["get"]?.parameters ?? []).filter((p) => p.required).map(({ name }) => name);
  expect(required("/v1/usage")).toEqual(["customer", "meter"]);
  expect(required("/v1/usage/customers")).toEqual(["meter"]);
});
