import { monitorEventLoopDelay } from "node:perf_hooks";
import { TallyhouseError } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { afterEach, expect, test } from "vitest";
import { createTestLog, listen, LIVE, NATIVE, startGateway, type TestLog } from "./test-gateway.ts";

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

const LANES = 30;
const INFLIGHT_BYTES_MAX = 40_000;
/** Some 2 kB a request: 30 lanes want 60 kB, more than may be in flight. */
const EVENTS = 20;

interface Answer {
  readonly ids: readonly string[];
  readonly status: number;
  readonly code: string;
  readonly tookMs: number;
  readonly retryAfter: string | null;
}

/** Lanes that post one request after the other, each a new one as soon as the last was answered. */
function startLoad(port: number): { answers: Answer[]; stop: () => Promise<void> } {
  const answers: Answer[] = [];
  const over = new AbortController();
  const lane = async (name: number): Promise<void> => {
    for (let n = 0; !over.signal.aborted; n += 1) {
      const ids = Array.from({ length: EVENTS }, (_, e) => `${name}-${n}-${e}`);
      const startedAt = performance.now();
      const answer = await fetch(`http://127.0.0.1:${port}/v1/events`, {
        method: "POST",
        headers: { authorization: `Bearer ${LIVE}`, "content-type": "application/x-ndjson" },
        body: ids.map((id) => JSON.stringify({ ...NATIVE, id })).join("\n"),
      });
      const { code = "" } = (await answer.json()) as { code?: string };
      const tookMs = performance.now() - startedAt;
      answers.push({ ids, status: answer.status, code, tookMs, retryAfter: answer.headers.get("retry-after") });
      // time passes here: a caller that is told to wait does, if only for a quarter of what it is told.
      if (answer.status === 503) await pause(250);
    }
  };
  const lanes = Promise.all(Array.from({ length: LANES }, (_, name) => lane(name)));
  return {
    answers,
    stop: async () => {
      over.abort();
      await lanes;
    },
  };
}

const inflightOf = async (metrics: { metrics(): Promise<string> }): Promise<number> =>
  Number(/tallyhouse_gateway_inflight_bytes (\d+)/.exec(await metrics.metrics())?.[1]);

/** What an outage does to the appends that come meanwhile, and how they end when it is over. */
test.each<[string, (log: TestLog) => () => void]>([
  ["does not answer and then stores", (log) => holdAppends(log, (keep) => keep())],
  [
    "does not answer and then refuses",
    (log) =>
      holdAppends(log, () => {
        throw new TallyhouseError({ code: "LOG_UNAVAILABLE", action: "retry", message: "expired" });
      }),
  ],
])(
  "G1 a log that %s, under load: 503 within 5 s, bytes in flight bounded, full rate after it, nothing accepted lost",
  async (_name, stopLog) => {
    const log = createTestLog();
    const { app, metrics } = await startGateway(
      { INFLIGHT_BYTES_MAX, INFLATED_BYTES_MAX: 10_000, BODY_BYTES_MAX: 10_000 },
      { log },
    );
    closers.push(() => app.close());
    const load = startLoad(await listen(app));
    await until(() => load.answers.length > 200);
    const rssBefore = process.memoryUsage.rss();
    const before = load.answers.length;
    const stalls = monitorEventLoopDelay({ resolution: 20 });
    stalls.enable();
    const bringBack = stopLog(log);
    let inflightMax = 0;
    // The answers show how long the gateway waits: those of its own deadline, and many that were refused at once meanwhile.
    await until(
      async () => {
        inflightMax = Math.max(inflightMax, await inflightOf(metrics));
        return load.answers.slice(before).filter(({ code }) => code === "LOG_UNAVAILABLE").length >= 10;
      },
      { timeoutMs: 20_000 },
    );
    const during = load.answers.slice(before).filter(({ status }) => status !== 202);
    const rssAfter = process.memoryUsage.rss();
    stalls.disable();
    bringBack();
    const back = load.answers.length;
    await until(() => load.answers.slice(back).filter(({ status }) => status === 202).length > 500);
    await load.stop();

    expect(new Set(during.map(({ status }) => status))).toEqual(new Set([503]));
    expect(new Set(during.map(({ code }) => code))).toEqual(new Set(["LOG_UNAVAILABLE", "GATEWAY_OVERLOADED"]));
    expect(during.filter(({ retryAfter }) => !/^[1-9]\d*$/.test(retryAfter ?? ""))).toEqual([]);
    // A machine that stands still, as one that runs other tests beside this does, is not the gateway's doing.
    expect(Math.max(...during.map(({ tookMs }) => tookMs))).toBeLessThan(5_000 + stalls.max / 1e6);
    expect(inflightMax).toBeGreaterThan(INFLIGHT_BYTES_MAX / 2);
    expect(inflightMax).toBeLessThanOrEqual(INFLIGHT_BYTES_MAX);
    expect(rssAfter - rssBefore).toBeLessThan(200_000_000);
    // Full rate: once what was in flight has been given back, nobody is refused any more.
    expect(new Set(load.answers.slice(-200).map(({ status }) => status))).toEqual(new Set([202]));
    expect(await inflightOf(metrics)).toBe(0);
    const appended = new Set(log.records.map(({ key }) => key?.toString().split("/")[3]));
    const accepted = load.answers.filter(({ status }) => status === 202).flatMap(({ ids }) => ids);
    expect(accepted.length).toBeGreaterThan(500 * EVENTS);
    expect(accepted.filter((id) => !appended.has(id))).toEqual([]);
  },
);

/** From now on appends wait; the function returned ends them all by `end`, and later ones are stored as before. */
function holdAppends(log: TestLog, end: (keep: () => void) => void): () => void {
  const { onAppend } = log;
  const { promise: isBack, resolve: bringBack } = Promise.withResolvers<void>();
  log.onAppend = async (_records, keep) => {
    await isBack;
    end(keep);
  };
  return () => {
    log.onAppend = onAppend;
    bringBack();
  };
}
