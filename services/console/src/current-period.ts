/** The running period as a customer sees it: what was used, what it costs so far, what the plan's limits are. */
import { type Mode, formatInstant, formatQuantity, type Quantity, ZERO_QUANTITY } from "@tallyhouse/domain";
import { type BillingPorts, localDateOf, localDayOf, readDailyUsage, type RunningBill } from "@tallyhouse/billing";
import { contractedPlan, type Plan, type PlanItem } from "@tallyhouse/plans";
import type { MeterDefinition, Refusal, Zone } from "@tallyhouse/usage";

/** `ok` to 70 % of what is included, `warning` to 90, `critical` below 100, `over` from there; `ok` where nothing limits. */
export type QuotaLevel = "ok" | "warning" | "critical" | "over";

/** One item of the plan. Quantities are exact decimal text. */
interface QuotaLine {
  readonly item: string;
  readonly used: string;
  /** Units reserved for requests in flight; nothing reserves yet. */
  readonly reserved: "0";
  readonly included: string | null;
  readonly cap: string | null;
  /** Used of included, one decimal, cut; null where nothing is included. */
  readonly percent: string | null;
  readonly level: QuotaLevel;
  readonly policy: PlanItem["policy"];
}

/** The answer of `GET /v1/usage/current-period`. */
export interface CurrentPeriodAnswer {
  readonly currentPeriod: {
    readonly start: string;
    readonly end: string;
    readonly resetsAt: string;
    /** Of the plan's first item. */
    readonly totalUnits: string;
    readonly estimatedCost: { readonly amount: string; readonly currency: string };
    /** In minor units of the currency. */
    readonly estimatedCostCents: string;
    readonly items: readonly QuotaLine[];
    readonly dailyBreakdown: readonly { readonly date: string; readonly meter: string; readonly units: string }[];
  };
  readonly planLimits: { readonly plan: string } & Readonly<Record<string, unknown>>;
  /** Of the plan's first item. */
  readonly todayUnits: string;
  readonly asOf: string | null;
  readonly degraded: false;
}

/** The answer, or which items' usage cannot be read. */
export type CurrentPeriodReading =
  | { readonly kind: "answer"; readonly answer: CurrentPeriodAnswer }
  | { readonly kind: "refused"; readonly items: readonly string[]; readonly refusal: Refusal };

/**
 * Makes the answer of a running bill. Every figure holds what the log received before `asOf`, and may hold some of what came later.
 * @throws {TallyhouseError} STORE_UNAVAILABLE (retry).
 */
export async function readCurrentPeriod(
  ports: BillingPorts,
  input: { readonly running: RunningBill; readonly mode: Mode; readonly zone: Zone; readonly now: number },
): Promise<CurrentPeriodReading> {
  const { running, now } = input;
  const { period, bill, totals, watermarkAt } = running;
  const breakdown = await readBreakdown(ports, input);
  if (breakdown.kind === "refused") return breakdown;
  const today = await readToday(ports, input);
  if (today.kind === "refused") return today;
  const items = planItemsOf(period.plan);
  return {
    kind: "answer",
    answer: {
      currentPeriod: {
        start: formatInstant(period.startAt),
        end: formatInstant(period.endAt),
        resetsAt: formatInstant(period.endAt),
        totalUnits: formatQuantity(totals[0]?.quantity ?? ZERO_QUANTITY),
        estimatedCost: { amount: bill.total, currency: bill.currency },
        estimatedCostCents: bill.totalMinor,
        items: totals.flatMap(({ item, quantity }) => {
          const planItem = items[item];
          return planItem === undefined ? [] : [quotaLineOf(item, planItem, quantity)];
        }),
        dailyBreakdown: breakdown.days,
      },
      planLimits: planLimitsOf(running, now),
      todayUnits: formatQuantity(today.quantity),
      asOf: watermarkAt === null ? null : formatInstant(watermarkAt),
      degraded: false,
    },
  };
}

function planItemsOf({ items }: Plan): Readonly<Record<string, PlanItem>> {
  return items === "custom" ? {} : items;
}

function quotaLineOf(item: string, { included, cap, policy }: PlanItem, quantity: Quantity): QuotaLine {
  const used = formatQuantity(quantity);
  return { item, used, reserved: "0", included, cap, ...shareOf(quantity, included), policy };
}

const SCALE_DIGITS = 9;
const PER_MILLE = 1_000n;

