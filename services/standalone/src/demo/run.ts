/** `tallyhouse demo`: a day of usage through every real stage, and the proof that nothing differs. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatQuantity } from "@tallyhouse/domain";
import type { Environment } from "@tallyhouse/runtime";
import { Stripe } from "stripe";
import { startStandalone, type Standalone } from "../app.ts";
import { auditPorts } from "../audit.ts";
import { deleteTopic } from "../ports.ts";
import { type ComparedTotal, compareTotals, waitForPipeline } from "./compare.ts";
import { deliver } from "./deliver.ts";
import { labelOf, planDelivery, type Workload } from "./workload.ts";

/** Everything a demo writes goes here; tests collect it. */
export interface DemoOutput {
  line(text: string): void;
  /** Overwrites the last progress line where the output is a terminal. */
  progress(text: string): void;
}

export interface DemoOptions {
  readonly workload: Workload;
  readonly seed: number;
  readonly env: Environment;
  readonly output: DemoOutput;
}

const DUPLICATE_SHARE = 0.05;
const CONFLICT_SHARE = 0.01;
const PIPELINE_TIMEOUT_MS = 120_000;
/** Lines of the table that are printed; one with a difference always is. */
const LINES_SHOWN_MAX = 160;

/** Settings that make a day visible in seconds. What the caller's environment says wins, except the folder and the ports. */
const DEMO_ENVIRONMENT: Environment = {
  BOOKING_WINDOW_SECONDS: "5",
  REPORT_LATENESS_SECONDS: "0",
  REPORT_INTERVAL_MS: "500",
  SEND_RATE_PER_SECOND: "2000",
  CALL_RATE_PER_SECOND: "2000",
  EMULATOR_LIMITS: "off",
  LOG_LEVEL: "error",
};

/**
 * Starts Tallyhouse on a throw-away folder, sends the workload with duplicates and conflicts, waits for the pipeline, compares.
 * @returns the process's exit code: 0 when no total differs.
 */
export async function runDemo(options: DemoOptions): Promise<0 | 1> {
  const { workload, output } = options;
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-demo-"));
  // A topic of its own: offsets of an older demo mean nothing to a new folder.
  const topic = `usage.events.v1.demo-${randomUUID()}`;
  const env: Environment = {
    ...DEMO_ENVIRONMENT,
    KAFKA_TOPIC: topic,
    ...options.env,
    TALLYHOUSE_DATA: folder,
    TALLYHOUSE_PORT: "0",
    TALLYHOUSE_EMULATOR_PORT: "0",
    TALLYHOUSE_SQL_PORT: "off",
    TALLYHOUSE_METERS: "none",
    TALLYHOUSE_INGEST_KEY: "",
    // A demo touches no other data, and a database has no name of its own to give it.
    POSTGRES_URL: "",
    CLICKHOUSE_URL: "",
  };
  const startedAt = performance.now();
  const standalone = await startStandalone(env);
  try {
    for (const [part, adapter] of Object.entries(standalone.ports.adapters)) output.line(`${part}: ${adapter}`);
    const compared = await feedAndCompare(standalone, options);
    const different = compared.filter(isDifferent);
    printTable(compared, output);
    const isClean = await printAudit(standalone, { env, output });
    output.line(`${((performance.now() - startedAt) / 1_000).toFixed(1)} s in all`);
    const [worst] = different;
    const difference = worst === undefined ? "0" : formatQuantity(largest(worst));
    output.line(`difference: ${difference} over ${compared.length} totals`);
    return isClean && different.length === 0 && compared.length > 0 ? 0 : 1;
  } finally {
    await standalone.stop();
    const brokers = env["KAFKA_BROKERS"];
    if (brokers !== undefined && env["KAFKA_TOPIC"] === topic)
      await deleteTopic({ brokers: brokers.split(","), clientId: "tallyhouse-demo", topic });
    rmSync(folder, { recursive: true, force: true });
  }

  async function feedAndCompare(running: Standalone, { seed }: DemoOptions): Promise<ComparedTotal[]> {
    const { analytics, control, log } = running.ports;
    await applyMeters(running, workload.metersFile);
    const plan = planDelivery(workload.events, {
      seed,
      copies: 1,
      duplicateShare: DUPLICATE_SHARE,
      conflictShare: CONFLICT_SHARE,
    });
    const toSend = plan.deliveries.length + plan.conflicts.length;
    output.line(`${workload.title}: ${toSend} usage events, ${plan.conflicts.length} of them conflicts`);
    await deliver(plan, {
      url: running.url,
      token: running.token,
      onProgress: (sent) => output.progress(bar("sent", sent, toSend)),
    });
    const countedEvents = new Set(workload.events.map((event) => `${event.source}\n${event.customer}\n${event.id}`))
      .size;
    await waitForPipeline({
      analytics,
      control,
      log,
      mode: running.mode,
      countedEvents,
      timeoutMs: PIPELINE_TIMEOUT_MS,
      onProgress: ({ counted, reported }) =>
        output.progress(`${bar("counted", counted, countedEvents)}, ${reported} meter events`),
    });
    const stripe = new Stripe("sk_live_demo", { ...running.emulator.stripeConfig, telemetry: false });
    return compareTotals({ workload, analytics, stripe, mode: running.mode });
  }
}

