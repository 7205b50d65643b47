/** Rates closed periods anew and writes what changed as adjustments. */
import {
  buildAdjustment,
  readBillingState,
  readStatementsOfPeriod,
  type StatementDocument,
  type StoredStatement,
} from "@tallyhouse/billing";
import { parseInstant, TallyhouseError } from "@tallyhouse/domain";
import { ratedPlanOf } from "@tallyhouse/plans";
import type { RatedPlan } from "@tallyhouse/pricing";
import { cutOf, hasLateUsage } from "@tallyhouse/usage";
import type { CountedPart, SealingRound } from "./context.ts";
import { finishRerate, insertStatement, type WaitingRerate, waitingRerates } from "./statement-writes.ts";

/** Waiting periods read at once. */
const PAGE = 200;

/** `waits`: for the watermark, a backfill, or a reading that failed. */
type Outcome =
  | { readonly kind: "adjusted"; readonly document: StatementDocument }
  | { readonly kind: "unchanged" }
  | { readonly kind: "refused"; readonly refusal: string }
  | { readonly kind: "waits" };

/**
 * Goes once through everything of the round's mode that waits.
 * @param lookedToAt up to where late usage was looked for: the cut of adjustments that nobody asked for
 * @returns how many adjustments were written.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry): what was adjusted stays.
 */
export async function rerateWaiting(round: SealingRound, lookedToAt: number, signal: AbortSignal): Promise<number> {
  const { clock, control, logger, metrics } = round.ports;
  let afterId = "0";
  let adjusted = 0;
  let waiting = 0;
  for (;;) {
    const page = await waitingRerates(control, { mode: round.mode, afterId, limit: PAGE });
    for (const rerate of page) {
      if (signal.aborted) return adjusted;
      afterId = rerate.id;
      const outcome = await attempt(round, rerate, lookedToAt);
      if (outcome.kind === "waits") {
        waiting += 1;
        continue;
      }
      if (outcome.kind === "refused") logger.warn({ ...rerate, ...outcome }, "a closed period cannot be rated anew");
      const isNew = await control.transaction(async (tx) => {
        const at = clock.now();
        if (outcome.kind !== "adjusted") {
          await finishRerate(tx, { id: rerate.id, at, ...(outcome.kind === "refused" ? outcome : {}) });
          return false;
        }
        // Somebody else made the next number of this period: the row waits, and is rated against that one.
        if (!(await insertStatement(tx, outcome.document, at))) return false;
        await finishRerate(tx, { id: rerate.id, at, adjustmentId: outcome.document.id });
        return true;
      });
      if (isNew) {
        adjusted += 1;
        metrics.sealed({ mode: round.mode, kind: "adjustment" });
      }
    }
    if (page.length < PAGE) break;
  }
  metrics.waitingRerates(round.mode, waiting);
  return adjusted;
}

async function attempt(round: SealingRound, rerate: WaitingRerate, lookedToAt: number): Promise<Outcome> {
  try {
    return await rerateOne(round, rerate, lookedToAt);
  } catch (error) {
    if (error instanceof TallyhouseError && error.action === "retry") throw error;
    // A boundary: whatever is wrong with one period, the others are rated.
    round.ports.logger.error({ err: error, rerate }, "rating a closed period anew failed");
    return { kind: "waits" };
  }
}

async function rerateOne(round: SealingRound, rerate: WaitingRerate, lookedToAt: number): Promise<Outcome> {
  const { control, analytics } = round.ports;
  const { customer, periodStartAt } = rerate;
  const statements = await readStatementsOfPeriod(control, { mode: round.mode, customer, periodStartAt });
  const previous = statements.at(-1);
  if (previous === undefined) return { kind: "refused", refusal: "the period has no statement" };
  const { document } = previous;
  const knownAt = instantOf(document.cut);
  const isAsked = rerate.reason !== null;
  const cutAt = isAsked ? Math.max(knownAt, cutOf(round.sealed.watermarkAt, round.settings.stream)) : lookedToAt;
  const period = periodOf(document);
  if (!isAsked) {
    if (cutAt <= knownAt) return { kind: "unchanged" };
    const late = { mode: round.mode, customer, fromAt: period.startAt, toAt: period.endAt, meters: document.rules };
    if (!(await hasLateUsage(analytics, { ...late, sinceAt: knownAt, beforeAt: cutAt }))) return { kind: "unchanged" };
  }
  const wanted = await wantedPlan(round, rerate, document);
  if (wanted.kind === "refused") return wanted;
  const part = { customer, period, plan: wanted.plan, cutAt };
  if (isAsked && !isActivatedBefore(round, part)) return { kind: "waits" };
  return adjust(round, { part, previous, rerate });
}

