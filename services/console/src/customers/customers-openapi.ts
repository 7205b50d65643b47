/** The description of `/admin/v1/customers` and of the log of changes. */
import type { z } from "zod";
import { type Json, json, operation, parametersOf, type Paths, problem, schemaOf } from "../openapi-parts.ts";
import {
  AuditLogParameters,
  ChangeBodySchema,
  ContractBodySchema,
  CreateBodySchema,
  CustomersParameters,
  PlanBodySchema,
  UnbilledParameters,
} from "./customer-bodies.ts";

const WHO = { actor: "kim", reason: "order 4711" };
const ID: Json = { name: "id", in: "path", required: true, schema: { type: "string" }, example: "acme" };
const BODY_REFUSALS = {
  "400": problem("a field is wrong; problems names each by JSON pointer"),
  "413": problem("a body has at most 1,048,576 bytes"),
  "415": problem("send application/json"),
};
const UNKNOWN = { "404": problem("no such customer in this mode") };
const QUERY_REFUSED = { "400": problem("a parameter is wrong; problems names each") };

const body = (schema: z.ZodType, example: Json): Json => ({
  requestBody: { required: true, content: { "application/json": { schema: schemaOf(schema), example } } },
});

/** Path → method → operation. */
export const CUSTOMER_PATHS: Paths = {
  "/admin/v1/customers": {
    get: operation({
      id: "getCustomers",
      summary: "Customers of this mode, by id.",
      more: { parameters: parametersOf(CustomersParameters, { search: "ac", limit: 100 }) },
      responses: { "200": json("customers; next is the cursor of the following page, or null"), ...QUERY_REFUSED },
    }),
    post: operation({
      id: "createCustomer",
      summary: "Creates a customer. With an id it may be repeated.",
      more: body(CreateBodySchema, { id: "acme", name: "Acme Ltd", zone: "Europe/Berlin", ...WHO }),
      responses: {
        "200": json("it exists with these very fields"),
        "201": json("the customer"),
        "409": problem("it exists with other fields"),
        ...BODY_REFUSALS,
      },
    }),
  },
  "/admin/v1/customers/unbilled": {
    get: operation({
      id: "getUnbilledCustomers",
      summary: "Customers with usage that no plan covers, or that nobody created.",
      more: { parameters: parametersOf(UnbilledParameters, { limit: 100 }) },
      responses: { "200": json("customers, why, and from when to when"), ...QUERY_REFUSED },
    }),
  },
  "/admin/v1/customers/{id}": {
    get: operation({
      id: "getCustomer",
      summary: "One customer: plan version, current and next period, contract, every decision about its plan.",
      more: { parameters: [ID] },
      responses: { "200": json("the customer"), ...UNKNOWN },
    }),
    patch: operation({
      id: "changeCustomer",
      summary: "Changes name, zone, contacts or billing; what is absent stays.",
      more: { parameters: [ID], ...body(ChangeBodySchema, { name: "Acme GmbH", ...WHO }) },
      responses: { "200": json("the customer"), ...UNKNOWN, ...BODY_REFUSALS },
    }),
  },
  "/admin/v1/customers/{id}/plan": {
    post: operation({
      id: "setPlan",
      summary: "Puts the customer on a plan, or on none, from the next period on; a first period begins when you say.",
      more: { parameters: [ID], ...body(PlanBodySchema, { plan: "pro", ...WHO }) },
      responses: {
        "200": json("when it takes effect, and which decisions of the future it replaced; or that it is so already"),
        "404": problem("no such customer or plan in this mode"),
        "409": problem("the plan leaves something to a contract that the customer does not have"),
        ...BODY_REFUSALS,
      },
    }),
  },
  "/admin/v1/customers/{id}/contract": {
    post: operation({
      id: "setContract",
      summary: "What this customer has otherwise than the plan says, from the next period on.",
      more: { parameters: [ID], ...body(ContractBodySchema, { plan: "pro", overrides: { price: "39" }, ...WHO }) },
      responses: {
        "200": json("these are the newest overrides already"),
        "201": json("the contract"),
        "404": problem("no such customer or plan in this mode"),
        ...BODY_REFUSALS,
      },
    }),
  },
  "/admin/v1/audit-log": {
    get: operation({
      id: "getAuditLog",
      summary: "Who changed what of customers and plans, when and why, newest first.",
      more: { parameters: parametersOf(AuditLogParameters, { subject: "customer/acme", limit: 100 }) },
      responses: { "200": json("changes with before and after"), ...QUERY_REFUSED },
    }),
  },
};
