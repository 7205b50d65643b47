/**
 * The broker goes away under load and comes back: SECONDS (default 20) frozen, and killed, side by side, each with a broker and a
 * gateway of its own. The gateway is a process of its own; standalone, which also consumes, ends after 20 s without its broker and
 * is restarted by whoever runs it. Prints its figures.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureTopic } from "@tallyhouse/eventlog";
import { type LocalKafka, startKafka } from "@tallyhouse/infra/local/kafka.ts";
import { pause } from "@tallyhouse/runtime";
import { until } from "@tallyhouse/testkit";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Answer, sendSteadily, startGatewayProcess } from "./http-load.ts";
import { kafkaBrokers, startWorld, type Target } from "./world.ts";

kafkaBrokers();

const SECONDS = Number(process.env["SECONDS"] ?? 20);
const LOAD = { requestsPerSecond: 20, eventsPerRequest: 50 };
const PARTITION_COUNT = 16;
const TOLD_WITHIN_MS = 5_000;
const RECOVERED_WITHIN_MS = 10_000;
/** 64 MB of bodies in flight take some 400 MB (services/gateway/src/config.ts), beside some 150 MB of an idle process. */
const RESIDENT_BYTES_MAX = 600_000_000;
const BEFORE_MS = 5_000;
const AFTER_MS = 5_000;

/** The broker goes away; what is returned brings it back. */
const outages: Readonly<Record<string, (kafka: LocalKafka) => () => Promise<void>>> = {
  frozen: (kafka) => {
    process.kill(kafka.pid, "SIGSTOP");
    return async () => void process.kill(kafka.pid, "SIGCONT");
  },
  killed: (kafka) => {
    kafka.kill();
    return () => kafka.restart();
  },
};

/** What callers and the gateway went through. The broker is back and holds what was accepted. */
interface Outage {
  readonly topic: Target;
  readonly answers: readonly Answer[];
  readonly emptyMs: readonly number[];
  readonly residentBytes: readonly number[];
  /** The most before the outage. */
  readonly residentBefore: number;
  /** performance.now() when the broker was back. */
  readonly backAt: number;
}

const seen = new Map<string, Outage>();
/** Undone in reverse order, whatever failed. */
const ends: (() => Promise<unknown>)[] = [];

// All at once, because they only wait; and no table is opened in this process before the last answer was measured.
beforeAll(
  async () => {
    await Promise.all(Object.keys(outages).map(async (name) => seen.set(name, await sufferOutage(name))));
  },
  SECONDS * 1_000 + 180_000,
);

afterAll(async () => {
  for (const end of ends.toReversed()) await end();
}, 60_000);

async function sufferOutage(name: string): Promise<Outage> {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-outage-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  const kafka = await startKafka({ folder });
  ends.push(() => kafka.stop());
  const topic = { brokers: kafka.brokers, topic: `usage.events.v1.outage-${name}`, partitionCount: PARTITION_COUNT };
  await ensureTopic({ ...topic, brokers: [kafka.brokers], clientId: "test" });
  const gateway = await startGatewayProcess(topic);
  ends.push(() => gateway.end());
  const answers: Answer[] = [];
  const residentBytes: number[] = [];
  const emptyMs: number[] = [];
  const over = new AbortController();
  const load = sendSteadily({ ...LOAD, url: gateway.url, answers, signal: over.signal });
  const watch = sampleUntil(over.signal, async () => {
    residentBytes.push(gateway.residentBytes());
    const askedAt = performance.now();
    await (await fetch(`${gateway.url}/livez`)).arrayBuffer();
    emptyMs.push(performance.now() - askedAt);
  });
  try {
    await until(() => answers.some(({ status }) => status === 202), { what: "a 202" });
    // time passes here: the load before the outage is the rate to come back to.
    await pause(BEFORE_MS);
    const residentBefore = Math.max(...residentBytes);
    const bringBack = outages[name]?.(kafka);
    // time passes here: the length of the outage is the subject.
    await pause(SECONDS * 1_000);
    await bringBack?.();
    const backAt = performance.now();
    // time passes here: what is sent after the time to recover must be accepted, all of it.
    await pause(RECOVERED_WITHIN_MS + AFTER_MS);
    return { topic, answers, emptyMs, residentBytes, residentBefore, backAt };
  } finally {
    over.abort();
    await Promise.all([load, watch]);
  }
}

test.each(Object.keys(outages))(
  `G1 G9 a broker %s for ${SECONDS} s: callers are told in time, memory is bounded, nothing accepted is lost`,
  { timeout: 240_000 },
  async (name) => {
    const outage = seen.get(name);
    if (outage === undefined) throw new Error(`${name} did not happen`);
    const { answers, emptyMs, residentBytes, residentBefore, backAt } = outage;
    const refused = answers.filter(({ status }) => status !== 202);
    const recoveredAt = Math.max(...refused.map(({ sentAt }) => sentAt));
    const elapsedMs = answers.map((answer) => answer.elapsedMs).toSorted((a, b) => a - b);
    const settled = answers.filter(({ sentAt }) => sentAt > backAt + RECOVERED_WITHIN_MS);
    const accepted = answers.filter(({ status }) => status === 202).flatMap(({ ids }) => ids);
    const world = await startWorld(outage.topic);
    const counted = (await world.fates()).filter(({ status }) => status === "counted").map(({ id }) => id);
    await world.stop();
    const isCounted = new Set(counted);
    const sent = new Set(answers.flatMap(({ ids }) => ids));
    process.stdout.write(
      `${JSON.stringify({
        outage: name,
        seconds: SECONDS,
        eventsPerSecondOffered: LOAD.requestsPerSecond * LOAD.eventsPerRequest,
        requests: answers.length,
        refused: refused.length,
        p99AnswerMs: Math.round(elapsedMs[Math.floor(elapsedMs.length * 0.99)] ?? 0),
        slowestEmptyRequestMs: Math.round(Math.max(...emptyMs)),
        slowestAnswerMs: Math.round(elapsedMs.at(-1) ?? 0),
        recoveredAfterMs: Math.max(0, Math.round(recoveredAt - backAt)),
        residentMbBefore: Math.round(residentBefore / 1e6),
        residentMbMost: Math.round(Math.max(...residentBytes) / 1e6),
        accepted: accepted.length,
        acceptedAndLost: accepted.filter((id) => !isCounted.has(id)).length,
        countedTwice: counted.length - isCounted.size,
      })}\n`,
    );

    expect([...new Set(refused.map(({ status }) => status))]).toEqual([503]);
    // The client shares its processors with broker and gateway: what an empty request waited there, an answer may wait too.
    expect(elapsedMs.at(-1)).toBeLessThan(TOLD_WITHIN_MS + Math.max(...emptyMs));
    expect(settled.length).toBeGreaterThan((LOAD.requestsPerSecond * AFTER_MS) / 2_000);
    expect(settled.filter(({ status }) => status !== 202)).toEqual([]);
    expect(Math.max(...residentBytes)).toBeLessThan(RESIDENT_BYTES_MAX);
    expect(accepted.filter((id) => !isCounted.has(id))).toEqual([]);
    expect(counted.length).toBe(isCounted.size);
    expect(counted.filter((id) => !sent.has(id))).toEqual([]);
  },
);

const SAMPLE_MS = 250;

async function sampleUntil(signal: AbortSignal, sample: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    await sample();
    // time passes here: memory and the machine's own slowness are looked at some four times a second.
    await pause(SAMPLE_MS, signal);
  }
}
