/**
 * A whole workload over two gateways and straight into Kafka, with duplicates, conflicts and records in wrong partitions,
 * while one aggregator is stopped and started RESTARTS times (default 10). With TRACES_DIR both public traces, else a generated
 * day. Every total equals the expected one to the last digit.
 */
import { join } from "node:path";
import process from "node:process";
import { partitionOfKey, recordKeyOf } from "@tallyhouse/domain";
import {
  cloudEventOf,
  compareTotals,
  deliver,
  type DemoEvent,
  generateDay,
  planDelivery,
  readTrace,
  waitForPipeline,
  type Workload,
} from "@tallyhouse/standalone/demo";
import kafkajs from "kafkajs";
import { Stripe } from "stripe";
import { expect, test } from "vitest";
import { serversOfEnvironment, startWorld, type World } from "./world.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const RESTARTS = Number(process.env["RESTARTS"] ?? 10);
const GENERATED_EVENTS = 20_000;
const MISPLACED = 300;
const TIMEOUT_MS = 240_000;
const MODE = "live";

const servers = serversOfEnvironment();

function workloads(): { name: string; workload: Workload }[] {
  const nowAt = Date.now();
  const folder = process.env["TRACES_DIR"];
  if (folder === undefined) {
    return [{ name: "generated", workload: generateDay({ seed: SEED, nowAt, events: GENERATED_EVENTS }) }];
  }
  const read = (format: "azure-llm" | "apache-combined", trace: string, expected: string): Workload =>
    readTrace({ tracePath: join(folder, trace), expectedPath: join(folder, expected), format, nowAt });
  return [
    { name: "azure", workload: read("azure-llm", "AzureLLMInferenceTrace_conv.csv", "expected-llm.csv") },
    { name: "apache", workload: read("apache-combined", "apache_logs", "expected-apache.csv") },
  ];
}

test.each(workloads())(
  `G1 G2 G3 G5 $name: exact while an aggregator is stopped and started ${RESTARTS} times (SEED=${SEED})`,
  { timeout: TIMEOUT_MS },
  async ({ name, workload }) => {
    const world = await startWorld({
      name,
      servers,
      metersFile: workload.metersFile,
      settings: { SEND_RATE_PER_SECOND: "5000", CALL_RATE_PER_SECOND: "5000" },
    });
    const producer = await openProducer(world);
    try {
      const plan = planDelivery(workload.events, { seed: SEED, copies: 2, duplicateShare: 0.05, conflictShare: 0.01 });
      const misplaced = workload.events.slice(0, MISPLACED);
      await producer.sendMisplaced(misplaced);
      const pieces = piecesOf(plan.deliveries, 2 * RESTARTS);
      const { aggregator2 } = world.processes;
      for (let restart = 0; restart < RESTARTS; restart += 1) {
        const stop = aggregator2.stop();
        await sendMixed(world, producer, pieces[2 * restart] ?? []);
        expect(await stop).toBe(0);
        aggregator2.start();
        await Promise.all([
          world.untilReady(["aggregator2"]),
          sendMixed(world, producer, pieces[2 * restart + 1] ?? []),
        ]);
      }
      await deliver({ deliveries: [], conflicts: plan.conflicts }, targetOf(world, 0));

      const identities = new Set(workload.events.map((event) => `${event.customer}\n${event.id}`)).size;
      const settled = await waitForPipeline({
        ...world.ports,
        mode: MODE,
        countedEvents: identities,
        timeoutMs: 60_000,
        onProgress: () => undefined,
      });
      const emulator = new URL(world.emulatorUrl);
      const address = { host: emulator.hostname, port: Number(emulator.port), protocol: "http" as const };
      const stripe = new Stripe("sk_live_mixed", { ...address, telemetry: false });
      const compared = await compareTotals({ workload, analytics: world.ports.analytics, stripe, mode: MODE });
      const different = compared.filter(
        ({ expected, counted, atStripe }) => expected !== counted || expected !== atStripe,
      );
      expect({ settled, different, totals: compared.length }).toEqual({
        settled: true,
        different: [],
        totals: workload.expected.length,
      });
      const { duplicate, ...fates } = await readFates(world);
      expect(fates).toEqual({ counted: identities, conflict: plan.conflicts.length, redirected: misplaced.length });
      // A partition that changes hands between a redirect and its progress is folded again, and redirects once more.
      expect(duplicate).toBeGreaterThanOrEqual(plan.deliveries.length + misplaced.length - identities);
    } finally {
      await producer.close();
      await world.end();
    }
  },
);

function targetOf(world: World, gateway: 0 | 1) {
  return { url: world.gatewayUrls[gateway], token: world.token, onProgress: () => undefined };
}

/** A third through each gateway and a third straight into Kafka, at the same time. */
async function sendMixed(world: World, producer: Producer, events: readonly DemoEvent[]): Promise<void> {
  const [first = [], second = [], third = []] = piecesOf(events, 3);
  await Promise.all([
    deliver({ deliveries: first, conflicts: [] }, targetOf(world, 0)),
    deliver({ deliveries: second, conflicts: [] }, targetOf(world, 1)),
    producer.send(third),
  ]);
}

/** So many pieces of about equal length, in order. */
function piecesOf<Item>(items: readonly Item[], count: number): Item[][] {
  return Array.from({ length: count }, (_, piece) =>
    items.slice(Math.floor((piece * items.length) / count), Math.floor(((piece + 1) * items.length) / count)),
  );
}

type Producer = Awaited<ReturnType<typeof openProducer>>;

/** A service of the operator that writes to Kafka itself: kafkajs and its own partitioner, no code of ours in the way. */
async function openProducer(world: World) {
  const kafka = new kafkajs.Kafka({
    brokers: [world.brokers],
    clientId: "direct-producer",
    logLevel: kafkajs.logLevel.NOTHING,
  });
  const producer = kafka.producer({
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    allowAutoTopicCreation: false,
  });
  await producer.connect();
  const messageOf = (event: DemoEvent) => ({
    key: recordKeyOf({ mode: MODE, ...event }),
    value: JSON.stringify({ ...cloudEventOf(event), mode: MODE }),
  });
  const produce = async (messages: (ReturnType<typeof messageOf> & { partition?: number })[]): Promise<void> => {
    for (const batch of piecesOf(messages, Math.ceil(messages.length / 200))) {
      await producer.send({ topic: world.topic, acks: -1, messages: batch });
    }
  };
  return {
    send: (events: readonly DemoEvent[]) => produce(events.map(messageOf)),
    sendMisplaced: (events: readonly DemoEvent[]) =>
      produce(
        events.map((event) => {
          const message = messageOf(event);
          const { partitionCount } = world.ports.log;
          return { ...message, partition: (partitionOfKey(message.key, partitionCount) + 1) % partitionCount };
        }),
      ),
    close: () => producer.disconnect(),
  };
}

async function readFates(world: World): Promise<Record<string, number>> {
  const rows = await world.ports.analytics.select<{ status: string; rows: string }>(
    "SELECT toString(status) AS status, toString(count()) AS rows FROM raw_events FINAL WHERE status != 'control' GROUP BY status",
  );
  return Object.fromEntries(rows.map(({ status, rows }) => [status, Number(rows)]));
}
