/** The description of the routes of plans. */
import type { z } from "zod";
import { type Json, json, operation, type Paths, problem, schemaOf } from "../openapi-parts.ts";
import { ApplyPlansBodySchema, PlansBodySchema } from "./plans-routes.ts";

const PLANS_FILE = `schema: tallyhouse.plans/1
plans:
  pro: {currency: usd, price: "49", items: {calls: {meter: requests, policy: overage, price: {model: per_unit, unit: "0.002"}}}}
`;
/** A body with a plans file. */
const bodyOf = (schema: z.ZodType, more: Json = {}): Json => ({
  required: true,
  content: { "application/json": { schema: schemaOf(schema), example: { file: PLANS_FILE, ...more } } },
});
const REFUSALS = {
  "400": problem("the body or the plans file is wrong; problems says where, with line and field"),
  "409": problem("never done: to change an item's meter, drop a plan in use, or break a contract"),
  "413": problem("a body has at most 1,048,576 bytes"),
  "415": problem("send application/json"),
};

/** Path → method → operation. */
export const PLAN_PATHS: Paths = {
  "/admin/v1/plans": {
    get: operation({
      id: "getPlans",
      summary: "The newest version of every plan and bundle, and of the list of endpoints.",
      responses: { "200": json("plans, endpoints, bundles") },
    }),
  },
  "/admin/v1/plans/{key}": {
    get: operation({
      id: "getPlan",
      summary: "Every version of a plan, newest first.",
      more: { parameters: [{ name: "key", in: "path", required: true, schema: { type: "string" }, example: "pro" }] },
      responses: { "200": json("versions"), "404": problem("no such plan in this mode") },
    }),
  },
  "/admin/v1/plans/diff": {
    post: operation({
      id: "diffPlans",
      summary: "What an apply would change, field by field.",
      more: { requestBody: bodyOf(PlansBodySchema) },
      responses: { "200": json("changes"), ...REFUSALS },
    }),
  },
  "/admin/v1/plans/apply": {
    post: operation({
      id: "applyPlans",
      summary: "Stores new versions of what differs.",
      more: { requestBody: bodyOf(ApplyPlansBodySchema, { reason: "prices of 2027", actor: "kim" }) },
      responses: { "200": json("changes, stored"), ...REFUSALS },
    }),
  },
};
