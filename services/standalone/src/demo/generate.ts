import { readFileSync } from "node:fs";
import { DAY_MS, floorTo, formatInstant, HOUR_MS, MINUTE_MS } from "@tallyhouse/domain";
import { type DemoEvent, type ExpectedTotal, seededRandom, type Workload } from "./workload.ts";

const CUSTOMERS = 50;
const METERS_FILE = new URL("../../../../examples/meters.yaml", import.meta.url);
const MODELS = ["small", "large", "reasoning"] as const;

/**
 * One seeded day of LLM usage that ended yesterday at midnight UTC: 50 customers of very different size, a quiet night and a
 * busy afternoon, log-normal token counts. The totals are added up here, beside the events, by nothing but integer sums.
 */
export function generateDay(options: { seed: number; nowAt: number; events: number }): Workload {
  const random = seededRandom(options.seed);
  const dayAt = floorTo(options.nowAt, DAY_MS) - DAY_MS;
  const weights = Array.from({ length: CUSTOMERS }, (_, i) => 1 / (i + 1) ** 0.7);
  const totals = new Map<string, { customer: string; meter: string; startAt: number; quantity: bigint }>();
  const add = (customer: string, meter: string, at: number, quantity: bigint): void => {
    const startAt = floorTo(at, HOUR_MS);
    const key = `${customer} ${meter} ${startAt}`;
    const total = totals.get(key);
    if (total === undefined) totals.set(key, { customer, meter, startAt, quantity });
    else total.quantity += quantity;
  };
  const events: DemoEvent[] = [];
  for (let n = 1; n <= options.events; n += 1) {
    const customer = `cust-${String(pickWeighted(weights, random)).padStart(2, "0")}`;
    const at = dayAt + minuteOfDay(random) * MINUTE_MS + Math.floor(random() * MINUTE_MS);
    const inputTokens = logNormal(random, { median: 600, spread: 1.1, max: 128_000 });
    const outputTokens = logNormal(random, { median: 180, spread: 0.9, max: 16_000 });
    const model = MODELS[pickWeighted([6, 3, 1], random)] ?? "small";
    events.push({
      id: `demo-${options.seed}-${n}`,
      source: "demo/llm",
      customer,
      type: "llm.request",
      time: formatInstant(at),
      data: { inputTokens, outputTokens, model },
    });
    add(customer, "llm_requests", at, 1n);
    add(customer, "input_tokens", at, BigInt(inputTokens));
    add(customer, "output_tokens", at, BigInt(outputTokens));
  }
  const expected: ExpectedTotal[] = [...totals.values()];
  return {
    title: `a generated day, seed ${options.seed}`,
    metersFile: readFileSync(METERS_FILE, "utf8"),
    events,
    expected,
    span: "hour",
  };
}

function pickWeighted(weights: readonly number[], random: () => number): number {
  let rest = random() * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [index, weight] of weights.entries()) {
    rest -= weight;
    if (rest < 0) return index;
  }
  return weights.length - 1;
}

/** More calls in the afternoon than at night: rejection against a raised cosine with its top at 15:00. */
function minuteOfDay(random: () => number): number {
  for (;;) {
    const minute = Math.floor(random() * 1_440);
    const busy = 0.55 + 0.45 * Math.cos(((minute - 900) / 1_440) * 2 * Math.PI);
    if (random() < busy) return minute;
  }
}

function logNormal(random: () => number, shape: { median: number; spread: number; max: number }): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Math.max(1, Math.min(shape.max, Math.round(shape.median * Math.exp(shape.spread * normal))));
}
