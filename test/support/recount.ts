/** Totals from four places as the same sorted lines, `customer,meter,hour,quantity`, so that they compare as they are. */
import { execFileSync } from "node:child_process";
import {
  type AnalyticsStore,
  floorTo,
  formatInstant,
  formatQuantity,
  HOUR_MS,
  parseQuantity,
} from "@tallyhouse/domain";
import { cloudEventOf, type DemoEvent } from "@tallyhouse/standalone/demo";

const RECOUNT = new URL("../../tools/recount.py", import.meta.url).pathname;
const OUTPUT_BYTES_MAX = 64 * 1_048_576;

/** The oracle: another language, none of our code, nothing but what was sent. */
export function recount(sent: readonly DemoEvent[]): string[] {
  const input = sent.map((event) => JSON.stringify(cloudEventOf(event))).join("\n");
  const text = execFileSync("python3", [RECOUNT], { input, encoding: "utf8", maxBuffer: OUTPUT_BYTES_MAX });
  return text.trimEnd().split("\n").sort();
}

/** What the rollups hold. */
export async function storedTotals(analytics: AnalyticsStore): Promise<string[]> {
  const rows = await analytics.select<{ line: string }>(
    `SELECT concat(customer, ',', meter, ',', formatDateTime(toStartOfHour(windowStart), '%Y-%m-%dT%H:00:00Z', 'UTC'), ',',
       toString(sum(sumQty))) AS line
     FROM usage GROUP BY customer, meter, toStartOfHour(windowStart)`,
  );
  return rows.map((row) => row.line).sort();
}

/** Ids of the counted usage events, and those that stand there more than once. */
export async function countedIds(analytics: AnalyticsStore): Promise<{ ids: Set<string>; repeated: string[] }> {
  const rows = await analytics.select<{ id: string; copies: string }>(
    "SELECT id, toString(count()) AS copies FROM raw_events FINAL WHERE status = 'counted' GROUP BY id",
  );
  return {
    ids: new Set(rows.map(({ id }) => id)),
    repeated: rows.filter(({ copies }) => copies !== "1").map(({ id }) => id),
  };
}

/** `/_emulator/truth`, as far as it is read here. */
export interface EmulatorTruth {
  readonly customers: readonly { readonly id: string; readonly metadata: Readonly<Record<string, string>> }[];
  readonly events: readonly {
    readonly event_name: string;
    readonly customer: string;
    readonly value: string;
    readonly timestamp: number;
    readonly fate: string;
  }[];
}

/** Everything the emulator was sent and what became of it. */
export async function readTruth(emulatorUrl: string): Promise<EmulatorTruth> {
  return (await (await fetch(`${emulatorUrl}/_emulator/truth`)).json()) as EmulatorTruth;
}

/** Every meter event that the emulator counted. */
export function emulatorTotals(truth: EmulatorTruth): string[] {
  const names = new Map(truth.customers.map(({ id, metadata }) => [id, metadata["tallyhouse_customer"] ?? id]));
  const totals = new Map<string, bigint>();
  for (const { event_name, customer, value, timestamp, fate } of truth.events) {
    if (fate !== "counted") continue;
    const meter = event_name.replace(/^th_/, "").replace(/_v\d+$/, "");
    const key = `${names.get(customer)},${meter},${formatInstant(floorTo(timestamp * 1_000, HOUR_MS))}`;
    totals.set(key, (totals.get(key) ?? 0n) + (parseQuantity(value) ?? 0n));
  }
  return [...totals].map(([key, total]) => `${key},${formatQuantity(total)}`).sort();
}
