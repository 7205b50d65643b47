/** `tallyhouse customers …`: who is billed, on which plan, and whose usage no plan covers; as a client of a running Tallyhouse. */
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { parseArgs } from "node:util";
import { isJsonObject, type JsonObject, readYaml } from "@tallyhouse/domain";
import type { Environment } from "@tallyhouse/runtime";
import { callApi } from "./client.ts";
import { readText, UsageError } from "./meters-command.ts";

/** Lines of the usage text. */
export const CUSTOMERS_USAGE = `  tallyhouse customers create [ID] --name NAME [--zone ZONE] [--billing stripe|none] [--contact KIND:EMAIL]…
                                      add a customer; without an ID one is made. KIND is billing or technical
  tallyhouse customers change ID --reason R [--name …] [--zone …] [--billing stripe|none|plan] [--contact …]…
                                      contacts replace all there were
  tallyhouse customers list [--search TEXT] [--json]
                                      customers whose id or name begins so, and their plans
  tallyhouse customers show ID [--json]
                                      plan, periods, contract, every decision
  tallyhouse customers set-plan ID PLAN|none --reason R [--from T | --at T]
                                      a first period begins at --from (default: 00:00 UTC today); a change waits for the end
                                      of the period, with --at for the first one that ends at or after it
  tallyhouse customers contract ID PLAN --overrides FILE|- --reason R
                                      what this customer has otherwise than the plan: YAML or JSON, fields of a plans file
  tallyhouse customers unbilled [--json]
                                      usage that no plan covers, or of customers that nobody added
  tallyhouse customers log [ID] [--json]
                                      who changed what, when and why`;

/** Customers or changes that one command prints; more of them are for the API. */
const LIST_PAGES_MAX = 100;
const PAGE_SIZE = 500;

interface Context {
  readonly env: Environment;
  readonly write: (text: string) => void;
}
type Options = ReturnType<typeof parse>["values"];

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      name: { type: "string" },
      zone: { type: "string" },
      billing: { type: "string" },
      contact: { type: "string", multiple: true },
      search: { type: "string" },
      from: { type: "string" },
      at: { type: "string" },
      overrides: { type: "string" },
      reason: { type: "string" },
      actor: { type: "string" },
      json: { type: "boolean" },
    },
  });
}

interface Verb {
  readonly words: readonly [least: number, most: number];
  readonly options: readonly (keyof Options)[];
  readonly run: (words: readonly string[], options: Options, context: Context) => Promise<number>;
}

const WHO = ["reason", "actor"] as const;
const FIELDS = ["name", "zone", "billing", "contact"] as const;
const VERBS: Readonly<Record<string, Verb>> = {
  create: { words: [0, 1], options: [...FIELDS, ...WHO], run: create },
  change: { words: [1, 1], options: [...FIELDS, ...WHO], run: change },
  list: { words: [0, 0], options: ["search", "json"], run: list },
  show: { words: [1, 1], options: ["json"], run: show },
  "set-plan": { words: [2, 2], options: ["from", "at", ...WHO], run: setPlan },
  contract: { words: [2, 2], options: ["overrides", ...WHO], run: setContract },
  unbilled: { words: [0, 0], options: ["json"], run: unbilled },
  log: { words: [0, 1], options: ["json"], run: changes },
};

/** Runs `customers …`. The exit code: 0 done. @throws {ApiError} what Tallyhouse refuses; {UsageError} wrong use. */
export async function runCustomers(args: readonly string[], context: Context): Promise<number> {
  const [name = "", ...rest] = args;
  if (name === "help" || name === "--help") {
    context.write(`${CUSTOMERS_USAGE}\n`);
    return 0;
  }
  const verb = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
  if (verb === undefined) throw new UsageError(`customers needs ${Object.keys(VERBS).join(", ")}`);
  const { values, positionals } = parse(rest);
  const [least, most] = verb.words;
  if (positionals.length < least || positionals.length > most)
    throw new UsageError(`customers ${name} takes ${least === most ? least : `${least} or ${most}`} words`);
  const stray = Object.keys(values).find((option) => !verb.options.some((known) => known === option));
  if (stray !== undefined) throw new UsageError(`--${stray} does not belong to customers ${name}`);
  return verb.run(positionals, values, context);
}

function required(option: string, value: string | undefined): string {
  if (value === undefined || value === "") throw new UsageError(`${option} is required`);
  return value;
}

/** Who asks; the reason only where one was given. */
function authorOf({ actor, reason }: Options): object {
  return { actor: actor ?? userInfo().username, ...(reason === undefined ? {} : { reason }) };
}

