/** `tallyhouse audit`: runs the checks in a running deployment and prints what differs. */
import { parseArgs } from "node:util";
import { AUDIT_CHECKS, type CheckResult } from "@tallyhouse/console";
import { type Environment, pause } from "@tallyhouse/runtime";
import { callApi } from "./client.ts";

/** An audit as the admin API shows it. */
interface ShownAudit {
  readonly id: string;
  readonly state: "running" | "clean" | "differs" | "failed";
  readonly checks: readonly CheckResult[] | null;
  readonly failure: string | null;
  /** Where a running one is; null when another console runs it. */
  readonly progress?: { readonly check: string; readonly done: number; readonly statements: number } | null;
}

/** A large deployment takes minutes; each look is one small answer. */
const POLL_MS = 1_000;

/**
 * Prints a table and the first differing rows, or JSON with `--json`. `--check A4` runs one check, and may stand several times.
 * @returns 0 clean, 1 rows differ, 2 the audit could not run.
 * @throws {ApiError} when the deployment does not answer or refuses: exit code 2, too.
 */
export async function audit(
  args: readonly string[],
  io: {
    readonly env: Environment;
    print(text: string): void;
    complain(text: string): void;
    /** Shows where a running audit is, in place of what was shown before; the empty text in the end. Absent without a terminal. */
    show?(text: string): void;
  },
): Promise<0 | 1 | 2> {
  const { values } = parseArgs({
    args: [...args],
    options: { check: { type: "string", multiple: true, default: [] }, json: { type: "boolean", default: false } },
  });
  const unknown = values.check.find((name) => !AUDIT_CHECKS.some((known) => known === name));
  if (unknown !== undefined) {
    io.complain(`there is no check ${unknown}: they are ${AUDIT_CHECKS.join(", ")}\n`);
    return 2;
  }
  const body = values.check.length === 0 ? {} : { checks: values.check };
  let shown = await callApi<ShownAudit>(io.env, { method: "POST", path: "/admin/v1/audits", body });
  while (shown.state === "running") {
    await pause(POLL_MS);
    const { audits } = await callApi<{ audits: readonly ShownAudit[] }>(io.env, {
      method: "GET",
      path: "/admin/v1/audits",
    });
    shown = audits.find(({ id }) => id === shown.id) ?? shown;
    io.show?.(placeOf(shown));
  }
  if (values.json) io.print(`${JSON.stringify(shown, null, 2)}\n`);
  if (shown.checks === null) {
    io.complain(`the audit could not run to its end: ${shown.failure ?? "no reason was stored"}\n`);
    return 2;
  }
  if (!values.json) io.print(tableOf(shown.checks));
  return shown.state === "clean" ? 0 : 1;
}

function placeOf({ state, progress }: ShownAudit): string {
  if (state !== "running" || progress === undefined || progress === null) return "";
  return `${progress.check}: ${progress.done} of ${progress.statements} statements done`;
}

/** One line per check, then the first rows of each check that differs, as JSON. */
export function tableOf(checks: readonly CheckResult[]): string {
  const header = ["check", "rows", "differences", "seconds"];
  const rows = checks.map(({ check, rows: looked, differences, seconds }) => [
    check,
    String(looked),
    String(differences),
    seconds.toFixed(1),
  ]);
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => (row[column] ?? "").length)));
  const table = [header, ...rows].map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("  "),
  );
  const differing = checks
    .filter(({ differences }) => differences > 0)
    .flatMap(({ check, differences, examples, statement }) => [
      "",
      `${check}: ${differences} differ; docs/runbooks/audit.md says what that means. The first ${examples.length}:`,
      ...examples.map((example) => `  ${JSON.stringify(example)}`),
      ...(statement === null ? [] : ["found by:", ...statement.split("\n").map((line) => `  ${line}`)]),
    ]);
  return `${[...table, ...differing].join("\n")}\n`;
}