/** One line: whether every stored row follows from the log, recounted in SQL alone. */
async function printAudit(
  standalone: Standalone,
  { env, output }: { env: Environment; output: DemoOutput },
): Promise<boolean> {
  const { checks, isClean } = await auditPorts(standalone.ports, env);
  const found = checks.filter(({ differences }) => differences > 0).map(({ check }) => check);
  output.line(`audit: ${isClean ? "clean" : `rows differ in ${found.join(", ")}`}`);
  return isClean;
}

/** Applies a meters file through the admin API and waits until every partition knows the meters. */
export async function applyMeters(standalone: Pick<Standalone, "url" | "token">, file: string): Promise<void> {
  const answer = await fetch(`${standalone.url}/admin/v1/meters/apply?wait=10s`, {
    method: "POST",
    headers: { authorization: `Bearer ${standalone.token}`, "content-type": "application/json" },
    body: JSON.stringify({ file }),
  });
  if (!answer.ok) throw new Error(`meters refused: ${await answer.text()}`);
}

function isDifferent(total: ComparedTotal): boolean {
  return total.expected !== total.counted || total.expected !== total.atStripe;
}

function largest(total: ComparedTotal): bigint {
  const counted = total.counted - total.expected;
  const atStripe = total.atStripe - total.expected;
  const size = (value: bigint): bigint => (value < 0n ? -value : value);
  return size(counted) > size(atStripe) ? counted : atStripe;
}

function bar(what: string, done: number, total: number): string {
  const share = total === 0 ? 1 : Math.min(1, done / total);
  return `${what} [${"#".repeat(Math.round(share * 30)).padEnd(30)}] ${done} of ${total}`;
}

/** One line per customer and meter, the sums of its hours or days; the last line of the demo judges each of those alone. */
function printTable(compared: readonly ComparedTotal[], output: DemoOutput): void {
  const lines = new Map<
    string,
    { customer: string; meter: string; sums: [bigint, bigint, bigint]; isDifferent: boolean }
  >();
  for (const total of compared) {
    const key = `${total.customer}\n${total.meter}`;
    const line = lines.get(key) ?? {
      customer: total.customer,
      meter: total.meter,
      sums: [0n, 0n, 0n],
      isDifferent: false,
    };
    line.sums = [line.sums[0] + total.expected, line.sums[1] + total.counted, line.sums[2] + total.atStripe];
    line.isDifferent ||= isDifferent(total);
    lines.set(key, line);
  }
  const shown = [...lines.values()].filter((line, index) => index < LINES_SHOWN_MAX || line.isDifferent);
  const header = ["customer", "meter", "expected", "counted", "at Stripe", "difference"];
  const rows = shown.map(({ customer, meter, sums: [expected, counted, atStripe], isDifferent: differs }) => {
    const verdict = differs ? "yes" : "0";
    return [customer, meter, formatQuantity(expected), formatQuantity(counted), formatQuantity(atStripe), verdict];
  });
  const widths = header.map((name, column) =>
    rows.reduce((width, row) => Math.max(width, (row[column] ?? "").length), name.length),
  );
  for (const row of [header, ...rows]) {
    const cells = row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)));
    output.line(cells.join("  "));
  }
  if (shown.length < lines.size) output.line(`… and ${lines.size - shown.length} more, all with difference 0`);
  for (const total of compared.filter(isDifferent).slice(0, LINES_SHOWN_MAX)) {
    const { customer, meter, expected, counted, atStripe } = total;
    const sides = `expected ${formatQuantity(expected)}, counted ${formatQuantity(counted)}, at Stripe ${formatQuantity(atStripe)}`;
    output.line(`differs: ${customer} ${meter} from ${labelOf(total)}: ${sides}`);
  }
}
