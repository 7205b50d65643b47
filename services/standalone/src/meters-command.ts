/** `tallyhouse meters …`: a meters file checked offline, compared, applied, tried on past usage; and the end of a meter. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { parseInstant, parseMetersFile } from "@tallyhouse/domain";
import type { Environment } from "@tallyhouse/runtime";
import { ApiError, callApi, streamApi } from "./client.ts";

/** Where a command writes. */
export interface Output {
  out(text: string): void;
  err(text: string): void;
}

/** A command line that means nothing; the text says what is missing. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

interface MeterEnd {
  readonly version: number;
  readonly until: string;
}
interface MeterChange {
  readonly key: string;
  readonly change: "new" | "new-version" | "old-version" | "ended" | "unit-only" | "none";
  readonly version: number;
  readonly fields: readonly string[];
  readonly from: string;
  readonly ends: readonly MeterEnd[];
  readonly kept: readonly { readonly version: number; readonly plans: readonly string[] }[];
}

/** Runs one of the verbs; the exit code. */
export async function runMeters(args: readonly string[], env: Environment, output: Output): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { against: { type: "string" }, until: { type: "string" } },
  });
  const [verb, subject, ...more] = positionals;
  if (verb === undefined || subject === undefined || more.length > 0 || !isWellFormed(verb, values))
    throw new UsageError("meters needs check [--against FROM..TO], diff or apply, and one file; or end, and one key");
  switch (verb) {
    case "check":
      return values.against === undefined
        ? checkOffline(subject, output)
        : checkAgainst({ path: subject, span: values.against }, env, output);
    case "diff":
    case "apply":
      return change(verb, subject, { env, output });
    default:
      return end(subject, values.until, { env, output });
  }
}

function isWellFormed(verb: string, values: { against?: string; until?: string }): boolean {
  const isEnd = verb === "end";
  const isKnown = isEnd || verb === "check" || verb === "diff" || verb === "apply";
  return isKnown && (values.against === undefined || verb === "check") && (values.until === undefined || isEnd);
}

/** The file's text, or null after its problems were told. */
function readFile(path: string, output: Output): { text: string; meters: number } | null {
  const text = readText(path);
  const reading = parseMetersFile(text);
  if (reading.kind === "meters") return { text, meters: reading.rules.length };
  for (const { line, field, rule } of reading.problems)
    output.err(`${path}:${line}: ${field === "" ? "" : `${field}: `}${rule}\n`);
  return null;
}

function checkOffline(path: string, output: Output): number {
  const file = readFile(path, output);
  if (file === null) return 1;
  output.out(`${path}: ${file.meters} meters, no problem\n`);
  return 0;
}

async function change(
  verb: "diff" | "apply",
  path: string,
  { env, output }: { env: Environment; output: Output },
): Promise<number> {
  const file = readFile(path, output);
  if (file === null) return 1;
  const { changes } = await callApi<{ changes: readonly MeterChange[] }>(env, {
    method: "POST",
    path: `/admin/v1/meters/${verb}${verb === "apply" ? "?wait=10s" : ""}`,
    body: { file: file.text },
  });
  for (const { key, change: kind, version, fields, from, ends, kept } of changes) {
    const isNew = kind === "new" || kind === "new-version";
    const details = [...(fields.length > 0 ? [`(${fields.join(", ")})`] : []), ...(isNew ? [`from ${from}`] : [])];
    output.out(`${[kind.padEnd(12), key, `v${version}`, ...details].join(" ")}\n`);
    for (const each of ends) output.out(`${"end".padEnd(12)} ${key} v${each.version} until ${each.until}\n`);
    for (const each of kept)
      output.out(`${"kept".padEnd(12)} ${key} v${each.version} used by ${each.plans.join(", ")}\n`);
  }
  return 0;
}

async function end(
  key: string,
  until: string | undefined,
  { env, output }: { env: Environment; output: Output },
): Promise<number> {
  const { ends } = await callApi<{ ends: readonly MeterEnd[] }>(env, {
    method: "POST",
    path: `/admin/v1/meters/${encodeURIComponent(key)}/end`,
    body: until === undefined ? {} : { until },
  });
  for (const each of ends) output.out(`${"end".padEnd(12)} ${key} v${each.version} until ${each.until}\n`);
  return 0;
}

interface Counts {
  readonly events: number;
  readonly matched: number;
  readonly skippedByWhere: number;
  readonly withoutValue: number;
  readonly unreadable: number;
}
type CheckLine =
  | { readonly kind: "progress"; readonly type: string; readonly events: number; readonly totalEvents: number }
  | ({
      readonly kind: "customer";
      readonly key: string;
      readonly customer: string;
      readonly quantity: string | null;
    } & Counts)
  | ({
      readonly kind: "meter";
      readonly key: string;
      readonly customers: number;
      readonly quantity: string | null;
      readonly examples: readonly { customer: string; source: string; id: string; occurredAt: string }[];
    } & Counts)
  | { readonly kind: "problem"; readonly detail: string }
  | { readonly kind: "end" };

/** Progress lines on standard error are at least this many usage events apart. */
const PROGRESS_EVENTS = 100_000;

/** One line per meter and customer, tab-separated; then one line per meter. */
async function checkAgainst(input: { path: string; span: string }, env: Environment, output: Output): Promise<number> {
  const [from = "", to = "", ...more] = input.span.split("..");
  if (more.length > 0 || parseInstant(from) === null || parseInstant(to) === null)
    throw new UsageError("--against takes two instants, such as 2026-10-01T00:00:00Z..2026-11-01T00:00:00Z");
  const file = readFile(input.path, output);
  if (file === null) return 1;
  const query = new URLSearchParams({ from, to });
  const lines = streamApi<CheckLine>(env, {
    path: `/admin/v1/meters/check?${query.toString()}`,
    body: { file: file.text },
  });
  output.out("meter\tcustomer\tquantity\tmatched\tskipped by where\twithout value\tunreadable\n");
  let shownEvents = 0;
  let isWhole = false;
  for await (const line of lines) {
    if (line.kind === "end") isWhole = true;
    else if (line.kind === "problem") throw new ApiError(line.detail);
    else if (line.kind === "progress") {
      if (line.events < shownEvents) shownEvents = 0;
      if (line.events - shownEvents < PROGRESS_EVENTS) continue;
      shownEvents = line.events;
      output.err(`${line.type}: ${line.events} of ${line.totalEvents} usage events\n`);
    } else writeFigures(line, output);
  }
  if (!isWhole) throw new ApiError("the answer was cut off: the figures are not whole, try again");
  return 0;
}

function writeFigures(line: Extract<CheckLine, { kind: "customer" | "meter" }>, output: Output): void {
  const { key, quantity, matched, skippedByWhere, withoutValue, unreadable } = line;
  const who = line.kind === "customer" ? line.customer : `(all: ${line.customers})`;
  output.out(`${[key, who, quantity ?? "-", matched, skippedByWhere, withoutValue, unreadable].join("\t")}\n`);
  if (line.kind === "customer") return;
  for (const { customer, source, id, occurredAt } of line.examples)
    output.err(`${key}: unreadable value of ${customer}, source ${source}, id ${id}, at ${occurredAt}\n`);
}

/** The text of a file that the command line names. */
export function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