async function adjust(
  round: SealingRound,
  of: { readonly part: CountedPart; readonly previous: StoredStatement; readonly rerate: WaitingRerate },
): Promise<Outcome> {
  const { part, previous, rerate } = of;
  const count = await round.count(part);
  if (count.kind === "open") return { kind: "waits" };
  if (count.kind === "refused") {
    // Asked for: the answer is no. Otherwise it stays waiting, where the metric shows it.
    if (rerate.reason !== null) return { kind: "refused", refusal: `${count.reason}: ${count.detail}` };
    round.ports.logger.error({ rerate, ...count }, "late usage of a closed period cannot be counted");
    return { kind: "waits" };
  }
  const { reason, actor } = rerate;
  const document = buildAdjustment(await round.facts(part, count), { previous, reason, actor });
  return document === null ? { kind: "unchanged" } : { kind: "adjusted", document };
}

/** The plan of the newest statement, or the one that was asked for with the customer's contract, with the meter versions asked for. */
async function wantedPlan(
  round: SealingRound,
  { customer, meterVersions, plan: asked }: WaitingRerate,
  document: StatementDocument,
): Promise<
  { readonly kind: "plan"; readonly plan: RatedPlan } | { readonly kind: "refused"; readonly refusal: string }
> {
  const plan = asked === null ? document.plan : await catalogued(round, { customer, asked, document });
  if (plan === null) return { kind: "refused", refusal: "there is no such plan version, or it needs a contract" };
  if (plan.currency !== document.plan.currency)
    return { kind: "refused", refusal: `the plan is in ${plan.currency}, the statement in ${document.plan.currency}` };
  const items = plan.items.map((item) => ({ ...item, meterVersion: meterVersions[item.meter] ?? item.meterVersion }));
  return { kind: "plan", plan: { ...plan, items } };
}

async function catalogued(
  round: SealingRound,
  of: {
    readonly customer: string;
    readonly asked: { readonly key: string; readonly version: number };
    readonly document: StatementDocument;
  },
): Promise<RatedPlan | null> {
  const { asked, customer } = of;
  const state = await readBillingState(round.ports.control, { mode: round.mode, customers: [customer] });
  const version = state.versions.find((one) => one.key === asked.key && one.version === asked.version);
  const startAt = periodOf(of.document).startAt;
  const contract =
    state.customers
      .get(customer)
      ?.history.contracts.filter((one) => one.plan === asked.key && one.effectiveAt <= startAt)
      .at(-1) ?? null;
  if (version === undefined) return null;
  if (contract === null && (version.plan.price === "custom" || version.plan.items === "custom")) return null;
  return ratedPlanOf(version, contract);
}

/** A cut in front of an activation would find nothing counted by it. */
function isActivatedBefore(round: SealingRound, { cutAt, plan }: CountedPart): boolean {
  return round.sealed.definitions
    .filter(({ version }) =>
      plan.items.some((item) => item.meter === version.meter && item.meterVersion === version.version),
    )
    .every(({ activatedAts }) => activatedAts.every((bookedAt) => bookedAt < cutAt));
}

function periodOf({ period }: StatementDocument): CountedPart["period"] {
  const { start, end, anchor, ...calendar } = period;
  return { startAt: instantOf(start), endAt: instantOf(end), anchorAt: instantOf(anchor), ...calendar };
}

function instantOf(text: string): number {
  return parseInstant(text) ?? Number.NaN;
}
