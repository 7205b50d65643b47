/** The description of the gateway's routes, made of the schemas that they validate with. */
import { CloudEventSchema, NativeEventSchema, PROBLEM_CODES, REJECTION_CODES } from "@tallyhouse/domain";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { GatewayConfig } from "./config.ts";

type Json = Readonly<Record<string, unknown>>;
/** Path → method in lower case → operation. */
type Paths = Readonly<Record<string, Readonly<Record<string, Json>>>>;

const ResultSchema = z.union([
  z.strictObject({ id: z.string(), status: z.literal("accepted") }),
  z.strictObject({
    id: z.string().optional().describe("as sent, when it could be shown"),
    index: z.int().min(0).describe("place of the event in the request, from 0"),
    status: z.literal("rejected"),
    code: z.enum(REJECTION_CODES),
    pointer: z.string().describe("JSON pointer into the event; empty: the event itself"),
    message: z.string(),
  }),
]);
const results = {
  results: z.array(ResultSchema).describe("one for each event, in the order of the request"),
  accepted: z.int().min(0),
  rejected: z.int().min(0),
};
const AnswerSchema = z.strictObject(results);
const ProblemSchema = z.strictObject({
  type: z.literal("about:blank"),
  title: z.string(),
  status: z.int().min(400).max(599),
  code: z.enum(PROBLEM_CODES),
  detail: z.string(),
  instance: z.string().optional().describe("the request's id; absent where a connection never became a request"),
  ...z.strictObject(results).partial().shape,
});
const ReadinessSchema = z.strictObject({
  status: z.enum(["ready", "not ready"]),
  parts: z.record(z.string(), z.string()).describe("part → ok, or what is wrong with it"),
});

const NATIVE_EXAMPLE = {
  id: "evt-1",
  customer: "acme",
  type: "llm.request",
  time: "2026-11-20T10:00:00Z",
  data: { inputTokens: 374, outputTokens: 44, model: "small" },
};
const CLOUD_EXAMPLE = {
  specversion: "1.0",
  id: "evt-1",
  source: "/api",
  type: "llm.request",
  subject: "acme",
  data: { inputTokens: 374 },
};
const ACCEPTED_EXAMPLE = { results: [{ id: "evt-1", status: "accepted" }], accepted: 1, rejected: 0 };
const PROBLEM_EXAMPLE = {
  type: "about:blank",
  title: "Bad Request",
  status: 400,
  code: "BODY_INVALID",
  detail: "the body is no JSON: line 3, column 16 (position 31)",
  instance: "/requests/f3c0ffd0-6d0c-4f4e-9d8c-0d8f3f1a2b3c",
};

const ref = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });
const content = (type: string, schema: Json, example?: unknown): Json => ({
  [type]: { schema, ...(example === undefined ? {} : { example }) },
});
const answers = (description: string, media: Json): Json => ({ description, content: media });
const problem = (description: string): Json =>
  answers(description, content("application/problem+json", ref("Problem"), PROBLEM_EXAMPLE));
const waits = (description: string): Json => ({
  ...problem(description),
  headers: { "Retry-After": { description: "seconds", schema: { type: "integer", minimum: 1 }, required: true } },
});
/** What any request may get, by how it comes or by when. */
const ANY_TIME = {
  "408": problem("headers or body came too slowly"),
  "431": problem("the headers are over 16 KiB"),
  "500": problem("a bug of ours; send usage events again with the same ids"),
  "503": waits("stopping, overloaded, or a part does not answer"),
};
const header = (name: string, description: string): Json => ({
  name,
  in: "header",
  description,
  schema: { type: "string" },
});

function ingestPath(config: GatewayConfig): Json {
  const list = (items: Json): Json => ({ type: "array", items, minItems: 1, maxItems: config.EVENTS_PER_REQUEST_MAX });
  const event = { anyOf: [ref("NativeEvent"), ref("CloudEvent")] };
  const line = `${JSON.stringify(NATIVE_EXAMPLE)}\n`;
  const lines = { type: "string", description: "one event in JSON on each line" };
  return {
    operationId: "postEvents",
    summary: "Takes usage events; 202 means that the accepted ones are durable.",
    security: [{ token: [] }, { key: [] }],
    parameters: [
      header("Idempotency-Key", "the id of the request's only event, quoted or bare, when that has none"),
      header("Content-Encoding", "gzip or deflate"),
    ],
    requestBody: {
      required: true,
      content: {
        ...content("application/json", { anyOf: [event, list(event)] }, NATIVE_EXAMPLE),
        ...content("application/cloudevents+json", ref("CloudEvent"), CLOUD_EXAMPLE),
        ...content("application/cloudevents-batch+json", list(ref("CloudEvent")), [CLOUD_EXAMPLE]),
        ...content("application/x-ndjson", lines, line),
        ...content("application/ndjson", lines, line),
        ...content("application/jsonl", lines, line),
      },
    },
    responses: {
      ...ANY_TIME,
      "202": answers("at least one was accepted", content("application/json", ref("Answer"), ACCEPTED_EXAMPLE)),
      "400": problem("no JSON or no events, or all were rejected: then results says why"),
      "401": problem("no credential, or an unknown one"),
      "413": problem("a limit of the whole request"),
      "415": problem("media type, charset or coding"),
      "422": problem("Idempotency-Key contradicts the body"),
      "429": waits("too many failed authentications from this network"),
    },
  };
}

