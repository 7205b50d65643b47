/** The description of the running bill's routes, and of the what-if. */
import { PeriodParameters } from "./billing-routes.ts";
import { answer, type Json, json, operation, parametersOf, type Paths, problem, schemaOf } from "./openapi-parts.ts";
import { SimulateBodySchema } from "./simulate-route.ts";

const ofPeriod = (id: string, summary: string, answered: string): Json =>
  operation({
    id,
    summary,
    more: { parameters: parametersOf(PeriodParameters, { customer: "acme", tz: "Europe/Berlin" }) },
    responses: {
      "200": json(answered),
      "400": problem("a parameter is wrong; problems names each"),
      "404": problem("no such customer in this mode"),
      "409": problem("the customer is on no plan now, or its usage cannot be read in one answer"),
    },
  });

/** Path → method → operation. */
export const BILLING_PATHS: Paths = {
  "/v1/usage/current-period": {
    get: ofPeriod(
      "getCurrentPeriod",
      "The running period of one customer: usage by item and day, cost so far.",
      "the period",
    ),
  },
  "/api/usage/current-period": {
    get: ofPeriod("getCurrentPeriodAlias", "The same as /v1/usage/current-period.", "the period"),
  },
  "/v1/usage/projection": {
    get: ofPeriod("getProjection", "What the running period will cost, estimated.", "low, likely and high, with lines"),
  },
  "/admin/v1/simulate": {
    post: operation({
      id: "simulatePlans",
      summary: "What past usage would have cost under a plans file, line by line. Nothing is stored.",
      more: {
        requestBody: {
          required: true,
          content: {
            "application/json": {
              schema: schemaOf(SimulateBodySchema),
              example: {
                file: "schema: tallyhouse.plans/1\nplans: {}\n",
                from: "2026-10-01T00:00:00Z",
                to: "2026-11-01T00:00:00Z",
              },
            },
          },
        },
      },
      responses: {
        "200": answer("application/x-ndjson", "customers, then a summary; the last line is end", { type: "string" }),
        "503": problem("a store does not answer, or another what-if is running; try again after Retry-After"),
        "400": problem("the plans file, the span or the map is wrong; problems says where"),
        "413": problem("a body has at most 1,048,576 bytes"),
        "415": problem("send application/json"),
      },
    }),
  },
};
