/** `tallyhouse simulate`: past usage under a plans file that nobody has applied. */
import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { SimulationLine } from "@tallyhouse/billing";
import { parseInstant } from "@tallyhouse/domain";
import { parsePlansFile } from "@tallyhouse/plans";
import type { Environment } from "@tallyhouse/runtime";
import { ApiError, streamApi } from "./client.ts";
import { type Output, UsageError } from "./meters-command.ts";
import { simulationCsv, summaryText } from "./simulate-report.ts";
import { simulationSvg } from "./simulate-svg.ts";

/** What the command is called with. */
export const SIMULATE_USAGE = `  tallyhouse simulate --plans FILE    what past usage would have cost under other plans; nothing is stored
      --from T --to T                 periods that begin in this span
      [--map OLD=NEW]…                customers of plan OLD as if on plan NEW of the file
      [--csv FILE] [--svg FILE]       every customer; the distribution as a picture`;

const BAR_CELLS = 30;

type Line<Kind extends SimulationLine["kind"]> = Extract<SimulationLine, { kind: Kind }>;

/** Where the command writes: `show` replaces the line on a terminal; absent where there is none. */
export interface SimulateIo {
  readonly env: Environment;
  readonly output: Output;
  readonly show?: (text: string) => void;
}

/** Runs the command; the exit code. The report on standard output is the same for the same usage; what depends on the moment is told on standard error. */
export async function runSimulate(args: readonly string[], io: SimulateIo): Promise<number> {
  const options = readOptions(args);
  const file = readPlans(options.plans, io.output);
  if (file === null) return 1;
  const customers: Line<"customers">["customers"][number][] = [];
  const skipped: Line<"skipped">["periods"][number][] = [];
  let summary: Line<"summary"> | null = null;
  let isWhole = false;
  const body = { file, from: options.from, to: options.to, map: options.map };
  for await (const line of streamApi<SimulationLine>(io.env, { path: "/admin/v1/simulate", body })) {
    switch (line.kind) {
      case "begin":
        io.output.err(`${line.customers} customers, usage as of ${line.asOf ?? "now"}\n`);
        break;
      case "progress":
        io.show?.(barOf(line));
        break;
      case "customers":
        customers.push(...line.customers);
        break;
      case "skipped":
        skipped.push(...line.periods);
        break;
      case "summary":
        summary = line;
        break;
      case "problem":
        throw new ApiError(line.detail);
      case "end":
        isWhole = true;
        break;
    }
  }
  io.show?.("");
  if (!isWhole || summary === null) throw new ApiError("the answer was cut off: the figures are not whole, try again");
  io.output.out(summaryText(options, summary, skipped));
  if (options.csv !== null) write(options.csv, simulationCsv(customers));
  if (options.svg !== null) write(options.svg, simulationSvg(options, summary));
  return 0;
}

interface Options {
  readonly plans: string;
  readonly from: string;
  readonly to: string;
  readonly map: Readonly<Record<string, string>>;
  readonly csv: string | null;
  readonly svg: string | null;
}

function readOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      plans: { type: "string" },
      from: { type: "string" },
      to: { type: "string" },
      map: { type: "string", multiple: true },
      csv: { type: "string" },
      svg: { type: "string" },
    },
  });
  const { plans, from, to, map = [], csv = null, svg = null } = values;
  if (plans === undefined || from === undefined || to === undefined)
    throw new UsageError("simulate needs --plans FILE, --from T and --to T");
  for (const text of [from, to])
    if (parseInstant(text) === null) throw new UsageError(`no instant, such as 2026-10-01T00:00:00Z: ${text}`);
  const moves = map.map((text): [string, string] => {
    const [before = "", after = "", ...more] = text.split("=");
    if (before === "" || after === "" || more.length > 0)
      throw new UsageError("--map takes OLD=NEW, two keys of plans");
    return [before, after];
  });
  return { plans, from, to, map: Object.fromEntries(moves), csv, svg };
}

/** The file's text, or null after its problems were told. */
function readPlans(path: string, output: Output): string | null {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const reading = parsePlansFile(text);
  if (reading.kind === "plans") return text;
  for (const { line, field, rule } of reading.problems)
    output.err(`${path}:${line}: ${field === "" ? "" : `${field}: `}${rule}\n`);
  return null;
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new UsageError(`cannot write ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function barOf({ customers, totalCustomers }: Line<"progress">): string {
  // Customers who got a plan meanwhile may make it more than all.
  const cells =
    totalCustomers === 0 ? BAR_CELLS : Math.min(BAR_CELLS, Math.floor((customers * BAR_CELLS) / totalCustomers));
  return `rating [${"#".repeat(cells).padEnd(BAR_CELLS)}] ${customers} of ${totalCustomers}`;
}
