/** Usage that no plan covers: found in each round, listed for the operator until a plan covers it. */
import { type AnalyticsStore, type ControlStore, floorTo, type Mode } from "@tallyhouse/domain";
import { Gauge, type Registry } from "@tallyhouse/runtime";
import { sqlInstant } from "../ledger-row.ts";
import type { UsageTotals } from "../usage-totals.ts";
import { addUnbilled, countUnbilled, gapsOf, replaceUnbilled, staleCustomers, type Stretch } from "./gaps.ts";
import { changedCustomers, usageInGaps } from "./usage-spans.ts";

const MODES: readonly Mode[] = ["live", "test"];
/** Customers recounted at once: all of their usage is read. */
const RECOUNT_MAX = 500;
/** All of time, as far as usage can have occurred. */
const EVER = { firstAt: 0, lastAt: Date.UTC(2106, 0, 1) };

/** Keeps the list of unbilled usage. */
export interface Unbilled {
  /**
   * Looks at all usage that was booked since the last look, in both modes, with or without a Stripe key: what lies in a time without a
   * plan joins the list. What a plan covers since then leaves it, and so does usage that was taken back.
   *
   * Where the next look begins is stored last: stored first, a crash would pass by what was not listed yet. Safe to repeat.
   * @throws {TallyhouseError} STORE_UNAVAILABLE (retry); the next look goes on.
   */
  look(watermarkAt: number): Promise<void>;
}

interface Parts {
  readonly analytics: AnalyticsStore;
  readonly control: ControlStore;
  readonly totals: Pick<UsageTotals, "backfillingSince">;
  readonly metrics: Registry;
  readonly bookingWindowMs: number;
}

export function createUnbilled(parts: Parts): Unbilled {
  const gauge = new Gauge({
    name: "tallyhouse_reporter_unbilled_customers",
    help: "Customers with usage that no plan covers, by reason: nobody created them, or they had no plan then",
    labelNames: ["mode", "reason"],
    registers: [parts.metrics],
  });
  return {
    async look(watermarkAt) {
      // Before any usage is read: a backfill that ends in between has its rows read below.
      const backfillingSince = await parts.totals.backfillingSince();
      const lookedUntilAt = floorTo(Math.min(watermarkAt, backfillingSince ?? watermarkAt), parts.bookingWindowMs);
      for (const mode of MODES) {
        await lookAt(parts, { mode, lookedUntilAt });
        for (const [reason, count] of Object.entries(await countUnbilled(parts.control, mode)))
          gauge.set({ mode, reason }, count);
      }
    },
  };
}

async function lookAt(
  parts: Parts,
  { mode, lookedUntilAt }: { readonly mode: Mode; readonly lookedUntilAt: number },
): Promise<void> {
  const { analytics, control } = parts;
  const [state] = await control.query<{ changed_since: Date }>(
    "SELECT changed_since FROM unbilled_state WHERE mode = $1",
    [mode],
  );
  const sinceAt = state?.changed_since.getTime() ?? 0;
  for (let after: string | null = ""; after !== null;) {
    const page: Awaited<ReturnType<typeof changedCustomers>> = await changedCustomers(analytics, {
      mode,
      sinceAt,
      after,
    });
    const { changed } = page;
    const gaps = await gapsOf(control, { mode, stretches: changed.filter(({ hasVoids }) => !hasVoids) });
    await addUnbilled(control, { mode, found: await usageInGaps(analytics, { mode, gaps, sinceAt }) });
    await recount(
      parts,
      mode,
      changed.filter(({ hasVoids }) => hasVoids).map(({ customerId }) => customerId),
    );
    after = page.next;
  }
  await recountStale(parts, mode);
  if (lookedUntilAt <= sinceAt) return;
  await control.query(
    `INSERT INTO unbilled_state (mode, changed_since) VALUES ($1, $2::timestamptz)
     ON CONFLICT (mode) DO UPDATE SET changed_since = excluded.changed_since`,
    [mode, sqlInstant(lookedUntilAt)],
  );
}

/** Assignments were decided since the rows were written: what is listed is counted anew. Each customer once in a look. */
async function recountStale(parts: Parts, mode: Mode): Promise<void> {
  for (let after = ""; ;) {
    const stale = await staleCustomers(parts.control, { mode, after, limit: RECOUNT_MAX });
    await recount(parts, mode, stale);
    const last = stale.at(-1);
    if (last === undefined || stale.length < RECOUNT_MAX) return;
    after = last;
  }
}

/** Lists of these customers what counts now, and nothing else. */
async function recount({ analytics, control }: Parts, mode: Mode, customers: readonly string[]): Promise<void> {
  for (let from = 0; from < customers.length; from += RECOUNT_MAX) {
    const some = customers.slice(from, from + RECOUNT_MAX);
    const stretches = some.map((customerId): Stretch => ({ customerId, ...EVER }));
    const gaps = await gapsOf(control, { mode, stretches });
    const found = await usageInGaps(analytics, { mode, gaps, sinceAt: null });
    await replaceUnbilled(control, { mode, customers: some, found });
  }
}
