/** A standalone on a topic of its own, and what its tables say of every record that stands in it. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatQuantity, parseQuantity } from "@tallyhouse/domain";
import { deleteTopic } from "@tallyhouse/eventlog";
import { type Standalone, startStandalone } from "@tallyhouse/standalone";
import { applyMeters } from "@tallyhouse/standalone/demo";
import { until } from "@tallyhouse/testkit";
import { Kafka } from "kafkajs";
import { expect } from "vitest";
import type { Usage } from "./usage.ts";

const SETTLE_TIMEOUT_MS = 60_000;
const METERS = `schema: tallyhouse.meters/1
meters:
  - { key: calls, eventType: llm.request, aggregation: count, from: 2000-01-01T00:00:00Z }
  - { key: tokens, eventType: llm.request, aggregation: sum, value: /tokens, dimensions: { model: /model }, from: 2000-01-01T00:00:00Z }
`;

/** Where a producer sends to. */
export interface Target {
  readonly brokers: string;
  readonly topic: string;
}

/** One row of raw_events: what became of the record at its offset. */
export interface Fate {
  readonly place: string;
  readonly mode: string;
  readonly customer: string;
  readonly id: string;
  readonly status: string;
  readonly reason: string;
  readonly occurredAt: string;
  readonly receivedAt: string;
}

/** A running standalone that reads the topic, and a kafkajs client that shares nothing with it but the brokers. */
export interface World extends Target {
  readonly standalone: Standalone;
  readonly kafka: Kafka;
  /** Every fate, ticks and activations left out, after checking that no offset of the topic lacks one (A1) and no redirect its copy (A7). */
  fates(): Promise<Fate[]>;
  /** `customer meter` → exact total of a mode, as the rollups state it. */
  totals(mode?: "live" | "test"): Promise<Record<string, string>>;
  stop(): Promise<void>;
}

/** Fails, never skips: a suite that did not run is not a suite that passed. */
export function kafkaBrokers(): string {
  const brokers = process.env["KAFKA_BROKERS"];
  if (brokers === undefined || brokers === "")
    throw new Error("KAFKA_BROKERS is not set: run this through npm run test:producers");
  return brokers;
}

/**
 * Starts standalone on a folder and a topic of its own, with a counting and a summing meter; on a topic that is given, without
 * meters, which are for usage that is still to come.
 */
