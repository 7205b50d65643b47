/** `/v1/invoices…`: a customer's statements, explained down to the usage events, and exported. The mode comes from the token alone. */
import { Readable } from "node:stream";
import { exportStatement, readStatement, type StoredStatement } from "@tallyhouse/billing";
import {
  type AnalyticsStore,
  type Authenticator,
  type ControlStore,
  formatInstant,
  type Mode,
} from "@tallyhouse/domain";
import { hasRawEvents, readDefinitions, readWatermark } from "@tallyhouse/usage";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { z } from "zod";
import { authenticate } from "../auth.ts";
import { fieldProblemsOf, type Problem, queryInvalid, sendProblem } from "../problem.ts";
import { lineCsv, statementCsv } from "./explain-csv.ts";
import { expired, explainLine, type ExplainPorts, explainStatement, periodOf } from "./explain.ts";
import { ExplainParameters, type ExplainQuery, ExportParameters, InvoicesParameters } from "./invoice-parameters.ts";
import { listInvoices } from "./invoices-list.ts";

/** What these routes work with. */
export interface InvoicePorts extends ExplainPorts {
  readonly control: ControlStore;
  readonly authenticator: Authenticator;
  /** For exports, which take minutes where a customer has millions of usage events. */
  readonly background: AnalyticsStore;
}

/** Adds the routes. */
export function addInvoiceRoutes(app: FastifyInstance, ports: InvoicePorts): void {
  app.get("/v1/invoices", async (request, reply) => {
    const asked = await askedOf(request, ports, InvoicesParameters);
    if (asked.kind === "problem") return sendProblem(reply, asked.problem);
    const { customer, before, limit } = asked.query;
    const watermarkAt = await readWatermark(ports.analytics, ports.stream);
    const page = await listInvoices(ports.control, { mode: asked.mode, customer, beforeAt: before ?? null, limit });
    return reply.send({ customer, ...page, asOf: watermarkAt === null ? null : formatInstant(watermarkAt) });
  });
  app.get<{ Params: { id: string } }>("/v1/invoices/:id/explain", async (request, reply) => {
    const asked = await askedOf(request, ports, ExplainParameters);
    if (asked.kind === "problem") return sendProblem(reply, asked.problem);
    const stored = await findStatement(ports, { ...asked, id: request.params.id });
    if (stored === null) return sendProblem(reply, statementUnknown(request.params.id));
    return explain({ reply, ports, stored }, asked.query);
  });
  app.get<{ Params: { id: string } }>("/v1/invoices/:id/export", async (request, reply) => {
    const asked = await askedOf(request, ports, ExportParameters);
    if (asked.kind === "problem") return sendProblem(reply, asked.problem);
    const stored = await findStatement(ports, { ...asked, id: request.params.id });
    if (stored === null) return sendProblem(reply, statementUnknown(request.params.id));
    return sendExport({ reply, ports, stored });
  });
}

interface Answering {
  readonly reply: FastifyReply;
  readonly ports: InvoicePorts;
  readonly stored: StoredStatement;
}

async function explain({ reply, ports, stored }: Answering, query: ExplainQuery): Promise<FastifyReply> {
  const { line, format } = query;
  const csv = (text: string): FastifyReply => reply.type("text/csv; charset=utf-8").send(text);
  if (line === undefined) return format === "csv" ? csv(statementCsv(stored)) : reply.send(explainStatement(stored));
  const found = await explainLine(ports, stored, { ...query, line });
  if (found.kind === "problem") return sendProblem(reply, found.problem);
  const { next } = found.explanation;
  // CSV has no place for it.
  if (next !== null) void reply.header("x-next-cursor", next);
  return format === "csv" ? csv(lineCsv(found.explanation)) : reply.send(found.explanation);
}

/** Streamed: only a page of usage events is held. A failure in the middle cuts the answer off, without its end line. */
async function sendExport({ reply, ports, stored }: Answering): Promise<FastifyReply> {
  const { document } = stored;
  const watermarkAt = await readWatermark(ports.analytics, ports.stream);
  if (watermarkAt !== null && !hasRawEvents(periodOf(document).fromAt, watermarkAt))
    return sendProblem(reply, expired().problem);
  const definitions = await readDefinitions(ports.analytics, ports.stream, { mode: document.mode });
  return reply
    .type("application/x-ndjson")
    .header("content-disposition", `attachment; filename="${document.id}.jsonl"`)
    .send(Readable.from(exportStatement(ports.background, { stored, definitions }), { objectMode: false }));
}

type Asked<Query> =
  | { readonly kind: "asked"; readonly mode: Mode; readonly query: Query }
  | { readonly kind: "problem"; readonly problem: Problem };

async function askedOf<Query>(
  request: FastifyRequest,
  { authenticator }: InvoicePorts,
  schema: z.ZodType<Query>,
): Promise<Asked<Query>> {
  const auth = await authenticate(request, authenticator);
  if (auth.kind === "problem") return auth;
  const parsed = schema.safeParse(request.query);
  if (!parsed.success) return { kind: "problem", problem: queryInvalid(fieldProblemsOf(parsed.error, ".")) };
  return { kind: "asked", mode: auth.principal.mode, query: parsed.data };
}

const STATEMENT_ID = /^st_[a-z2-7]{26}$/;

/** Another mode's statement, or another customer's than the one named, is unknown: the answer is that of one that never was. */
async function findStatement(
  { control }: InvoicePorts,
  asked: { readonly mode: Mode; readonly id: string; readonly query: { readonly customer?: string | undefined } },
): Promise<StoredStatement | null> {
  // No other text is one, and the control store refuses some.
  if (!STATEMENT_ID.test(asked.id)) return null;
  const stored = await readStatement(control, asked);
  const { customer } = asked.query;
  return customer === undefined || stored?.document.customer === customer ? stored : null;
}

function statementUnknown(id: string): Problem {
  const detail = `there is no statement ${id.slice(0, 64)} of this customer in this mode; GET /v1/invoices lists them`;
  return { status: 404, code: "STATEMENT_UNKNOWN", detail };
}
