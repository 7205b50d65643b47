/** The description of the console's routes, made of the schemas that they read their questions with. The gateway adds it to its own. */
import type { z } from "zod";
import { HEALTH_PATHS } from "@tallyhouse/runtime";
import type { FastifyInstance } from "fastify";
import { AuditBodySchema } from "./audit/audit-routes.ts";
import { CorrectionsParameters, ReplaceBodySchema, VoidBodySchema } from "./corrections-routes.ts";
import { CUSTOMER_PATHS } from "./customers/customers-openapi.ts";
import { FindParameters } from "./find-routes.ts";
import { BILLING_PATHS } from "./billing-openapi.ts";
import { ApplyParameters, EndBodySchema, MetersBodySchema } from "./meters-routes.ts";
import { PLAN_PATHS } from "./plans/plans-openapi.ts";
import { answer, type Json, json, operation, parametersOf, type Paths, problem, schemaOf } from "./openapi-parts.ts";
import { CloseBodySchema } from "./stream-routes.ts";
import { CheckParameters, CustomersParameters, UsageParameters } from "./usage-request.ts";

const SPAN = { from: "2026-11-20T00:00:00Z", to: "2026-11-21T00:00:00Z" };
const METERS_BODY: Json = {
  required: true,
  content: {
    "application/json": {
      schema: schemaOf(MetersBodySchema),
      example: { meters: [{ key: "requests", eventType: "api.request", aggregation: "count", unit: "requests" }] },
    },
  },
};
const METER_REFUSALS = {
  "400": problem("the meters or the parameters are wrong; problems says where"),
  "413": problem("a body has at most 1,048,576 bytes"),
  "415": problem("send application/json"),
};

const CORRECTION = { customer: "acme", reason: "sent by a test of theirs", actor: "kim" };
const VOID: { readonly summary: string; readonly schema: z.ZodType; readonly example: Json } = {
  summary: "Takes a counted usage event back.",
  schema: VoidBodySchema.omit({ source: true, id: true }),
  example: CORRECTION,
};
const REPLACE: typeof VOID = {
  summary: "Takes a counted usage event back and counts another in its place.",
  schema: ReplaceBodySchema.omit({ source: true, id: true }),
  example: { ...CORRECTION, event: { type: "llm.request", data: { inputTokens: 370 } } },
};
/** The same for a source or id that no path can carry. */
const inBody = (verb: typeof VOID, schema: z.ZodType) => ({
  summary: `${verb.summary} Source and id are in the body.`,
  schema,
  example: { ...verb.example, source: "..", id: "evt-1" },
});
const IDENTITY_PATH: readonly Json[] = [
  { name: "source", in: "path", required: true, schema: { type: "string" }, example: "api" },
  { name: "id", in: "path", required: true, schema: { type: "string" }, example: "evt-1" },
];
/** A correction of one usage event, by the parts of its identity in path and body. */
const correction = (input: {
  id: string;
  summary: string;
  schema: z.ZodType;
  example: Json;
  isByPath: boolean;
}): Json =>
  operation({
    id: input.id,
    summary: input.summary,
    more: {
      ...(input.isByPath ? { parameters: IDENTITY_PATH } : {}),
      requestBody: {
        required: true,
        content: { "application/json": { schema: schemaOf(input.schema), example: input.example } },
      },
    },
    responses: {
      "200": json("the same was asked before: that correction, and its state"),
      "202": json("the correction, pending until the log's fold has reached it"),
      "400": problem("a field is wrong; problems names each by JSON pointer"),
      "404": problem("the log holds no such usage event, or never counted it"),
      "409": problem("it was corrected in another way"),
      "413": METER_REFUSALS["413"],
      "415": METER_REFUSALS["415"],
    },
  });

const found = (id: string, parameters: readonly Json[]): Json =>
  operation({
    id,
    summary: "Every record of one usage event: where it is, what became of it, which meters and ledger rows it is in.",
    more: { parameters },
    responses: {
      "200": json("records, corrections and ledger rows; asOf: what the log received before it is in them"),
      "400": problem("a parameter is wrong; problems names each"),
      "404": problem("no record of it; detail says up to when that is certain"),
    },
  });

