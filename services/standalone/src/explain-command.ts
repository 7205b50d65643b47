/** `tallyhouse explain …`: a statement down to its usage events, and its export, as a client of a running Tallyhouse. */
import { open, rename, rm } from "node:fs/promises";
import { parseArgs } from "node:util";
import type { Environment } from "@tallyhouse/runtime";
import { ApiError, callApi, downloadApi, readTextApi } from "./client.ts";
import { UsageError } from "./meters-command.ts";

/** Lines of the usage text. */
export const EXPLAIN_USAGE = `  tallyhouse explain ID               a statement's lines with their arithmetic
      [--line KEY]                    the windows of one line instead
      [--window START|all]            its usage events in one window, or all of them
      [--csv | --json]
  tallyhouse explain ID --export FILE the statement with every usage event behind it, for tools/verify-statement.py`;

interface Context {
  readonly env: Environment;
  readonly write: (text: string) => void;
}

interface ShownLine {
  readonly key: string;
  readonly amount: string;
  readonly steps: readonly string[];
}

interface ShownStatement {
  readonly id: string;
  readonly customer: string;
  readonly plan: string;
  readonly currency: string;
  readonly period: { readonly start: string; readonly end: string };
  readonly seq: number;
  readonly previous: { readonly id: string } | null;
  readonly lines: readonly ShownLine[];
  readonly total: string;
  readonly difference: {
    readonly lines: readonly {
      readonly key: string;
      readonly difference: { readonly quantity: string; readonly amount: string };
    }[];
    readonly total: string;
  } | null;
  readonly reason: string | null;
  readonly actor: string | null;
  readonly asOf: string;
  readonly digest: string;
}

interface ShownPage {
  readonly kind: "windows" | "events";
  readonly line: string;
  readonly quantity: string;
  readonly joinedBy?: string;
  readonly asOf: string;
  readonly data: readonly Readonly<Record<string, unknown>>[];
  readonly next: string | null;
}

/** @returns 0. @throws {UsageError} for wrong arguments. @throws {ApiError} when the deployment refuses or does not answer. */
export async function runExplain(args: readonly string[], context: Context): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      line: { type: "string" },
      window: { type: "string" },
      csv: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      export: { type: "string" },
    },
  });
  const [id, ...more] = positionals;
  if (id === undefined || more.length > 0) throw new UsageError("explain needs the id of one statement");
  const { line, window, csv, json } = values;
  const path = `/v1/invoices/${encodeURIComponent(id)}`;
  if (values.export !== undefined) {
    if (line !== undefined || window !== undefined || csv || json)
      throw new UsageError("--export is the whole statement: it goes with no other option");
    return exportTo(values.export, { ...context, path: `${path}/export` });
  }
  if (csv && json) throw new UsageError("--csv or --json, not both");
  if (window !== undefined && line === undefined) throw new UsageError("--window needs --line");
  const query = { ...(line === undefined ? {} : { line }), ...(window === undefined ? {} : { window }) };
  const explained = { ...context, path: `${path}/explain`, query };
  if (csv) return printCsv(explained);
  if (json) return printJson(explained);
  return line === undefined ? printStatement(explained) : printLine(explained);
}

interface Explained extends Context {
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
}

function pathOf({ path, query }: Explained, more: Readonly<Record<string, string>> = {}): string {
  const text = new URLSearchParams({ ...query, ...more }).toString();
  return text === "" ? path : `${path}?${text}`;
}

/** Every page, the header of the first one only. */
async function printCsv(explained: Explained): Promise<number> {
  let cursor: string | null = null;
  for (;;) {
    const isFirst = cursor === null;
    const more = { format: "csv", ...(cursor === null ? {} : { cursor }) };
    const { text, headers }: { text: string; headers: Headers } = await readTextApi(
      explained.env,
      pathOf(explained, more),
    );
    explained.write(isFirst ? text : text.slice(text.indexOf("\n") + 1));
    cursor = headers.get("x-next-cursor");
    if (cursor === null) return 0;
  }
}

async function* pagesOf(explained: Explained): AsyncGenerator<ShownPage> {
  let cursor: string | null = null;
  do {
    const path = pathOf(explained, cursor === null ? {} : { cursor });
    const page: ShownPage = await callApi<ShownPage>(explained.env, { method: "GET", path });
    yield page;
    cursor = page.next;
  } while (cursor !== null);
}

