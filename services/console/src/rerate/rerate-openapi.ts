/** The description of rating a closed period anew. */
import { type Json, json, operation, type Paths, problem, schemaOf } from "../openapi-parts.ts";
import { RerateBodySchema } from "./rerate-bodies.ts";

const STATEMENT_ID: Json = {
  name: "id",
  in: "path",
  required: true,
  schema: { type: "string" },
  example: "st_abcdefghijklmnopqrstuvwxyz",
};
const REQUEST_ID: Json = { ...STATEMENT_ID, schema: { type: "integer", minimum: 1 }, example: 1 };
const EXAMPLE = { plan: "pro@4", meterVersions: { tokens: 2 }, actor: "kim", reason: "the price was wrong" };

/** Path → method → operation. */
export const RERATE_PATHS: Paths = {
  "/admin/v1/invoices/{id}/rerate": {
    post: operation({
      id: "rerateStatement",
      summary:
        "Has a closed period counted and rated anew; what differs becomes an adjustment. Nothing is overwritten.",
      more: {
        parameters: [STATEMENT_ID],
        requestBody: {
          required: true,
          content: { "application/json": { schema: schemaOf(RerateBodySchema), example: EXAMPLE } },
        },
      },
      responses: {
        "200": json("the same request waits already"),
        "202": json("the request; the reporter carries it out within seconds, if usage up to now is stored"),
        "400": problem("a field is wrong; problems names each by JSON pointer"),
        "404": problem("no such statement in this mode"),
        "409": problem("another request waits for this statement"),
      },
    }),
  },
  "/admin/v1/rerates/{id}": {
    get: operation({
      id: "getRerate",
      summary: "What became of a request: waiting, adjusted, unchanged or refused.",
      more: { parameters: [REQUEST_ID] },
      responses: { "200": json("the request"), "404": problem("no such request in this mode") },
    }),
  },
};