const PATHS: Paths = {
  "/v1/usage": {
    get: operation({
      id: "getUsage",
      summary: "Usage of one customer by one meter.",
      more: {
        parameters: parametersOf(UsageParameters, {
          ...SPAN,
          customer: "acme",
          meter: "input_tokens",
          window: "day",
          groupBy: "model",
        }),
      },
      responses: {
        "200": {
          description: "rows, and asOf: what the log received before it is in them",
          content: { "application/json": { schema: { type: "object" } }, "text/csv": { schema: { type: "string" } } },
        },
        "400": problem("a parameter is wrong; problems names each"),
        "404": problem("no such meter in this mode"),
      },
    }),
  },
  "/v1/usage/customers": {
    get: operation({
      id: "getUsageCustomers",
      summary: "The customers with most usage by one meter.",
      more: { parameters: parametersOf(CustomersParameters, { ...SPAN, meter: "input_tokens", limit: 20 }) },
      responses: {
        "200": json("customers and their totals"),
        "400": problem("a parameter is wrong; problems names each"),
        "404": problem("no such meter in this mode"),
      },
    }),
  },
  "/v1/usage/events/{source}/{id}": {
    get: found("findEvent", [
      ...IDENTITY_PATH,
      ...parametersOf(FindParameters.pick({ customer: true }), { customer: "acme" }),
    ]),
  },
  "/v1/usage/events": {
    get: found("findEventByQuery", parametersOf(FindParameters, { customer: "acme", source: "..", id: "evt-1" })),
  },
  "/admin/v1/status": {
    get: operation({
      id: "getStatus",
      summary: "How far the pipeline has come.",
      responses: { "200": json("status") },
    }),
  },
  "/admin/v1/meters": {
    get: operation({ id: "getMeters", summary: "Every version of every meter.", responses: { "200": json("meters") } }),
  },
  "/admin/v1/meters/diff": {
    post: operation({
      id: "diffMeters",
      summary: "What an apply would change.",
      more: { requestBody: METERS_BODY },
      responses: { "200": json("changes"), ...METER_REFUSALS },
    }),
  },
  "/admin/v1/meters/apply": {
    post: operation({
      id: "applyMeters",
      summary: "Stores new versions of meters and activates them.",
      more: { parameters: parametersOf(ApplyParameters, { wait: "5s" }), requestBody: METERS_BODY },
      responses: {
        "200": json("every change is active"),
        "202": json("stored; not every change is active yet"),
        "409": problem("a change cannot be made"),
        ...METER_REFUSALS,
      },
    }),
  },
  "/admin/v1/events/{source}/{id}/void": { post: correction({ ...VOID, id: "voidEvent", isByPath: true }) },
  "/admin/v1/events/{source}/{id}/replace": { post: correction({ ...REPLACE, id: "replaceEvent", isByPath: true }) },
  "/admin/v1/events/void": {
    post: correction({ ...inBody(VOID, VoidBodySchema), id: "voidEventInBody", isByPath: false }),
  },
  "/admin/v1/events/replace": {
    post: correction({ ...inBody(REPLACE, ReplaceBodySchema), id: "replaceEventInBody", isByPath: false }),
  },
  "/admin/v1/corrections": {
    get: operation({
      id: "getCorrections",
      summary: "What was corrected, by whom and why, newest first.",
      more: { parameters: parametersOf(CorrectionsParameters, { customer: "acme", limit: 100 }) },
      responses: {
        "200": json("corrections with their state: pending, applied or refused"),
        "400": problem("a parameter is wrong; problems names each"),
      },
    }),
  },
  "/admin/v1/sweeps": {
    get: operation({
      id: "getSweeps",
      summary: "What the last sweeps for usage events that counted twice found, newest first.",
      responses: { "200": json("sweeps") },
    }),
    post: operation({
      id: "requestSweep",
      summary: "Asks for such a sweep now.",
      responses: { "202": json("the sweep, waiting") },
    }),
  },
  "/admin/v1/stream/close": {
    post: operation({
      id: "closeStream",
      summary:
        "Ends the stream of the event log: nothing behind the close counts. For a change of the partition count.",
      more: {
        requestBody: {
          required: true,
          content: { "application/json": { schema: schemaOf(CloseBodySchema), example: { stream: 1 } } },
        },
      },
      responses: {
        "200": json("closed in every partition"),
        "202": json("closing; the same question again says how far"),
        "400": problem("the body does not name this stream"),
      },
    }),
  },
  "/admin/v1/meters/check": {
    post: operation({
      id: "checkMeters",
      summary: "What meters would have counted over past usage, line by line.",
      more: { parameters: parametersOf(CheckParameters, SPAN), requestBody: METERS_BODY },
      responses: {
        "200": answer("application/x-ndjson", "figures per customer and meter; the last line is end", {
          type: "string",
        }),
        "503": problem("a store does not answer, or too many checks are running; try again after Retry-After"),
        ...METER_REFUSALS,
      },
    }),
  },
  "/admin/v1/meters/{key}/end": {
    post: operation({
      id: "endMeter",
      summary: "Ends a meter without a successor.",
      more: {
        parameters: [{ name: "key", in: "path", required: true, schema: { type: "string" }, example: "input_tokens" }],
        requestBody: {
          required: false,
          content: { "application/json": { schema: schemaOf(EndBodySchema), example: {} } },
        },
      },
      responses: {
        "200": json("the versions that end, and when"),
        "404": problem("no such meter in this mode"),
        "409": problem("usage of that instant may be counted already, or it ended before"),
        ...METER_REFUSALS,
      },
    }),
  },
  "/admin/v1/audits": {
    get: operation({
      id: "getAudits",
      summary: "The newest audits, newest first.",
      responses: { "200": json("audits") },
    }),
    post: operation({
      id: "beginAudit",
      summary: "Audits what is stored: checks A1 to A8, or some of them.",
      more: {
        requestBody: {
          content: { "application/json": { schema: schemaOf(AuditBodySchema), example: { checks: ["A1", "A4"] } } },
        },
      },
      responses: {
        "200": json("the audit is done; state says clean or differs"),
        "202": json("the audit goes on; GET shows it by its id"),
        "400": problem("an unknown check"),
        "409": problem("an audit runs already"),
        "413": problem("a body has at most 1,048,576 bytes"),
        "415": problem("send application/json"),
      },
    }),
  },
  ...CUSTOMER_PATHS,
  ...BILLING_PATHS,
  ...PLAN_PATHS,
  "/": {
    get: {
      operationId: "getPage",
      summary: "The status page, for the machine itself.",
      responses: {
        "200": answer("text/html", "the page", { type: "string" }),
        "403": problem("not from this machine"),
        "503": problem("a store does not answer"),
      },
    },
  },
};

/** The document itself, and what only probes inside the deployment ask: the gateway forwards none of it. */
const NOT_FOR_CALLERS: ReadonlySet<string> = new Set(["/openapi.json", ...HEALTH_PATHS]);

/** The router's `:name` as OpenAPI's `{name}`. */
function templateOf(url: string): string {
  return url.replace(/:(\w+)/g, "{$1}");
}

/** Adds `GET /openapi.json`. Call it before any other route: from then on a route that is not described ends the start. */
export function addOpenApi(app: FastifyInstance): void {
  app.addHook("onRoute", ({ method, url }) => {
    for (const name of [method].flat()) {
      // A GET brings its HEAD with it.
      const known = PATHS[templateOf(url)]?.[name === "HEAD" ? "get" : name.toLowerCase()];
      if (known === undefined && !NOT_FOR_CALLERS.has(url))
        throw new Error(`${name} ${url} is not described in openapi.ts`);
    }
  });
  const text = JSON.stringify({ openapi: "3.1.0", info: { title: "Tallyhouse console", version: "1" }, paths: PATHS });
  app.get("/openapi.json", async (_request, reply) => reply.type("application/json").send(text));
}