/** Exact: in integers of one scale. */
function shareOf(quantity: Quantity, included: string | null): Pick<QuotaLine, "percent" | "level"> {
  if (included === null) return { percent: null, level: "ok" };
  const [integer = "0", fraction = ""] = included.split(".");
  const digits = Math.max(SCALE_DIGITS, fraction.length);
  const whole = BigInt(integer + fraction.padEnd(digits, "0"));
  const used = (quantity > 0n ? quantity : 0n) * 10n ** BigInt(digits - SCALE_DIGITS);
  if (whole === 0n) return { percent: null, level: used > 0n ? "over" : "ok" };
  // Cut, not rounded: 100.0 stands there only once it is reached.
  const perMille = (used * PER_MILLE) / whole;
  return { percent: `${perMille / 10n}.${perMille % 10n}`, level: levelOf(used, whole) };
}

function levelOf(used: bigint, whole: bigint): QuotaLevel {
  if (used >= whole) return "over";
  if (used * 100n > whole * 90n) return "critical";
  return used * 100n > whole * 70n ? "warning" : "ok";
}

/** Limits of the newest version, which act at once; money is rated by the period's own version. */
function planLimitsOf({ customer, period }: RunningBill, now: number): CurrentPeriodAnswer["planLimits"] {
  const key = period.version.key;
  const version =
    customer.history.versions.findLast((each) => each.key === key && each.createdAt <= now) ?? period.version;
  const contract = customer.history.contracts.findLast((each) => each.plan === key) ?? null;
  const { limits } = contractedPlan(version, contract);
  const plan = `${key}@${version.version}${contract === null ? "" : `+${contract.version}`}`;
  return limits === "custom" ? { plan } : { plan, ...limits };
}

type Input = Parameters<typeof readCurrentPeriod>[1];
type Refused = Extract<CurrentPeriodReading, { kind: "refused" }>;

/** Every meter of the plan, day by day up to today, whatever its items' filters. */
async function readBreakdown(
  ports: BillingPorts,
  { running, mode, zone, now }: Input,
): Promise<{ readonly kind: "days"; readonly days: CurrentPeriodAnswer["currentPeriod"]["dailyBreakdown"] } | Refused> {
  const { period, rated, customer } = running;
  const toAt = Math.min(period.endAt, localDayOf(zone, now).endAt);
  const days: { date: string; meter: string; units: string }[] = [];
  const meters = new Map(rated.items.map((item) => [item.meter, item]));
  for (const [meter, item] of meters) {
    const definition = definitionOf(running, item);
    if (definition === null) continue;
    const reading = await readDailyUsage(ports.analytics, {
      mode,
      customer: customer.customer,
      definition,
      where: {},
      zone,
      watermarkAt: running.watermarkAt,
      fromAt: period.startAt,
      toAt,
    });
    if (reading.kind === "refused") return { kind: "refused", items: [item.key], refusal: reading.refusal };
    for (const { date, quantity } of reading.days) days.push({ date, meter, units: formatQuantity(quantity) });
  }
  return { kind: "days", days: days.sort((a, b) => (a.date < b.date ? -1 : Number(a.date > b.date))) };
}

/** The first item's usage of the zone's day that holds now, as far as it lies in the period. */
async function readToday(
  ports: BillingPorts,
  { running, mode, zone, now }: Input,
): Promise<{ readonly kind: "today"; readonly quantity: Quantity } | Refused> {
  const [item] = running.rated.items;
  const definition = item === undefined ? null : definitionOf(running, item);
  if (item === undefined || definition === null) return { kind: "today", quantity: ZERO_QUANTITY };
  const day = localDayOf(zone, now);
  const reading = await readDailyUsage(ports.analytics, {
    mode,
    customer: running.customer.customer,
    definition,
    where: item.where,
    zone,
    watermarkAt: running.watermarkAt,
    fromAt: Math.max(day.startAt, running.period.startAt),
    toAt: Math.min(day.endAt, running.period.endAt),
  });
  if (reading.kind === "refused") return { kind: "refused", items: [item.key], refusal: reading.refusal };
  const today = localDateOf(zone, now);
  return { kind: "today", quantity: reading.days.find(({ date }) => date === today)?.quantity ?? ZERO_QUANTITY };
}

function definitionOf(
  { definitions }: RunningBill,
  { meter, meterVersion }: { readonly meter: string; readonly meterVersion: number },
): MeterDefinition | null {
  return definitions.find(({ version }) => version.meter === meter && version.version === meterVersion) ?? null;
}