function fieldsOf({ name, zone, billing, contact }: Options): JsonObject {
  return {
    ...(name === undefined ? {} : { name }),
    ...(zone === undefined ? {} : { zone }),
    ...(billing === undefined ? {} : { billing: billing === "plan" ? null : billing }),
    ...(contact === undefined ? {} : { contacts: contact.map(contactOf) }),
  };
}

function contactOf(text: string): object {
  const [kind, email, ...more] = text.split(":");
  if (kind === undefined || email === undefined || more.length > 0)
    throw new UsageError("--contact takes KIND:EMAIL, such as billing:ar@acme.example");
  return { kind, email };
}

const pathOf = (id: string): string => `/admin/v1/customers/${encodeURIComponent(id)}`;

interface ShownCustomer {
  readonly id: string;
  readonly name: string;
  readonly zone: string;
  readonly billing: string | null;
  readonly plan: string | null;
}

async function create([id]: readonly string[], options: Options, { env, write }: Context): Promise<number> {
  required("--name", options.name);
  const body = { ...(id === undefined ? {} : { id }), ...fieldsOf(options), ...authorOf(options) };
  const made = await callApi<ShownCustomer>(env, { method: "POST", path: "/admin/v1/customers", body });
  write(`customer ${made.id}: ${made.name}\n`);
  return 0;
}

async function change([id = ""]: readonly string[], options: Options, { env, write }: Context): Promise<number> {
  required("--reason", options.reason);
  const body = { ...fieldsOf(options), ...authorOf(options) };
  const changed = await callApi<ShownCustomer>(env, { method: "PATCH", path: pathOf(id), body });
  write(`customer ${changed.id}: ${changed.name}\n`);
  return 0;
}

/** Every page up to the limit; `cursor` names the parameter that takes `next`. */
async function allPages<Row>(
  env: Environment,
  question: {
    readonly path: string;
    readonly query: Readonly<Record<string, string>>;
    readonly cursor: "after" | "before";
  },
  rowsOf: (answer: Readonly<Record<string, unknown>>) => readonly Row[],
): Promise<Row[]> {
  const rows: Row[] = [];
  let next: string | number | null = null;
  for (let page = 0; page < LIST_PAGES_MAX; page += 1) {
    const query = new URLSearchParams({ ...question.query, limit: String(PAGE_SIZE) });
    if (next !== null) query.set(question.cursor, String(next));
    const path = `${question.path}?${query.toString()}`;
    const answer: Readonly<Record<string, unknown>> = await callApi(env, { method: "GET", path });
    rows.push(...rowsOf(answer));
    next = answer["next"] as string | number | null;
    if (next === null) break;
  }
  return rows;
}

function print<Row>(
  rows: readonly Row[],
  as: { readonly json: boolean | undefined; readonly line: (row: Row) => string; readonly none: string },
): string {
  if (as.json === true) return `${JSON.stringify(rows, null, 2)}\n`;
  return rows.length === 0 ? `${as.none}\n` : rows.map((row) => `${as.line(row)}\n`).join("");
}

async function list(_: readonly string[], { search = "", json }: Options, { env, write }: Context): Promise<number> {
  const rows = await allPages(
    env,
    { path: "/admin/v1/customers", query: { search }, cursor: "after" },
    (answer) => answer["customers"] as ShownCustomer[],
  );
  const line = ({ id, name, plan, billing }: ShownCustomer): string =>
    [id, name, plan ?? "(no plan)", ...(billing === null ? [] : [`billing ${billing}`])].join("\t");
  write(print(rows, { json, line, none: "no customer" }));
  return 0;
}

interface ShownPeriod {
  readonly start: string;
  readonly end: string;
  readonly plan: string;
}
interface ShownAssignment {
  readonly plan: string | null;
  readonly state: string;
  readonly effectiveAt: string;
  readonly decidedAt: string;
  readonly actor: string;
  readonly reason: string;
}
interface WholeCustomer extends ShownCustomer {
  readonly billsTo: string | null;
  readonly contacts: readonly { readonly kind: string; readonly name: string | null; readonly email: string }[];
  readonly currentPeriod: ShownPeriod | null;
  readonly nextPeriod: ShownPeriod | null;
  readonly contract: ShownContract | null;
  readonly assignments: readonly ShownAssignment[];
}

async function show([id = ""]: readonly string[], { json }: Options, { env, write }: Context): Promise<number> {
  const customer = await callApi<WholeCustomer>(env, { method: "GET", path: pathOf(id) });
  write(json === true ? `${JSON.stringify(customer, null, 2)}\n` : textOf(customer));
  return 0;
}

