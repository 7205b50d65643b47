/** `/admin/v1/customers` and the log of changes. The mode comes from the service token alone: another mode's customer is unknown. */
import {
  type Authenticator,
  type ControlStore,
  type FieldIssue,
  type Mode,
  parseInstant,
  unreachable,
} from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { z } from "zod";
import { type AuditSubject, listAudit } from "../admin-audit.ts";
import { authenticate } from "../auth.ts";
import { fieldProblemsOf, type Problem, queryInvalid, sendProblem } from "../problem.ts";
import { assignmentView, assignPlan, type PlanOutcome } from "./assign-plan.ts";
import {
  AuditLogParameters,
  ChangeBodySchema,
  ContractBodySchema,
  CreateBodySchema,
  CustomerIdSchema,
  CustomersParameters,
  PlanBodySchema,
  UnbilledParameters,
} from "./customer-bodies.ts";
import { changeCustomer, createCustomer, listCustomers } from "./customer-store.ts";
import { contractView, customerView, readCustomerView } from "./customer-view.ts";
import { type ContractOutcome, storeContract } from "./store-contract.ts";
import { listUnbilled } from "./unbilled-list.ts";

/** What these routes work with. */
export interface CustomerPorts {
  readonly control: ControlStore;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
}

/** What an answer is made of; a route that was asked wrongly answers a problem instead. */
interface Asked<Input> {
  readonly mode: Mode;
  readonly input: Input;
  readonly nowAt: number;
  /** Of the path; empty where it names no customer. */
  readonly id: string;
}
type Answer = { readonly status: number; readonly body: object } | { readonly problem: Problem };