export async function startWorld(given?: Target): Promise<World> {
  const { brokers, topic } = given ?? {
    brokers: kafkaBrokers(),
    topic: `usage.events.v1.producers-${randomUUID()}`,
  };
  const folder = mkdtempSync(join(tmpdir(), "tallyhouse-producers-"));
  const standalone = await startStandalone({
    ...process.env,
    KAFKA_BROKERS: brokers,
    KAFKA_TOPIC: topic,
    BOOKING_WINDOW_SECONDS: "5",
    LOG_LEVEL: "error",
    TALLYHOUSE_DATA: folder,
    TALLYHOUSE_PORT: "0",
    TALLYHOUSE_METERS: "none",
  });
  if (given === undefined) await applyMeters(standalone, METERS);
  const { analytics } = standalone.ports;
  return {
    brokers,
    topic,
    standalone,
    kafka: new Kafka({ brokers: brokers.split(","), clientId: "producer", logLevel: 0 }),
    async fates() {
      await settle(standalone);
      await expectEveryFate(standalone);
      return analytics.select<Fate & Record<string, string>>(
        `SELECT concat(toString(logPartition), ':', toString(logOffset)) AS place, toString(mode) AS mode, customer, id,
           toString(status) AS status, reason, toString(occurredAt) AS occurredAt, toString(receivedAt) AS receivedAt
         FROM raw_events FINAL WHERE status != 'control' OR reason = 'marker' ORDER BY logPartition, logOffset`,
      );
    },
    async totals(mode = "live") {
      const rows = await analytics.select<{ name: string; quantity: string }>(
        `SELECT concat(customer, ' ', meter) AS name, toString(sum(sumQty)) AS quantity
         FROM usage WHERE mode = {mode:String} GROUP BY name`,
        { mode },
      );
      return Object.fromEntries(rows.map(({ name, quantity }) => [name, exact(quantity)]));
    },
    async stop() {
      await standalone.stop();
      await deleteTopic({ brokers: brokers.split(","), clientId: "test", topic });
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function exact(text: string): string {
  const quantity = parseQuantity(text);
  if (quantity === null) throw new Error(`no quantity: ${text}`);
  return formatQuantity(quantity);
}

/** Everything in the topic now is stored; then again, because storing a redirected record appends its copy. */
async function settle({ ports: { log, analytics } }: Standalone): Promise<void> {
  for (let round = 1; round <= 2; round += 1) {
    const ends = await endsOf(log);
    await until(
      async () => {
        const rows = await analytics.select<{ logPartition: string; nextOffset: string }>(
          "SELECT toString(logPartition) AS logPartition, toString(nextOffset) AS nextOffset FROM progress FINAL",
        );
        const stored = new Map(rows.map((row) => [Number(row.logPartition), Number(row.nextOffset)]));
        return ends.every((end, partition) => (stored.get(partition) ?? 0) >= end);
      },
      { timeoutMs: SETTLE_TIMEOUT_MS, what: "everything in the topic is stored" },
    );
  }
}

async function endsOf(log: Standalone["ports"]["log"]): Promise<number[]> {
  const partitions = Array.from({ length: log.partitionCount }, (_, partition) => partition);
  const bounds = await Promise.all(partitions.map((partition) => log.bounds(partition)));
  return bounds.map(({ endOffset }) => endOffset);
}

/** A1 and A7 of the auditor, in SQL over the tables alone, against the offsets that the broker names. */
async function expectEveryFate({ ports: { log, analytics } }: Standalone): Promise<void> {
  const ends = await endsOf(log);
  await until(
    async () => {
      const rows = await analytics.select<{ logPartition: string; offsets: string; below: string }>(
        `SELECT toString(logPartition) AS logPartition, toString(uniqExact(logOffset)) AS offsets,
           toString(max(logOffset) + 1) AS below
         FROM raw_events GROUP BY logPartition`,
      );
      const held = new Map(rows.map((row) => [Number(row.logPartition), row]));
      for (const { logPartition, offsets, below } of rows)
        if (offsets !== below) throw new Error(`A1: partition ${logPartition} has ${offsets} rows below ${below}`);
      return ends.every((end, partition) => Number(held.get(partition)?.offsets ?? 0) >= end);
    },
    { timeoutMs: SETTLE_TIMEOUT_MS, what: "every offset of every partition has a raw row" },
  );
  const lost = await analytics.select<{ place: string }>(
    `SELECT concat(toString(logPartition), ':', toString(logOffset)) AS place FROM raw_events FINAL
     WHERE status = 'redirected' AND (mode, customer, source, id) NOT IN
       (SELECT mode, customer, source, id FROM raw_events FINAL WHERE status != 'redirected')`,
  );
  expect(lost, "A7: redirected records without a fate").toEqual([]);
}

/** How many fates of each kind, as `status` or `status reason`. */
export function countsOf(fates: readonly Fate[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { status, reason } of fates) {
    const kind = `${status} ${reason}`.trim();
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/** The dull recount: the first usage of each identity counts, the others do not. */
export function recount(produced: readonly Usage[]): Record<string, string> {
  const seen = new Set<string>();
  const totals: Record<string, bigint> = {};
  for (const { customer, source, id, tokens } of produced) {
    const identity = JSON.stringify([customer, source, id]);
    if (seen.has(identity)) continue;
    seen.add(identity);
    totals[`${customer} calls`] = (totals[`${customer} calls`] ?? 0n) + 1n;
    totals[`${customer} tokens`] = (totals[`${customer} tokens`] ?? 0n) + BigInt(tokens);
  }
  return Object.fromEntries(Object.entries(totals).map(([name, total]) => [name, String(total)]));
}