function textOf(customer: WholeCustomer): string {
  const period = (label: string, shown: ShownPeriod | null): string[] =>
    shown === null ? [] : [`  ${label} ${shown.plan}, ${shown.start} to ${shown.end}`];
  const lines = [
    `${customer.id}: ${customer.name}, days in ${customer.zone}, billing ${customer.billsTo ?? "as its plan will say"}`,
    ...customer.contacts.map(({ kind, name, email }) => `  ${kind}: ${name === null ? email : `${name} <${email}>`}`),
    ...(customer.currentPeriod === null ? ["  no plan now"] : []),
    ...period("now ", customer.currentPeriod),
    ...period("next", customer.nextPeriod),
    ...(customer.contract === null ? [] : [`  contract ${contractText(customer.contract)}`]),
    ...customer.assignments.map(
      (each) =>
        `  ${each.state.padEnd(8)} ${each.plan ?? "none"} from ${each.effectiveAt}, decided ${each.decidedAt} by ${each.actor}: ${each.reason}`,
    ),
  ];
  return `${lines.join("\n")}\n`;
}

async function setPlan([id = "", plan]: readonly string[], options: Options, { env, write }: Context): Promise<number> {
  required("--reason", options.reason);
  const { from, at } = options;
  const when = { ...(from === undefined ? {} : { from }), ...(at === undefined ? {} : { at }) };
  type Place = Pick<ShownAssignment, "plan" | "effectiveAt">;
  const { state, assignment, replaced } = await callApi<{
    readonly state: string;
    readonly assignment: Place | null;
    readonly replaced: readonly Place[];
  }>(env, {
    method: "POST",
    path: `${pathOf(id)}/plan`,
    body: { plan: plan === "none" ? null : plan, ...when, ...authorOf(options) },
  });
  const since = assignment === null ? "" : ` from ${assignment.effectiveAt}`;
  write(`${state.padEnd(9)} ${id} is on ${assignment?.plan ?? "no plan"}${since}\n`);
  for (const each of replaced) write(`replaced  ${each.plan ?? "no plan"} from ${each.effectiveAt}\n`);
  return 0;
}

interface ShownContract {
  readonly version: number;
  readonly plan: string;
  readonly overrides: JsonObject;
  readonly effectiveAt: string | null;
}

function contractText({ version, plan, overrides, effectiveAt }: ShownContract): string {
  const from = effectiveAt === null ? "in every period" : `in periods from ${effectiveAt}`;
  return `${version} for ${plan} ${from}: ${JSON.stringify(overrides)}`;
}

async function setContract(
  [id = "", plan]: readonly string[],
  options: Options,
  { env, write }: Context,
): Promise<number> {
  required("--reason", options.reason);
  const overrides = readOverrides(required("--overrides", options.overrides));
  const { state, contract } = await callApi<{ readonly state: string; readonly contract: ShownContract }>(env, {
    method: "POST",
    path: `${pathOf(id)}/contract`,
    body: { plan, overrides, ...authorOf(options) },
  });
  write(`${state.padEnd(9)} contract ${contractText(contract)}\n`);
  return 0;
}

function readOverrides(file: string): JsonObject {
  const place = file === "-" ? "standard input" : file;
  const text = file === "-" ? readFileSync(0, "utf8") : readText(file);
  const reading = readYaml(text);
  if (reading.kind === "problems") {
    const [first] = reading.problems;
    throw new UsageError(`${place}:${first?.line ?? 1}: ${first?.rule ?? "cannot be read"}`);
  }
  if (!isJsonObject(reading.content)) throw new UsageError(`${place} holds no fields of a plan`);
  return reading.content;
}

async function unbilled(_: readonly string[], { json }: Options, { env, write }: Context): Promise<number> {
  type Row = { customer: string; reason: string; firstAt: string; lastAt: string };
  const rows = await allPages(
    env,
    { path: "/admin/v1/customers/unbilled", query: {}, cursor: "after" },
    (answer) => answer["customers"] as Row[],
  );
  const line = ({ customer, reason, firstAt, lastAt }: Row): string =>
    [customer, reason === "no_customer" ? "unknown customer" : "no plan", `${firstAt} to ${lastAt}`].join("\t");
  write(print(rows, { json, line, none: "all usage is covered by a plan" }));
  return 0;
}

async function changes([id]: readonly string[], { json }: Options, { env, write }: Context): Promise<number> {
  type Row = { id: number; at: string; actor: string; action: string; subject: { id: string }; reason: string };
  const query: Record<string, string> = id === undefined ? {} : { subject: `customer/${id}` };
  const rows = await allPages(
    env,
    { path: "/admin/v1/audit-log", query, cursor: "before" },
    (answer) => answer["changes"] as Row[],
  );
  const line = (row: Row): string =>
    `${row.id}  ${row.at}  ${row.action.padEnd(17)}  ${row.subject.id}  by ${row.actor}: ${row.reason}`;
  write(print(rows, { json, line, none: "nothing was changed" }));
  return 0;
}
