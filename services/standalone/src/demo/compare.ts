/** Three ledgers side by side: what was sent, what ClickHouse counted, what the billing provider holds. */
import {
  type AnalyticsStore,
  type ControlStore,
  DAY_MS,
  type EventLog,
  floorTo,
  HOUR_MS,
  type Mode,
  parseQuantity,
  type Quantity,
} from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { Stripe } from "stripe";
import type { ExpectedTotal, Workload } from "./workload.ts";

/** One line of the table; quantities as scaled bigints. */
export interface ComparedTotal {
  readonly customer: string;
  readonly meter: string;
  readonly startAt: number;
  readonly expected: bigint;
  readonly counted: bigint;
  readonly atStripe: bigint;
}

const SCALE = 10n ** 9n;
const READS_AT_ONCE = 16;
const POLL_MS = 200;

function keyOf(total: { customer: string; meter: string; startAt: number }): string {
  return `${total.customer}\n${total.meter}\n${total.startAt}`;
}

function quantityOf(text: string): Quantity {
  const quantity = parseQuantity(text);
  if (quantity === null) throw new Error(`no quantity: ${text}`);
  return quantity;
}

/** Totals per customer, meter and span as the rollups hold them. */
async function countedTotals(analytics: AnalyticsStore, mode: Mode, spanMs: number): Promise<Map<string, bigint>> {
  const rows = await analytics.select<{
    customer: string;
    meter: string;
    startSeconds: string | number;
    quantity: string;
  }>(
    `SELECT customer, meter, toUnixTimestamp(windowStart) - toUnixTimestamp(windowStart) % {spanSeconds:UInt32} AS startSeconds,
       toString(sum(sumQty)) AS quantity
     FROM usage WHERE mode = {mode:String} GROUP BY customer, meter, startSeconds`,
    { mode, spanSeconds: spanMs / 1_000 },
  );
  return new Map(
    rows.map(({ customer, meter, startSeconds, quantity }) => [
      keyOf({ customer, meter, startAt: Number(startSeconds) * 1_000 }),
      quantityOf(quantity),
    ]),
  );
}

/**
 * Waits until the whole log is folded and every counted unit stands in an accepted row of the ledger, or the time is up; the comparison then tells.
 * @param countedEvents how many usage events must be counted before the sums mean anything
 */
export async function waitForPipeline(input: {
  analytics: AnalyticsStore;
  control: ControlStore;
  log: EventLog;
  mode: Mode;
  countedEvents: number;
  timeoutMs: number;
  onProgress(state: { counted: number; reported: number }): void;
}): Promise<boolean> {
  const { analytics, control, log, mode } = input;
  const endsAt = performance.now() + input.timeoutMs;
  while (performance.now() < endsAt) {
    const endOffsets = await logEnd(log);
    const [progress] = await analytics.select<{ counted: string; nextOffsets: string }>(
      "SELECT toString(sum(counted)) AS counted, toString(sum(nextOffset)) AS nextOffsets FROM progress FINAL",
    );
    const isCaughtUp = Number(progress?.nextOffsets ?? 0) >= endOffsets;
    const counted = Number(progress?.counted ?? 0);
    const [ledger] = await control.query<{ reported: string; open: string; total: string }>(
      `SELECT count(*) AS reported, count(*) FILTER (WHERE state NOT IN ('accepted', 'confirmed')) AS open,
         coalesce(sum(quantity), 0)::text AS total
       FROM usage_report WHERE mode = $1`,
      [mode],
    );
    input.onProgress({ counted, reported: Number(ledger?.reported ?? 0) });
    if (isCaughtUp && counted >= input.countedEvents && Number(ledger?.open ?? 1) === 0) {
      const [sums] = await analytics.select<{ total: string }>(
        "SELECT toString(sum(sumQty)) AS total FROM usage WHERE mode = {mode:String}",
        { mode },
      );
      if (sums !== undefined && ledger !== undefined && quantityOf(sums.total) === quantityOf(ledger.total))
        return true;
    }
    await pause(POLL_MS);
  }
  return false;
}

/** Reads both sides and puts them beside the expected totals. A total missing on a side is 0 there. */
export async function compareTotals(input: {
  workload: Workload;
  analytics: AnalyticsStore;
  stripe: Stripe;
  mode: Mode;
}): Promise<ComparedTotal[]> {
  const { workload } = input;
  const spanMs = workload.span === "hour" ? HOUR_MS : DAY_MS;
  const counted = await countedTotals(input.analytics, input.mode, spanMs);
  const expected = new Map(workload.expected.map((total) => [keyOf(total), total.quantity * SCALE]));
  const atStripe = await stripeTotals(input.stripe, workload.span, workload.expected);
  const keys = [...new Set([...expected.keys(), ...counted.keys(), ...atStripe.keys()])].sort();
  return keys.map((key) => {
    const [customer = "", meter = "", startAt = ""] = key.split("\n");
    return {
      customer,
      meter,
      startAt: Number(startAt),
      expected: expected.get(key) ?? 0n,
      counted: counted.get(key) ?? 0n,
      atStripe: atStripe.get(key) ?? 0n,
    };
  });
}

/** Every event summary of every (customer, meter), by hour or day, read with the official client. */
async function stripeTotals(
  stripe: Stripe,
  span: "hour" | "day",
  expected: readonly ExpectedTotal[],
): Promise<Map<string, bigint>> {
  const startAt = floorTo(
    expected.reduce((least, total) => Math.min(least, total.startAt), Number.POSITIVE_INFINITY),
    DAY_MS,
  );
  const endAt =
    floorTo(
      expected.reduce((most, total) => Math.max(most, total.startAt), 0),
      DAY_MS,
    ) + DAY_MS;
  const meters = await stripe.billing.meters.list({ limit: 100 });
  const pairs: { meterId: string; meter: string; customerId: string; customer: string }[] = [];
  for await (const customer of stripe.customers.list({ limit: 100 })) {
    const name = customer.metadata["tallyhouse_customer"];
    if (name === undefined) continue;
    for (const meter of meters.data) {
      const key = /^th_(.+)_v\d+$/.exec(meter.event_name)?.[1] ?? meter.event_name;
      pairs.push({ meterId: meter.id, meter: key, customerId: customer.id, customer: name });
    }
  }
  const totals = new Map<string, bigint>();
  const next = pairs.values();
  const lane = async (): Promise<void> => {
    for (const pair of next) {
      const pages = stripe.billing.meters.listEventSummaries(pair.meterId, {
        customer: pair.customerId,
        start_time: startAt / 1_000,
        end_time: endAt / 1_000,
        value_grouping_window: span,
        limit: 100,
      });
      for await (const summary of pages) {
        const total = { customer: pair.customer, meter: pair.meter, startAt: summary.start_time * 1_000 };
        totals.set(keyOf(total), quantityOf(String(summary.aggregated_value)));
      }
    }
  };
  await Promise.all(Array.from({ length: READS_AT_ONCE }, lane));
  return totals;
}

/** Records in all partitions together. */
async function logEnd(log: EventLog): Promise<number> {
  const bounds = await Promise.all(Array.from({ length: log.partitionCount }, (_, partition) => log.bounds(partition)));
  return bounds.reduce((sum, { endOffset }) => sum + endOffset, 0);
}