function pathsOf(config: GatewayConfig): Paths {
  const own = (operationId: string, summary: string, responses: Json): { readonly get: Json } => ({
    get: { operationId, summary, responses: { ...ANY_TIME, ...responses } },
  });
  const json = (description: string, schema: Json, example: unknown): Json =>
    answers(description, content("application/json", schema, example));
  const ready = (status: string, parts: Json): Json => json(status, ref("Readiness"), { status, parts });
  return {
    "/v1/events": { post: ingestPath(config) },
    "/livez": own("getLife", "Whether the process answers.", {
      "200": json("it does", z.toJSONSchema(z.strictObject({ status: z.literal("ok") })), { status: "ok" }),
    }),
    "/readyz": own("getReadiness", "Whether every part works.", {
      "200": ready("ready", { eventLog: "ok", console: "ok" }),
      "503": ready("not ready", { eventLog: "does not answer", console: "ok" }),
    }),
    "/metrics": own("getMetrics", "Prometheus metrics, for the machine itself.", {
      "200": answers("metrics", content("text/plain", { type: "string" })),
      "403": problem("not from this machine"),
    }),
    "/openapi.json": own("getOpenApi", "This document.", {
      "200": answers("OpenAPI 3.1", content("application/json", { type: "object" })),
    }),
  };
}

/** Routes that only forward: what they take and answer is the console's, and is described by it. */
const FORWARDED: ReadonlySet<string> = new Set([
  "/",
  "/assets/*",
  "/v1/usage",
  "/v1/usage/*",
  "/api/usage/current-period",
  "/admin/*",
]);

/** The OpenAPI 3.1 document of the gateway's own routes. */
export function createOpenApi(config: GatewayConfig) {
  // `input`: what a sender may leave out. A check that JSON Schema cannot say is left to the answer's code and pointer.
  const schemaOf = (schema: z.ZodType): Json => {
    const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
    return rest;
  };
  return {
    openapi: "3.1.0",
    info: {
      title: "Tallyhouse gateway",
      version: "1",
      description:
        "Usage events in; reads and the admin API are forwarded to the console and described while it answers.",
    },
    paths: pathsOf(config),
    components: {
      schemas: {
        NativeEvent: schemaOf(NativeEventSchema),
        CloudEvent: schemaOf(CloudEventSchema),
        Answer: schemaOf(AnswerSchema),
        Problem: schemaOf(ProblemSchema),
        Readiness: schemaOf(ReadinessSchema),
      },
      securitySchemes: {
        token: { type: "http", scheme: "bearer" },
        key: { type: "apiKey", in: "header", name: "X-API-Key" },
      },
    },
  };
}

/** The console's routes as it describes them itself; none while it does not answer. */
async function readConsolePaths({ CONSOLE_URL, READINESS_TIMEOUT_MS }: GatewayConfig): Promise<Paths> {
  try {
    const signal = AbortSignal.timeout(READINESS_TIMEOUT_MS);
    const answer = await fetch(new URL("/openapi.json", CONSOLE_URL), { signal });
    return ConsoleDocumentSchema.parse(await answer.json()).paths;
  } catch {
    // A boundary: whatever is wrong with the console, our own routes stay described.
    return {};
  }
}
const ConsoleDocumentSchema = z.object({
  paths: z.record(z.string(), z.record(z.string(), z.record(z.string(), z.unknown()))),
});

/**
 * Adds `GET /openapi.json`. Call it before any other route: from then on a route that is neither described nor forwarded ends the start.
 */
export function addOpenApi(app: FastifyInstance, config: GatewayConfig): void {
  const document = createOpenApi(config);
  app.addHook("onRoute", ({ method, url }) => {
    if (FORWARDED.has(url)) return;
    for (const name of [method].flat()) {
      // A GET brings its HEAD with it.
      const known = document.paths[url]?.[name === "HEAD" ? "get" : name.toLowerCase()];
      if (known === undefined) throw new Error(`${name} ${url} is not described in openapi.ts`);
    }
  });
  // One question at a time, shared by all who wait for it: anyone may ask here.
  let reading: Promise<Paths> | null = null;
  app.get("/openapi.json", async (_request, reply) => {
    reading ??= readConsolePaths(config).finally(() => {
      reading = null;
    });
    const paths = { ...(await reading), ...document.paths };
    return reply.type("application/json").send(JSON.stringify({ ...document, paths }));
  });
}
