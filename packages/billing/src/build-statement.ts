/** Makes statements of what was counted. Pure: one document for one set of facts, so a crash repeats it to the letter. */
import {
  assert,
  formatInstant,
  formatQuantity,
  type Mode,
  parseInstant,
  type Quantity,
  quantityFromScaled,
  ZERO_QUANTITY,
} from "@tallyhouse/domain";
import type { BillingPeriod, Interval } from "@tallyhouse/plans";
import {
  amountOfMinor,
  type BillLine,
  type DecimalText,
  minorOfAmount,
  rateBill,
  type RatedPlan,
} from "@tallyhouse/pricing";
import { quantityOfDecimal } from "@tallyhouse/usage";
import {
  type LineDifference,
  type LineFigures,
  type StatementDifference,
  type StatementDocument,
  statementId,
  type StatementRule,
} from "./statement.ts";
import type { StoredStatement } from "./statement-store.ts";

/** What was counted for one item of a plan, and the usage events that it was made of. */
export interface ItemCount {
  readonly item: string;
  readonly quantity: Quantity;
  readonly credits?: Quantity;
  readonly events: number;
  readonly eventsDigest: string;
}

/** What a statement says of a period, before it is rated. Instants are epoch milliseconds. */
export interface StatementFacts {
  readonly mode: Mode;
  readonly customer: string;
  readonly period: Pick<BillingPeriod, "startAt" | "endAt" | "anchorAt" | "isCutShort"> & {
    readonly interval: Interval;
  };
  readonly closing: StatementDocument["closing"];
  readonly cutAt: number;
  readonly versionVector: StatementDocument["versionVector"];
  readonly plan: RatedPlan;
  readonly rules: readonly StatementRule[];
  /** One per item, in the order of the plan. */
  readonly items: readonly ItemCount[];
}

/** The statement of a period: seq 0. */
export function buildStatement(facts: StatementFacts): StatementDocument {
  return documentOf(facts, { seq: 0, previous: null, difference: () => null, reason: null, actor: null });
}

/**
 * The adjustment that follows a statement of the same period: the period stated anew, and the difference. Its differences and those
 * before it add up to the newest figures, because each is the difference of two of them.
 * @returns null when no quantity and no amount differs.
 */
export function buildAdjustment(
  facts: StatementFacts,
  after: { readonly previous: StoredStatement; readonly reason: string | null; readonly actor: string | null },
): StatementDocument | null {
  const { document: before, digest } = after.previous;
  assert(
    before.mode === facts.mode &&
      before.customer === facts.customer &&
      parseInstant(before.period.start) === facts.period.startAt &&
      parseInstant(before.period.end) === facts.period.endAt &&
      before.plan.currency === facts.plan.currency,
    "an adjustment is of the same period and currency",
  );
  const document = documentOf(facts, {
    seq: before.seq + 1,
    previous: { id: before.id, digest },
    difference: (figures) => differenceOf(before, { ...figures, currency: facts.plan.currency }),
    reason: after.reason,
    actor: after.actor,
  });
  return document.difference === null ? null : document;
}

interface Chain extends Pick<StatementDocument, "seq" | "previous" | "reason" | "actor"> {
  readonly difference: (rated: Pick<StatementDocument, "lines" | "totalMinor">) => StatementDifference | null;
}

function documentOf(facts: StatementFacts, { difference, ...chain }: Chain): StatementDocument {
  const { mode, customer, period, closing, cutAt, versionVector, plan, rules, items } = facts;
  const totals = items.map(({ item, quantity, credits = ZERO_QUANTITY }) => ({ item, quantity, credits }));
  const { startAt, endAt } = period;
  const { lines, total, totalMinor } = rateBill(plan, totals, { startAt, endAt });
  return {
    schema: "tallyhouse.statement/1",
    id: statementId({ mode, customer, periodStartAt: period.startAt, seq: chain.seq }),
    mode,
    customer,
    ...chain,
    period: {
      start: formatInstant(period.startAt),
      end: formatInstant(period.endAt),
      anchor: formatInstant(period.anchorAt),
      interval: period.interval,
      isCutShort: period.isCutShort,
    },
    closing,
    cut: formatInstant(cutAt),
    versionVector,
    plan,
    rules,
    totals: items.map(({ item, quantity, credits = ZERO_QUANTITY, events, eventsDigest }) => ({
      item,
      quantity: formatQuantity(quantity),
      credits: formatQuantity(credits),
      events,
      eventsDigest,
    })),
    lines,
    total,
    totalMinor,
    difference: difference({ lines, totalMinor }),
  };
}

function differenceOf(
  before: StatementDocument,
  after: Pick<StatementDocument, "lines" | "totalMinor"> & { readonly currency: string },
): StatementDifference | null {
  const { currency } = after;
  const olds = new Map(before.lines.map((line) => [line.key, line]));
  const news = new Set(after.lines.map(({ key }) => key));
  const pairs = [
    ...after.lines.map((line) => ({ key: line.key, before: olds.get(line.key) ?? null, after: line })),
    ...before.lines.filter(({ key }) => !news.has(key)).map((line) => ({ key: line.key, before: line, after: null })),
  ];
  const lines = pairs.map((pair) => lineDifference(pair, currency)).filter(isDifferent);
  if (lines.length === 0) return null;
  const minor = BigInt(after.totalMinor) - BigInt(before.totalMinor);
  return { lines, total: amountOfMinor(minor, currency), totalMinor: minor.toString() };
}

function lineDifference(
  pair: { readonly key: string; readonly before: BillLine | null; readonly after: BillLine | null },
  currency: string,
): LineDifference {
  const before = figuresOf(pair.before);
  const after = figuresOf(pair.after);
  const quantityLess = (name: "quantity" | "billable"): DecimalText => {
    const [newer, older] = [after, before].map((figures) => quantityOfDecimal(figures?.[name] ?? "0"));
    return formatQuantity(quantityFromScaled((newer ?? 0n) - (older ?? 0n)));
  };
  const minor = (figures: LineFigures | null): bigint =>
    figures === null ? 0n : minorOfAmount(figures.amount, currency);
  const amount = amountOfMinor(minor(after) - minor(before), currency);
  const difference = { quantity: quantityLess("quantity"), billable: quantityLess("billable"), amount };
  return { key: pair.key, before, after, difference };
}

function figuresOf(line: BillLine | null): LineFigures | null {
  return line === null ? null : { quantity: line.quantity, billable: line.billable, amount: line.amount };
}

function isDifferent({ difference: { quantity, billable, amount } }: LineDifference): boolean {
  return quantity !== "0" || billable !== "0" || /[1-9]/.test(amount);
}

/** The parts of a rated plan's name, such as `pro@3+2`. */
export interface PlanName {
  readonly key: string;
  readonly version: number;
  readonly contractVersion: number | null;
}

/** Takes the name of a rated plan apart. */
export function planNameOf(plan: string): PlanName {
  const match = /^(.+)@(\d+)(?:\+(\d+))?$/.exec(plan);
  assert(match !== null, `no name of a plan version: ${plan}`);
  const [, key = "", version, contractVersion] = match;
  return {
    key,
    version: Number(version),
    contractVersion: contractVersion === undefined ? null : Number(contractVersion),
  };
}
