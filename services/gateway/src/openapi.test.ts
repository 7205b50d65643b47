import { parseConfig } from "@tallyhouse/runtime";
import { Ajv2020 } from "ajv/dist/2020.js";
import Fastify, { type LightMyRequestResponse } from "fastify";
import { expect, test } from "vitest";
import { GatewayConfigSchema } from "./config.ts";
import { addOpenApi, createOpenApi } from "./openapi.ts";
import { CLOUD, NATIVE, post, startGateway } from "./test-gateway.ts";

interface Media {
  readonly schema: object;
  readonly example?: unknown;
}
interface Answer {
  readonly content: Record<string, Media>;
  readonly headers?: object;
}
interface Operation {
  readonly operationId: string;
  readonly requestBody?: { readonly content: Record<string, Media> };
  readonly responses: Record<string, Answer>;
}

const CONFIG = parseConfig(GatewayConfigSchema, { CONSOLE_URL: "http://127.0.0.1:9" });
const DOCUMENT = createOpenApi(CONFIG);
const OPERATIONS = Object.entries(DOCUMENT.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    path,
    method,
    operation: operation as unknown as Operation,
  })),
);

// Formats are texts of ours to read; no check of the document depends on them.
const ajv = new Ajv2020({ strict: false, validateFormats: false });
ajv.addSchema(DOCUMENT, "openapi");
/** What is wrong with the value, by a schema of the document; empty when nothing is. */
function faultsOf(schema: object, value: unknown): string {
  const whole = JSON.parse(JSON.stringify(schema).replaceAll('"#/components', '"openapi#/components')) as object;
  return ajv.validate(whole, value) ? "" : ajv.errorsText();
}

test("it is served as it is made, and is version 3.1", async () => {
  const { app } = await startGateway();
  const answer = await app.inject({ url: "/openapi.json" });
  expect(answer.statusCode).toBe(200);
  expect(answer.headers["content-type"]).toMatch(/^application\/json/);
  expect(answer.json()).toEqual(JSON.parse(JSON.stringify(DOCUMENT)));
  expect(answer.json()).toMatchObject({ openapi: "3.1.0" });
});

test("the console's routes are added while it answers, and take the place of none", async () => {
  const theirs = Fastify();
  const paths = { "/v1/usage": { get: { operationId: "getUsage" } }, "/livez": { get: { operationId: "theirs" } } };
  theirs.get("/openapi.json", () => ({ openapi: "3.1.0", paths }));
  const { app } = await startGateway({ CONSOLE_URL: await theirs.listen({ host: "127.0.0.1", port: 0 }) });
  const both = await app.inject({ url: "/openapi.json" });
  expect(both.json().paths).toMatchObject({ "/v1/usage": paths["/v1/usage"], "/livez": DOCUMENT.paths["/livez"] });
  await theirs.close();
  const alone = await app.inject({ url: "/openapi.json" });
  expect(Object.keys(alone.json().paths)).toEqual(Object.keys(DOCUMENT.paths));
});

test("a route that is not described ends the start", () => {
  const app = Fastify();
  addOpenApi(app, CONFIG);
  expect(() => app.get("/livez", () => "")).not.toThrow();
  expect(() => app.get("/secret", () => "")).toThrow("GET /secret is not described");
  expect(() => app.delete("/v1/events", () => "")).toThrow("DELETE /v1/events is not described");
});

test("every described route is registered", async () => {
  const { app } = await startGateway();
  for (const { path, method } of OPERATIONS) {
    expect([path, app.hasRoute({ method: method.toUpperCase() as "GET", url: path })]).toEqual([path, true]);
  }
  expect(OPERATIONS.map(({ method, path }) => `${method} ${path}`).sort()).toEqual([
    "get /livez",
    "get /metrics",
    "get /openapi.json",
    "get /readyz",
    "post /v1/events",
  ]);
  expect(new Set(OPERATIONS.map(({ operation }) => operation.operationId)).size).toBe(OPERATIONS.length);
});

test("every example is valid by its schema, and examples of events are taken", async () => {
  const { app } = await startGateway();
  let examples = 0;
  for (const { operation } of OPERATIONS) {
    const media = [operation.requestBody?.content ?? {}, ...Object.values(operation.responses).map((r) => r.content)];
    for (const { schema, example } of media.flatMap((content) => Object.values(content))) {
      if (example === undefined) continue;
      examples += 1;
      expect(faultsOf(schema, example)).toBe("");
    }
    for (const [type, { example }] of Object.entries(operation.requestBody?.content ?? {})) {
      const answer = await post(app, example, { "content-type": type });
      expect([type, answer.statusCode, answer.json().rejected]).toEqual([type, 202, 0]);
    }
  }
  expect(examples).toBeGreaterThan(30);
});

test("answers are as described, refusals too; and what the schemas refuse is refused", async () => {
  const { app } = await startGateway();
  const { operation } = OPERATIONS.find(({ path }) => path === "/v1/events") ?? {};
  const described = (answer: LightMyRequestResponse): string => {
    const type = String(answer.headers["content-type"]).split(";", 1)[0] ?? "";
    const media = operation?.responses[answer.statusCode]?.content[type];
    return media === undefined
      ? `${answer.statusCode} ${type} is not described`
      : faultsOf(media.schema, answer.json());
  };
  const statuses = new Set<number>();
  for (const [body, headers] of [
    [[NATIVE, { id: "" }, 7], {}],
    [[NATIVE, CLOUD], {}],
    ["{", {}],
    [{ ...NATIVE, id: 5 }, {}],
    [NATIVE, { authorization: "" }],
    [NATIVE, { "idempotency-key": "x" }],
    [NATIVE, { "content-type": "text/plain" }],
    ["x".repeat(1_000_001), {}],
  ] as const) {
    const answer = await post(app, body, headers);
    statuses.add(answer.statusCode);
    expect(described(answer)).toBe("");
  }
  expect(statuses).toEqual(new Set([202, 400, 401, 413, 415, 422]));
  const events = operation?.requestBody?.content["application/json"]?.schema ?? {};
  for (const good of [NATIVE, CLOUD, [NATIVE, CLOUD]]) expect(faultsOf(events, good)).toBe("");
  for (const bad of [
    [],
    {},
    { ...NATIVE, id: "" },
    { ...NATIVE, mode: "test" },
    { ...NATIVE, data: [] },
    { ...NATIVE, id: "x".repeat(257) },
    Array.from({ length: 501 }, () => NATIVE),
    { ...CLOUD, data_base64: "e30=" },
    { ...CLOUD, subject: undefined },
  ]) {
    expect(faultsOf(events, JSON.parse(JSON.stringify(bad)))).not.toBe("");
  }
});
