/**
 * `npm run bench:visible`: from a 202 until `GET /v1/usage` shows it, under load. Each probe is one usage event of a customer of its
 * own, asked for again and again until its quantity is there; one probe at a time, so that the probes are no load themselves.
 */
import { Agent, request } from "node:http";
import { pause } from "@tallyhouse/runtime";
import { untilFolded } from "../support/pipeline-status.ts";
import { runBench } from "./bench-place.ts";
import { type BenchPipeline, startPipeline } from "./bench-pipeline.ts";
import { startLoadClient } from "./load-process.ts";
import { benchOptions, quantile, rounded } from "./options.ts";
import { microsecondsPerEvent, ProcessWatch } from "./processes.ts";
import { proveCounted } from "./proof.ts";

/** Between the starts of two looks. What a look takes comes on top, and both are stated. */
const POLL_MS = 5;
const VISIBLE_TIMEOUT_MS = 60_000;
/** Processes compile and fill their caches meanwhile: probes before are not counted. */
const WARM_UP_MS = 2_000;
/** Probes do not beat with the interval of the flushes. */
const PROBE_PAUSE_MAX_MS = 250;
const TAIL_TIMEOUT_MS = 300_000;
const TOKENS = 7;
const options = benchOptions({
  events: 0,
  seconds: 60,
  rate: 10_000,
  batch: 100,
  connections: 16,
  audit: ["full", "count"],
});

await runBench({ name: "visible", options, servers: ["kafka", "clickhouse", "postgres"] }, async (place) => {
  const pipeline = await startPipeline(place);
  const client = startLoadClient(pipeline, options, Date.now());
  place.onEnd(() => client.stop());
  await client.started;
  const watch = new ProcessWatch(pipeline.pids);
  const hasEnded = new AbortController();
  const loaded = client.ended.finally(() => hasEnded.abort());
  // Awaited below; a load that fails first must not end the process before everything is released.
  loaded.catch(() => undefined);
  const probes = await probe(pipeline, hasEnded.signal);
  const load = await loaded;
  const { cpuSeconds, memoryMegabytes } = watch.stop();
  await untilFolded(pipeline, TAIL_TIMEOUT_MS);
  const ports = await pipeline.openProof();
  const differences = await proveCounted(ports.analytics, {
    identities: load.identities + probes.sent,
    inputTokens: load.inputTokens + probes.sent * TOKENS,
    stored: load.refusals === 0 ? load.events + probes.sent : null,
  });
  if (options.audit === "full" && differences.length === 0) differences.push(...(await ports.audit()));
  const { visibleMs, lookMs } = probes;
  return {
    events: load.events,
    seconds: rounded(load.seconds, 2),
    loadEventsPerSecond: Math.round(load.events / load.seconds),
    probes: visibleMs.length,
    visibleP50Ms: Math.round(quantile(visibleMs, 0.5)),
    visibleP95Ms: Math.round(quantile(visibleMs, 0.95)),
    visibleP99Ms: Math.round(quantile(visibleMs, 0.99)),
    visibleMaxMs: Math.round(visibleMs.at(-1) ?? 0),
    lookP50Ms: rounded(quantile(lookMs, 0.5), 1),
    lookP99Ms: rounded(quantile(lookMs, 0.99), 1),
    pollMs: POLL_MS,
    warmUp: `${WARM_UP_MS / 1_000} s excluded`,
    eventsPerRequest: options.batch,
    requestP50Ms: load.requestP50Ms,
    requestP99Ms: load.requestP99Ms,
    repeatedRequests: load.refusals,
    cpuSeconds: { ...cpuSeconds, client: load.cpuSeconds },
    cpuMicrosecondsPerEvent: microsecondsPerEvent(cpuSeconds, load.events),
    memoryMegabytes,
    partitions: pipeline.partitions,
    engines: pipeline.engines,
    proof: `counts, sum${options.audit === "full" ? ", audit A1 to A8" : ""}`,
    isProven: differences.length === 0,
    differences,
  };
});

/** Sends probes until the load has ended. Times are sorted; those of the warm-up are left out. */
async function probe(
  pipeline: BenchPipeline,
  hasEnded: AbortSignal,
): Promise<{ sent: number; visibleMs: readonly number[]; lookMs: readonly number[] }> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const call = caller(pipeline, agent);
  const warmAt = performance.now() + WARM_UP_MS;
  const visibleMs: number[] = [];
  const lookMs: number[] = [];
  let sent = 0;
  for (; !hasEnded.aborted; sent += 1) {
    const customer = `cus_probe_${options.seed}_${sent}`;
    await send(call, customer);
    const acceptedAt = performance.now();
    for (;;) {
      const askedAt = performance.now();
      const { text } = await call({ path: `/v1/usage?customer=${customer}&meter=input_tokens&window=total` });
      const answeredAt = performance.now();
      if (answeredAt > warmAt) lookMs.push(answeredAt - askedAt);
      if (text.includes(`"quantity":"${TOKENS}"`)) {
        if (acceptedAt > warmAt) visibleMs.push(answeredAt - acceptedAt);
        break;
      }
      if (answeredAt - acceptedAt > VISIBLE_TIMEOUT_MS)
        throw new Error(`${customer} is not visible: ${text.slice(0, 300)}`);
      // time passes here: the resolution of the probe.
      await pause(Math.max(0, askedAt + POLL_MS - performance.now()));
    }
    // time passes here: the next probe meets another moment of the flush.
    await pause(Math.random() * PROBE_PAUSE_MAX_MS);
  }
  agent.destroy();
  return { sent, visibleMs: visibleMs.toSorted((a, b) => a - b), lookMs: lookMs.toSorted((a, b) => a - b) };
}

type Call = (what: { path: string; body?: string }) => Promise<{ status: number; text: string }>;

/** One usage event; a refusal is repeated, as a client does. */
async function send(call: Call, customer: string): Promise<void> {
  const body = JSON.stringify({
    id: customer,
    customer,
    type: "llm.request",
    data: { inputTokens: TOKENS, model: "small" },
  });
  const endsAt = performance.now() + VISIBLE_TIMEOUT_MS;
  for (;;) {
    const { status, text } = await call({ path: "/v1/events", body });
    if (status === 202) return;
    if (status !== 503 || performance.now() > endsAt)
      throw new Error(`the probe was refused: ${status} ${text.slice(0, 300)}`);
  }
}

function caller({ url, token }: BenchPipeline, agent: Agent): Call {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  return ({ path, body }) =>
    new Promise((resolve, reject) => {
      const method = body === undefined ? "GET" : "POST";
      const sent = request(new URL(path, url), { agent, method, headers }, (answer) => {
        let text = "";
        answer.setEncoding("utf8");
        answer.on("data", (chunk: string) => (text += chunk));
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text }));
        answer.on("error", reject);
      });
      sent.on("error", reject);
      sent.end(body);
    });
}