/** One object: all pages of a line are one. */
async function printJson(explained: Explained): Promise<number> {
  let whole: object | null = null;
  if (explained.query["line"] === undefined)
    whole = await callApi<object>(explained.env, { method: "GET", path: pathOf(explained) });
  else {
    const data: unknown[] = [];
    for await (const page of pagesOf(explained)) {
      data.push(...page.data);
      whole = { ...page, data };
    }
  }
  explained.write(`${JSON.stringify(whole, null, 2)}\n`);
  return 0;
}

async function printStatement(explained: Explained): Promise<number> {
  explained.write(
    statementText(await callApi<ShownStatement>(explained.env, { method: "GET", path: pathOf(explained) })),
  );
  return 0;
}

/** The statement as people read it. */
function statementText(statement: ShownStatement): string {
  const { period, lines, difference, previous, currency } = statement;
  const width = Math.max(...lines.map(({ key }) => key.length), "total".length);
  const amountOf = (key: string, amount: string): string => `${key.padEnd(width)}  ${amount.padStart(14)} ${currency}`;
  const changed = (difference?.lines ?? []).map(
    (line) => `  ${amountOf(line.key, line.difference.amount)}  (${line.difference.quantity} units)`,
  );
  const why = statement.reason === null ? [] : [`  because: ${statement.reason} (${statement.actor ?? ""})`];
  return `${[
    `${statement.id}: ${statement.customer}, ${statement.plan}, ${period.start} to ${period.end}`,
    `as known at ${statement.asOf}; digest ${statement.digest}`,
    "",
    ...lines.flatMap((line) => [amountOf(line.key, line.amount), ...line.steps.map((step) => `    ${step}`)]),
    amountOf("total", statement.total),
    ...(difference === null
      ? []
      : [
          "",
          `adjustment ${statement.seq} of ${previous?.id ?? ""}:`,
          ...changed,
          `  ${amountOf("difference", difference.total)}`,
        ]),
    ...why,
  ].join("\n")}\n`;
}

async function printLine(explained: Explained): Promise<number> {
  let isFirst = true;
  for await (const page of pagesOf(explained)) {
    if (isFirst) {
      const how = page.joinedBy === undefined ? "" : `: ${page.joinedBy}`;
      explained.write(`${page.line}: ${page.quantity} as known at ${page.asOf}${how}\n\n`);
    }
    isFirst = false;
    explained.write(page.data.map((row) => `${rowText(page.kind, row)}\n`).join(""));
  }
  return 0;
}

function rowText(kind: ShownPage["kind"], row: Readonly<Record<string, unknown>>): string {
  if (kind === "windows") return `${text(row["start"])}  ${text(row["end"])}  ${text(row["quantity"]).padStart(20)}`;
  const dims = Object.entries(row["dims"] ?? {}).map(([name, value]) => `  ${name}=${JSON.stringify(value)}`);
  return `${text(row["occurredAt"]).padEnd(24)}  ${text(row["value"]).padStart(20)}  ${text(row["source"])} ${text(row["id"])}${dims.join("")}`;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** How an export ends; what ends otherwise was cut off. */
const END_LINE = /\{"end":\{"events":(\d+)\}\}\n$/;
const END_BYTES_MAX = 64;

/**
 * Written beside the file and renamed when its end line is there, so that FILE is whole or does not exist.
 * @throws {ApiError} when the answer was cut off.
 */
async function exportTo(file: string, { env, write, path }: Context & { readonly path: string }): Promise<number> {
  const part = `${file}.part`;
  const handle = await open(part, "w");
  try {
    let end = Buffer.alloc(0);
    for await (const bytes of downloadApi(env, path)) {
      await handle.write(bytes);
      end = Buffer.concat([end, bytes]).subarray(-END_BYTES_MAX);
    }
    const events = END_LINE.exec(end.toString("utf8"))?.[1];
    if (events === undefined) throw new ApiError("the export was cut off; try again");
    await handle.sync();
    await handle.close();
    await rename(part, file);
    write(`${file}: the statement and ${events} usage events. Verify it: python3 tools/verify-statement.py ${file}\n`);
    return 0;
  } catch (error) {
    await handle.close();
    await rm(part, { force: true });
    throw error;
  }
}
