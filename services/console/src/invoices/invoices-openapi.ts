/** The description of `/v1/invoices…`. */
import { answer, type Json, json, operation, parametersOf, type Paths, problem } from "../openapi-parts.ts";
import { ExplainParameters, ExportParameters, InvoicesParameters } from "./invoice-parameters.ts";

const ID: Json = {
  name: "id",
  in: "path",
  required: true,
  schema: { type: "string" },
  example: "st_aaaaaaaaaaaaaaaaaaaaaaaaaa",
};
const REFUSALS = {
  "400": problem("a parameter is wrong; problems names each"),
  "404": problem("no such statement of this customer in this mode"),
  "410": problem("the usage events of the period are no longer kept; the statement is"),
};

/** Path → method → operation. */
export const INVOICE_PATHS: Paths = {
  "/v1/invoices": {
    get: operation({
      id: "getInvoices",
      summary: "A customer's statements, the newest period first, each with its adjustments.",
      more: { parameters: parametersOf(InvoicesParameters, { customer: "acme", limit: 25 }) },
      responses: {
        "200": json("statements; next is the before of the following page, or null"),
        "400": REFUSALS["400"],
      },
    }),
  },
  "/v1/invoices/{id}/explain": {
    get: operation({
      id: "explainInvoice",
      summary:
        "A statement's lines with their arithmetic; with line its windows; with window (a start, or all) its usage events. As known at the cut.",
      more: { parameters: [ID, ...parametersOf(ExplainParameters, { customer: "acme", limit: 1_000 })] },
      responses: { "200": json("the explanation, or CSV with format=csv; asOf is the cut"), ...REFUSALS },
    }),
  },
  "/v1/invoices/{id}/export": {
    get: operation({
      id: "exportInvoice",
      summary: "A statement with every usage event behind it, as JSON Lines for tools/verify-statement.py.",
      more: { parameters: [ID, ...parametersOf(ExportParameters, { customer: "acme" })] },
      responses: {
        "200": answer("application/x-ndjson", "the export; without its end line it was cut off", { type: "string" }),
        ...REFUSALS,
      },
    }),
  },
};
