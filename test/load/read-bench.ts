/** Asks about stored usage the way callers do, and measures. */
import type { AnalyticsStore, ControlStore } from "@tallyhouse/domain";
import { assert } from "@tallyhouse/domain";
import { buildConsole, ConsoleConfigSchema } from "@tallyhouse/console";
import { createLogger, createMetrics } from "@tallyhouse/runtime";
import { MemoryLog } from "@tallyhouse/testkit";
import { readSealedTotals } from "@tallyhouse/usage";
import { quantile } from "./options.ts";
import {
  customerName,
  LARGEST_CUSTOMER,
  MONTH_DAYS,
  MONTH_METERS,
  MONTH_STREAM,
  type StoredMonth,
} from "./stored-usage.ts";

const TOKEN = "svc_live_th_benchbenchbenchbench";
const DAY_MS = 86_400_000;

/** What is asked, each `asks` times. */
export const QUESTIONS = ["month by hour", "largest customer by hour", "bill", "top customers"] as const;
export type Question = (typeof QUESTIONS)[number];

/** Milliseconds of one question, and what the engine took of it. */
export interface Timing {
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly engineP50Ms: number;
  readonly selects: number;
}

/** A console over stored usage, listening on loopback. */
export interface ReadBench {
  ask(question: Question, asks: number): Promise<Timing>;
  close(): Promise<void>;
}

/** Counts the SELECTs of one question, and their time. */
function watched(analytics: AnalyticsStore): { store: AnalyticsStore; take(): { ms: number; selects: number } } {
  let ms = 0;
  let selects = 0;
  return {
    store: {
      ...analytics,
      async select<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]> {
        const startedAt = performance.now();
        const rows = await analytics.select<Row>(sql, params);
        ms += performance.now() - startedAt;
        selects += 1;
        return rows;
      },
    },
    take() {
      const taken = { ms, selects };
      ms = 0;
      selects = 0;
      return taken;
    },
  };
}

/** Builds the console's own HTTP application over the stores. Answers without the usage that was stored fail the run. */
export async function openReadBench(
  stores: { readonly analytics: AnalyticsStore; readonly control: ControlStore },
  month: StoredMonth,
): Promise<ReadBench> {
  const watch = watched(stores.analytics);
  const { store: analytics } = watch;
  const clock = { now: () => month.fromAt + MONTH_DAYS * DAY_MS };
  const { app } = await buildConsole(
    {
      ...ConsoleConfigSchema.parse({}),
      stream: MONTH_STREAM,
      controlKey: { name: "bench", secret: Buffer.from(TOKEN) },
    },
    {
      analytics,
      control: stores.control,
      log: new MemoryLog({ partitionCount: MONTH_STREAM.partitionCount, clock }),
      authenticator: { verify: (token) => Promise.resolve(token === TOKEN ? { mode: "live" } : null) },
      clock,
      logger: createLogger({ level: "error", name: "bench" }),
      metrics: createMetrics(),
    },
  );
  const url = await app.listen({ host: "127.0.0.1", port: 0 });
  const span = `from=${new Date(month.fromAt).toISOString()}&to=${new Date(clock.now()).toISOString()}`;
  const get = async (path: string): Promise<void> => {
    const answer = await fetch(`${url}${path}&${span}`, { headers: { authorization: `Bearer ${TOKEN}` } });
    const { data = [] } = (await answer.json()) as { data?: readonly unknown[] };
    assert(answer.status === 200 && data.length > 0, `an answer with usage: ${answer.status} ${path}`);
  };
  const byHour = (customer: string): Promise<void> =>
    get(`/v1/usage?customer=${customer}&meter=${MONTH_METERS[0]?.meter ?? ""}&window=hour`);
  const asked: Record<Question, (customer: string) => Promise<void>> = {
    "month by hour": byHour,
    "largest customer by hour": () => byHour(LARGEST_CUSTOMER),
    bill: async (customer) => {
      for (const { meter } of MONTH_METERS) {
        const question = { mode: "live", customer, meter, version: 1, groupBy: [] } as const;
        const cutAt = month.fromAt + (MONTH_DAYS - 1) * DAY_MS;
        const reading = await readSealedTotals(analytics, MONTH_STREAM, {
          ...question,
          fromAt: month.fromAt,
          toAt: cutAt,
          cutAt,
        });
        assert(reading.kind === "totals", `a sealed month: ${reading.kind}`);
      }
    },
    "top customers": () => get(`/v1/usage/customers?meter=${MONTH_METERS[0]?.meter ?? ""}&limit=10`),
  };
  let turn = 0;
  return {
    async ask(question, asks) {
      const allMs: number[] = [];
      const engineMs: number[] = [];
      let selects = 0;
      for (let n = 0; n < asks; n += 1) {
        turn += 1;
        // A prime step through all customers but the largest, of whom every one has usage: the smaller numbers only have more.
        const customer = customerName(1 + ((turn * 7_919) % (month.customers - 1)));
        watch.take();
        const startedAt = performance.now();
        await asked[question](customer);
        allMs.push(performance.now() - startedAt);
        const engine = watch.take();
        engineMs.push(engine.ms);
        selects = engine.selects;
      }
      allMs.sort((a, b) => a - b);
      engineMs.sort((a, b) => a - b);
      const round = (ms: number): number => Number(ms.toFixed(1));
      return {
        p50Ms: round(quantile(allMs, 0.5)),
        p95Ms: round(quantile(allMs, 0.95)),
        engineP50Ms: round(quantile(engineMs, 0.5)),
        selects,
      };
    },
    close: async () => app.close(),
  };
}
