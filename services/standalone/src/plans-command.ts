/** `tallyhouse plans …`: a plans file checked offline, compared and applied. */
import { userInfo } from "node:os";
import { parseArgs } from "node:util";
import { parsePlansFile } from "@tallyhouse/plans";
import type { Environment } from "@tallyhouse/runtime";
import { callApi } from "./client.ts";
import { type Output, readText, UsageError } from "./meters-command.ts";

/** Lines of the usage text. */
export const PLANS_USAGE = `  tallyhouse plans check FILE         check a plans file, offline
  tallyhouse plans diff FILE          what apply would change, field by field; exits 2 when that is anything
  tallyhouse plans apply FILE --reason R [--actor A]
                                      make new plan versions; limits act at once, prices from each customer's next period`;

/** What `diff` ends with when an apply would change something. */
const EXIT_CHANGES = 2;

interface CatalogueChange {
  readonly kind: "plan" | "endpoints" | "bundle";
  readonly key: string;
  readonly change: "new" | "new-version" | "none" | "missing";
  readonly version: number;
  readonly text: readonly string[];
}

interface Context {
  readonly env: Environment;
  readonly output: Output;
}

/** Runs one of the verbs; the exit code. @throws {ApiError} what Tallyhouse refuses; {UsageError} wrong use. */
export async function runPlans(args: readonly string[], context: Context): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { reason: { type: "string" }, actor: { type: "string" } },
  });
  const [verb, path, ...more] = positionals;
  const isVerb = verb === "check" || verb === "diff" || verb === "apply";
  if (!isVerb || path === undefined || more.length > 0)
    throw new UsageError("plans needs check, diff or apply, and one file");
  const { reason, actor } = values;
  if (verb !== "apply" && (reason !== undefined || actor !== undefined))
    throw new UsageError("--reason and --actor belong to plans apply");
  if (verb === "apply" && (reason === undefined || reason === ""))
    throw new UsageError("plans apply needs --reason: the audit log keeps why");
  const text = readText(path);
  const plans = countPlans({ path, text }, context.output);
  if (plans === null) return 1;
  if (verb === "check") {
    context.output.out(`${path}: ${plans} plans, no problem\n`);
    return 0;
  }
  const body = verb === "diff" ? { file: text } : { file: text, reason, actor: actor ?? userInfo().username };
  const changes = await ask(verb, body, context);
  return verb === "diff" && changes > 0 ? EXIT_CHANGES : 0;
}

/** How many plans the file has, or null after its problems were told. */
function countPlans({ path, text }: { readonly path: string; readonly text: string }, output: Output): number | null {
  const reading = parsePlansFile(text);
  if (reading.kind === "plans") return reading.file.plans.length;
  for (const { line, field, rule } of reading.problems)
    output.err(`${path}:${line}: ${field === "" ? "" : `${field}: `}${rule}\n`);
  return null;
}

/** Prints what changes; how much of it is new. */
async function ask(verb: "diff" | "apply", body: object, { env, output }: Context): Promise<number> {
  const { changes } = await callApi<{ changes: readonly CatalogueChange[] }>(env, {
    method: "POST",
    path: `/admin/v1/plans/${verb}`,
    body,
  });
  for (const { kind, key, change, version, text } of changes) {
    const name = kind === "endpoints" ? kind : `${kind} ${key}`;
    const note = change === "missing" ? " (not in the file: stays as it is)" : "";
    output.out(`${change.padEnd(12)} ${name} v${version}${note}\n`);
    for (const line of text) output.out(`    ${line}\n`);
  }
  return changes.filter(({ change }) => change === "new" || change === "new-version").length;
}
