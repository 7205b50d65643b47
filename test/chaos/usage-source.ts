/**
 * The usage events of a chaos run. Each is a function of (seed, number) alone, so that millions need no memory and a later
 * run can make the same ones; the totals are added up here, beside the events, by a plain map and nothing of the product.
 */
import { formatInstant, HOUR_MS, WINDOW_MS } from "@tallyhouse/domain";

const CUSTOMERS = 12;
const CALLERS = 40;
const MODELS = ["small", "large"] as const;
const FRESH_HOURS = 4;
/** 1 % of the usage events, in this many hours of the last 30 days. */
const LATE_SHARE = 0.01;
const LATE_HOURS = 24;
const LATE_DAYS_MAX = 30;
const TOKENS_MAX = 4_000;
/** The cost of one event is below 0.01, in units of 0.000000001. */
const COST_UNITS_MAX = 10_000_000;
const COST_DIGITS = 9;
/** What a replacement claims more. */
const ADDED_TOKENS = 7;

/** One usage event, before it becomes JSON. */
export interface ChaosUsage {
  readonly id: string;
  readonly customer: string;
  readonly at: number;
  readonly model: string;
  readonly tokens: number;
  readonly costUnits: number;
  readonly caller: string;
}

/** A row of the totals as ClickHouse and the oracle both write it: customer,meter,window,dims,quantity. */
export type TotalLine = string;

export const SOURCE = "chaos";

/** What was corrected, by the number of the usage event. */
export type Corrected = ReadonlyMap<number, "void" | "replace">;

/** The usage that stands for the corrected one; null for a void. */
export function correctedUsage(usage: ChaosUsage, kind: "void" | "replace"): ChaosUsage | null {
  return kind === "void" ? null : { ...usage, tokens: usage.tokens + ADDED_TOKENS };
}

function dataOf({ tokens, costUnits, model, at, caller }: ChaosUsage): object {
  return { tokens, cost: `0.${String(costUnits).padStart(COST_DIGITS, "0")}`, model, at, caller };
}

/** Spreads (seed, number) over 32 bits; equal inputs, equal outputs. */
export function mixed(seed: number, number: number): number {
  let value = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0;
  value = Math.imul(value ^ (value >>> 16), 0x7feb352d);
  value = Math.imul(value ^ (value >>> 15), 0x846ca68b);
  return (value ^ (value >>> 16)) >>> 0;
}

function share(seed: number, number: number, salt: number): number {
  return mixed(seed + salt * 7_919, number) / 2 ** 32;
}

/** Usage of one world: `baseAt` is the full hour before which everything occurred. */
export class UsageSource {
  readonly #seed: number;
  readonly #baseAt: number;

  constructor(seed: number, baseAt: number) {
    this.#seed = seed;
    this.#baseAt = baseAt;
  }

  usage(number: number): ChaosUsage {
    const seed = this.#seed;
    return {
      id: `c${seed}-${number}`,
      customer: `cust-${Math.floor(share(seed, number, 1) * CUSTOMERS)}`,
      at: this.#occurredAt(number),
      model: MODELS[share(seed, number, 2) < 0.7 ? 0 : 1],
      tokens: 1 + Math.floor(share(seed, number, 3) * TOKENS_MAX),
      costUnits: 1 + Math.floor(share(seed, number, 4) * COST_UNITS_MAX),
      caller: `caller-${Math.floor(share(seed, number, 8) * CALLERS)}`,
    };
  }

  /** The CloudEvent's JSON; a changed one has the same identity and claims more. */
  text(number: number, isChanged = false): string {
    const usage = this.usage(number);
    const { id, customer, at } = usage;
    const data = isChanged
      ? { ...dataOf({ ...usage, tokens: usage.tokens + 1, costUnits: usage.costUnits + 1 }), changed: "yes" }
      : dataOf(usage);
    return `{"specversion":"1.0","id":"${id}","source":"${SOURCE}","subject":"${customer}","type":"llm.request","time":"${formatInstant(at)}","datacontenttype":"application/json","data":${JSON.stringify(data)}}`;
  }

  /** The native shape that replaces the usage event; what it leaves out stays as it was. */
  replacementText(number: number): string {
    const usage = correctedUsage(this.usage(number), "replace");
    return JSON.stringify({ type: "llm.request", data: { ...dataOf(usage ?? this.usage(number)), replaced: "yes" } });
  }

  #occurredAt(number: number): number {
    const moment = share(this.#seed, number, 5);
    if (share(this.#seed, number, 6) >= LATE_SHARE)
      return this.#baseAt - 1 - Math.floor(moment * FRESH_HOURS * HOUR_MS);
    const lateHour = Math.floor(share(this.#seed, number, 7) * LATE_HOURS);
    const hoursBack =
      FRESH_HOURS + 1 + Math.floor(((lateHour + 1) / LATE_HOURS) * (LATE_DAYS_MAX * 24 - FRESH_HOURS - 2));
    return this.#baseAt - hoursBack * HOUR_MS + Math.floor(moment * HOUR_MS);
  }

  /**
   * What the totals must be when the usage events [0, end) are counted, once each, but for what was corrected. A late meter
   * counts the tokens too, whenever it came.
   */
  totals(end: number, corrected: Corrected, lateMeters: readonly string[] = []): TotalLine[] {
    const totals = new Map<string, number>();
    const callers = new Map<string, Set<string>>();
    const merge = (key: string, value: number, join: (a: number, b: number) => number): void => {
      const before = totals.get(key);
      totals.set(key, before === undefined ? value : join(before, value));
    };
    for (let number = 0; number < end; number += 1) {
      const correction = corrected.get(number);
      const usage = correction === undefined ? this.usage(number) : correctedUsage(this.usage(number), correction);
      if (usage === null) continue;
      const { customer, at, model, tokens, costUnits, caller } = usage;
      const windowStart = (Math.floor(at / WINDOW_MS) * WINDOW_MS) / 1_000;
      // `requests`, `tokens` and late meters have the model as dimension; the others have none.
      merge(`${customer},requests,${windowStart},${model}`, 1, add);
      for (const meter of ["tokens", ...lateMeters]) merge(`${customer},${meter},${windowStart},${model}`, tokens, add);
      merge(`${customer},cost,${windowStart},`, costUnits, add);
      merge(`${customer},largest,${windowStart},`, tokens, Math.max);
      merge(`${customer},smallest,${windowStart},`, tokens, Math.min);
      merge(`${customer},newest,${windowStart},`, at, Math.max);
      const key = `${customer},callers,${windowStart},`;
      const seen = callers.get(key);
      if (seen === undefined) callers.set(key, new Set([caller]));
      else seen.add(caller);
    }
    for (const [key, seen] of callers) totals.set(key, seen.size);
    return [...totals].map(([key, total]) => `${key},${textOf(key, total)}`).sort();
  }
}

function add(a: number, b: number): number {
  return a + b;
}

/** As the engine writes a Decimal: no exponent, no trailing zeros. Costs are whole units of 0.000000001. */
function textOf(key: string, total: number): string {
  if (!Number.isSafeInteger(total)) throw new Error(`${key}: ${total} is beyond exact integers`);
  if (!key.includes(",cost,")) return String(total);
  const digits = String(total).padStart(COST_DIGITS + 1, "0");
  const fraction = digits.slice(-COST_DIGITS).replace(/0+$/, "");
  return `${digits.slice(0, -COST_DIGITS)}${fraction === "" ? "" : `.${fraction}`}`;
}