/** Adds the routes. */
export function addCustomerRoutes(app: FastifyInstance, ports: CustomerPorts): void {
  const { control } = ports;
  const base = "/admin/v1/customers";
  const post = withBody(ports);
  const get = withQuery(ports);
  app.post(
    base,
    post(CreateBodySchema, (asked) => create(control, asked)),
  );
  app.patch(
    `${base}/:id`,
    post(ChangeBodySchema, (asked) => change(control, asked)),
  );
  app.post(
    `${base}/:id/plan`,
    post(PlanBodySchema, (asked) => setPlan(control, asked)),
  );
  app.post(
    `${base}/:id/contract`,
    post(ContractBodySchema, (asked) => setContract(control, asked)),
  );
  app.get(
    base,
    get(CustomersParameters, (asked) => list(control, asked)),
  );
  app.get(
    `${base}/unbilled`,
    get(UnbilledParameters, (asked) => unbilled(control, asked)),
  );
  app.get(
    "/admin/v1/audit-log",
    get(AuditLogParameters, (asked) => auditLog(control, asked)),
  );
  app.get(`${base}/:id`, async (request, reply) => {
    const auth = await authenticate(request, ports.authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const key = { mode: auth.principal.mode, id: idOf(request) };
    if (!isCustomerId(key.id)) return sendProblem(reply, unknownCustomer(key));
    const view = await readCustomerView(control, { ...key, nowAt: ports.clock.now() });
    return view === null ? sendProblem(reply, unknownCustomer(key)) : reply.send(view);
  });
}

type Handler = (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply>;

function withBody(ports: CustomerPorts) {
  return <Schema extends z.ZodType>(
    schema: Schema,
    answer: (asked: Asked<z.output<Schema>>) => Promise<Answer>,
  ): Handler =>
    asking(ports, {
      answer,
      read: (request) => {
        const parsed = schema.safeParse(request.body ?? {});
        return parsed.success ? parsed : { problem: customerInvalid(fieldProblemsOf(parsed.error, "/")) };
      },
    });
}

function withQuery(ports: CustomerPorts) {
  return <Schema extends z.ZodType>(
    schema: Schema,
    answer: (asked: Asked<z.output<Schema>>) => Promise<Answer>,
  ): Handler =>
    asking(ports, {
      answer,
      read: (request) => {
        const parsed = schema.safeParse(request.query);
        return parsed.success ? parsed : { problem: queryInvalid(fieldProblemsOf(parsed.error, ".")) };
      },
    });
}

function asking<Input>(
  { authenticator, clock }: CustomerPorts,
  route: {
    readonly read: (request: FastifyRequest) => { readonly data: Input } | { readonly problem: Problem };
    readonly answer: (asked: Asked<Input>) => Promise<Answer>;
  },
): Handler {
  return async (request, reply) => {
    const auth = await authenticate(request, authenticator);
    if (auth.kind === "problem") return sendProblem(reply, auth.problem);
    const read = route.read(request);
    if ("problem" in read) return sendProblem(reply, read.problem);
    const { mode } = auth.principal;
    const id = idOf(request);
    if (id !== "" && !isCustomerId(id)) return sendProblem(reply, unknownCustomer({ mode, id }));
    const answer = await route.answer({ mode, input: read.data, nowAt: clock.now(), id });
    return "problem" in answer ? sendProblem(reply, answer.problem) : reply.code(answer.status).send(answer.body);
  };
}

/** No other text can name a customer; PostgreSQL does not even take a NUL. */
function isCustomerId(id: string): boolean {
  return CustomerIdSchema.safeParse(id).success;
}

function idOf(request: FastifyRequest): string {
  return (request.params as { readonly id?: string }).id ?? "";
}

async function create(
  control: ControlStore,
  { mode, input, nowAt }: Asked<z.output<typeof CreateBodySchema>>,
): Promise<Answer> {
  const { id, actor, reason, ...fields } = input;
  const { kind, customer } = await createCustomer(control, { mode, id, fields, actor, reason, nowAt });
  if (kind !== "exists") return { status: kind === "made" ? 201 : 200, body: customerView(customer) };
  const detail = `customer "${customer.id}" exists with other fields in mode ${mode}; PATCH changes them`;
  return { problem: { status: 409, code: "CUSTOMER_EXISTS", detail } };
}

async function change(
  control: ControlStore,
  { mode, id, input, nowAt }: Asked<z.output<typeof ChangeBodySchema>>,
): Promise<Answer> {
  const { actor, reason, ...given } = input;
  const present = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const customer = await changeCustomer(control, { mode, id, change: present, actor, reason, nowAt });
  return customer === null ? { problem: unknownCustomer({ mode, id }) } : { status: 200, body: customerView(customer) };
}

async function setPlan(
  control: ControlStore,
  { mode, id, input, nowAt }: Asked<z.output<typeof PlanBodySchema>>,
): Promise<Answer> {
  const { plan, at, from, actor, reason } = input;
  const wanted = { plan, notBeforeAt: instantOf(at), fromAt: instantOf(from) };
  const outcome = await assignPlan(control, { mode, id, wanted, actor, reason, nowAt });
  return planAnswer(outcome, { mode, id, plan: plan ?? "" });
}

interface Named {
  readonly mode: Mode;
  readonly id: string;
  readonly plan: string;
}

function planAnswer(outcome: PlanOutcome, named: Named): Answer {
  switch (outcome.kind) {
    case "decided": {
      const replaced = outcome.supersedes.map(assignmentView);
      const assignment = assignmentView(outcome.assignment);
      return { status: 200, body: { state: "decided", customer: named.id, assignment, replaced } };
    }
    case "unchanged": {
      const assignment = outcome.since === null ? null : assignmentView(outcome.since);
      return { status: 200, body: { state: "unchanged", customer: named.id, assignment, replaced: [] } };
    }
    case "refused":
      return { problem: customerInvalid([{ field: `/${outcome.field}`, rule: outcome.rule }]) };
    case "contract needed": {
      const problems = contractProblems(outcome.issues);
      const detail = `plan ${named.plan} cannot rate this customer without a contract that sets what is wrong here`;
      return { problem: { status: 409, code: "CONTRACT_NEEDED", detail, problems } };
    }
    case "customer unknown":
    case "plan unknown":
      return unknownAnswer(outcome.kind, named);
    default:
      return unreachable(outcome);
  }
}

async function setContract(
  control: ControlStore,
  { mode, id, input, nowAt }: Asked<z.output<typeof ContractBodySchema>>,
): Promise<Answer> {
  return contractAnswer(await storeContract(control, { ...input, mode, id, nowAt }), { mode, id, plan: input.plan });
}

function contractAnswer(outcome: ContractOutcome, named: Named): Answer {
  switch (outcome.kind) {
    case "stored":
    case "unchanged":
      return {
        status: outcome.kind === "stored" ? 201 : 200,
        body: { state: outcome.kind, customer: named.id, contract: contractView(outcome.contract) },
      };
    case "invalid":
      return { problem: customerInvalid(contractProblems(outcome.issues, "/overrides/")) };
    case "customer unknown":
    case "plan unknown":
      return unknownAnswer(outcome.kind, named);
    default:
      return unreachable(outcome);
  }
}

function contractProblems(issues: readonly FieldIssue[], start = ""): { field: string; rule: string }[] {
  return issues.map(({ path, rule }) => ({ field: start + path.map(String).join(start === "" ? "." : "/"), rule }));
}

function unknownAnswer(kind: "customer unknown" | "plan unknown", { mode, id, plan }: Named): Answer {
  if (kind === "customer unknown") return { problem: unknownCustomer({ mode, id }) };
  const detail = `there is no plan "${plan}" in mode ${mode}; GET /admin/v1/plans lists what exists`;
  const problems = [{ field: "/plan", rule: "must be the key of an applied plan" }];
  return { problem: { status: 404, code: "PLAN_UNKNOWN", detail, problems } };
}

async function list(
  control: ControlStore,
  { mode, input, nowAt }: Asked<z.output<typeof CustomersParameters>>,
): Promise<Answer> {
  const { search = "", after = "", limit } = input;
  const found = await listCustomers(control, { mode, search, after, limit: limit + 1, nowAt });
  const { page, next } = pageOf(found, limit, ({ id }) => id);
  return { status: 200, body: { mode, customers: page, next } };
}

async function unbilled(
  control: ControlStore,
  { mode, input }: Asked<z.output<typeof UnbilledParameters>>,
): Promise<Answer> {
  const found = await listUnbilled(control, { mode, after: input.after ?? "", limit: input.limit + 1 });
  const { page, next } = pageOf(found, input.limit, ({ customer }) => customer);
  return { status: 200, body: { mode, customers: page, next } };
}

async function auditLog(
  control: ControlStore,
  { mode, input }: Asked<z.output<typeof AuditLogParameters>>,
): Promise<Answer> {
  const { before = null, limit } = input;
  const found = await listAudit(control, { mode, subject: subjectOf(input.subject), before, limit: limit + 1 });
  const { page, next } = pageOf(found, limit, ({ id }) => id);
  return { status: 200, body: { mode, changes: page, next } };
}

/** One row more was asked for than is shown: it says whether there is a next page, and is not shown. */
function pageOf<Row, Cursor>(
  found: readonly Row[],
  limit: number,
  cursorOf: (row: Row) => Cursor,
): { readonly page: readonly Row[]; readonly next: Cursor | null } {
  const page = found.slice(0, limit);
  const last = page.at(-1);
  return { page, next: found.length > limit && last !== undefined ? cursorOf(last) : null };
}

/** The schema let only `customer/…` and `plan/…` pass. */
function subjectOf(text: string | undefined): AuditSubject | null {
  if (text === undefined) return null;
  const slash = text.indexOf("/");
  return { kind: text.startsWith("plan/") ? "plan" : "customer", id: text.slice(slash + 1) };
}

function instantOf(text: string | undefined): number | null {
  return text === undefined ? null : parseInstant(text);
}

function unknownCustomer({ mode, id }: { readonly mode: Mode; readonly id: string }): Problem {
  const detail = `there is no customer "${id}" in mode ${mode}; POST /admin/v1/customers creates one`;
  return { status: 404, code: "CUSTOMER_UNKNOWN", detail };
}

function customerInvalid(problems: readonly { readonly field: string; readonly rule: string }[]): Problem {
  const detail = problems.map(({ field, rule }) => `${field} ${rule}`).join("; ");
  return { status: 400, code: "CUSTOMER_INVALID", detail, problems };
}
