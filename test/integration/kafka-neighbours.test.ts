import type { EventLog } from "@tallyhouse/domain";
import { ensureTopic, type KafkaLogOptions, openKafkaLog } from "@tallyhouse/eventlog";
import { LogCollector, numberedRecords, valuesOf } from "@tallyhouse/testkit";
import { type Admin, CompressionTypes, Kafka, type Producer } from "kafkajs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { freshLogOptions, kafkaBrokers, openKafkaUnderTest } from "./kafka-support.ts";

const brokers = kafkaBrokers();
const kafka = new Kafka({ brokers, clientId: "neighbour", logLevel: 0 });

let admin: Admin;
const closing: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  admin = kafka.admin();
  await admin.connect();
});

afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  await admin.disconnect();
});

async function openRead(
  options: KafkaLogOptions,
): Promise<{ collector: LogCollector; log: EventLog; failed: Promise<never> }> {
  const under = await openKafkaUnderTest(options);
  closing.push(() => under.dispose());
  const collector = new LogCollector();
  await collector.subscribeTo(under.opened);
  return { collector, log: under.opened.log, failed: under.opened.failed };
}

async function transactional(id: string): Promise<Producer> {
  const producer = kafka.producer({ transactionalId: id, idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  closing.push(() => producer.disconnect());
  return producer;
}

/** A transaction's marker is written a moment after its end was answered. */
async function untilEnd(log: EventLog, endOffset: number): Promise<void> {
  while ((await log.bounds(0)).endOffset < endOffset);
}

async function deleteBelow(topic: string, offset: number): Promise<void> {
  // kafkajs deletes only in topics whose metadata this admin has loaded.
  await admin.fetchTopicOffsets(topic);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(offset) }] });
}

describe("a neighbour's transactions", () => {
  it("G2 arrive with markers for aborted records and transaction ends, without a gap", async () => {
    const options = freshLogOptions(brokers, 1);
    const { topic } = options;
    const { log, collector } = await openRead(options);
    const producer = await transactional(topic);
    await log.append(numberedRecords(0, 2));
    const aborted = await producer.transaction();
    await aborted.send({
      topic,
      messages: [
        { partition: 0, value: "aborted" },
        { partition: 0, value: "aborted" },
      ],
    });
    await aborted.abort();
    await untilEnd(log, 5);
    const committed = await producer.transaction();
    await committed.send({ topic, messages: [{ partition: 0, value: "committed" }] });
    await committed.commit();
    await untilEnd(log, 7);
    await log.append(numberedRecords(0, 1, 2));
    // 0 1 | aborted aborted abort-marker | committed commit-marker | 2
    const expected = ["0", "1", null, null, null, "committed", null, "2"];
    for (const from of [0, 2, 3, 4, 5, 6, 7]) {
      collector.clear();
      collector.seek(0, from);
      const entries = await collector.untilOffset(0, expected.length);
      expect(entries.map((entry) => entry.offset)).toEqual(expected.slice(from).map((_, i) => from + i));
      expect(entries.map((entry) => entry.value?.toString() ?? null)).toEqual(expected.slice(from));
      expect(entries.map((entry) => entry.marker)).toEqual(expected.slice(from).map((value) => value === null));
      expect(entries.filter((entry) => entry.marker).every((entry) => entry.receivedAt === 0)).toBe(true);
    }
  });

  it("G2 that are interleaved and aborted are never delivered, wherever reading begins", async () => {
    const options = freshLogOptions(brokers, 1);
    const { topic } = options;
    const { log, collector } = await openRead(options);
    const [a, b] = await Promise.all([transactional(`${topic}.a`), transactional(`${topic}.b`)]);
    const first = await b.transaction();
    await first.send({ topic, messages: [{ partition: 0, value: "b" }] });
    const second = await a.transaction();
    await second.send({ topic, messages: [{ partition: 0, value: "a" }] });
    await first.send({ topic, messages: [{ partition: 0, value: "b" }] });
    await second.abort();
    await first.send({ topic, messages: [{ partition: 0, value: "b" }] });
    await first.abort();
    await untilEnd(log, 6);
    await log.append(numberedRecords(0, 1));
    // b a b abort(a) b abort(b) 0
    for (let from = 0; from < 7; from += 1) {
      collector.clear();
      collector.seek(0, from);
      const entries = await collector.untilOffset(0, 7);
      expect(entries.map((entry) => [entry.offset, entry.marker])).toEqual(
        Array.from({ length: 7 - from }, (_, i) => [from + i, from + i < 6]),
      );
    }
  });

  it("that are all there is deliver markers alone", async () => {
    const options = freshLogOptions(brokers, 1);
    const { log, collector } = await openRead(options);
    const producer = await transactional(options.topic);
    const transaction = await producer.transaction();
    await transaction.send({ topic: options.topic, messages: [{ partition: 0, value: "aborted" }] });
    await transaction.abort();
    collector.seek(0, 0);
    const entries = await collector.untilOffset(0, 2);
    expect(entries.map((entry) => entry.marker)).toEqual([true, true]);
    await log.append(numberedRecords(0, 3));
    expect(valuesOf((await collector.untilOffset(0, 5)).slice(2))).toEqual(["0", "1", "2"]);
  });
});

describe("foreign producers", () => {
  it("are read in zstd and gzip; a repeated header counts with its last value", async () => {
    const options = freshLogOptions(brokers, 1);
    const { collector } = await openRead(options);
    const producer = kafka.producer();
    await producer.connect();
    closing.push(() => producer.disconnect());
    const { topic } = options;
    for (const compression of [CompressionTypes.ZSTD, CompressionTypes.GZIP]) {
      const messages = [{ partition: 0, key: null, value: "x", headers: { twice: ["1", "2"], once: "3" } }];
      await producer.send({ topic, compression, messages });
    }
    collector.seek(0, 0);
    const entries = await collector.untilOffset(0, 2);
    for (const { headers, key } of entries) {
      expect([key, String(headers["twice"]), String(headers["once"])]).toEqual([null, "2", "3"]);
    }
  });
});

describe("positions that went away", () => {
  it("G9 ends with LOG_GAP when records are deleted under a reader, instead of jumping in silence", async () => {
    const options = freshLogOptions(brokers, 1);
    const { log, collector, failed } = await openRead(options);
    await log.append(numberedRecords(0, 10));
    collector.seek(0, 0);
    collector.hold(0);
    await collector.until(() => collector.batchCountOf(0) > 0);
    // A backlog larger than the bounded queue, so that fetching has to go on behind it after the deletion.
    const value = Buffer.alloc(500_000);
    for (let i = 0; i < 12; i += 1) await log.append([{ partition: 0, key: null, value, headers: {} }]);
    const { endOffset } = await log.bounds(0);
    await deleteBelow(options.topic, endOffset);
    collector.release(0);
    await log.append(numberedRecords(0, 1));
    await expect(failed).rejects.toMatchObject({ code: "LOG_GAP", action: "halt" });
  });

  it("delivers nothing below the earliest offset, and tells the bounds", async () => {
    const options = freshLogOptions(brokers, 2);
    const { log, collector } = await openRead(options);
    await log.append([...numberedRecords(0, 10), ...numberedRecords(1, 1)]);
    await deleteBelow(options.topic, 4);
    expect(await log.bounds(0)).toEqual({ earliestOffset: 4, endOffset: 10 });
    collector.seek(0, 2);
    collector.seek(1, 0);
    await collector.untilOffset(1, 1);
    expect(collector.entriesOf(0)).toEqual([]);
    collector.seek(0, 4);
    expect(valuesOf(await collector.untilOffset(0, 10))).toEqual(["4", "5", "6", "7", "8", "9"]);
  });
});

describe("topics that break the log contract", () => {
  it("are refused by name of every fault, and left as they are", async () => {
    const options = freshLogOptions(brokers, 3);
    const configEntries = [
      { name: "cleanup.policy", value: "compact" },
      { name: "retention.ms", value: "1000" },
    ];
    const topics = [{ topic: options.topic, numPartitions: 2, configEntries }];
    await admin.createTopics({ topics, waitForLeaders: false });
    closing.push(() => admin.deleteTopics({ topics: [options.topic] }));
    for (const attempt of [() => ensureTopic(options), () => openKafkaLog(options)]) {
      const error: unknown = await attempt().catch((caught: unknown) => caught);
      expect(error).toMatchObject({ code: "LOG_MISCONFIGURED", action: "halt" });
      for (const fault of [
        "2 partitions",
        "CreateTime",
        "cleanup.policy is compact",
        "retention.ms is 1000",
        "compression.type",
      ]) {
        expect(String(error)).toContain(fault);
      }
    }
  });

  it("are refused when they do not exist", async () => {
    await expect(openKafkaLog(freshLogOptions(brokers, 1))).rejects.toMatchObject({ code: "LOG_MISCONFIGURED" });
  });
});

it("shares the partitions of one group, each complete list reported, each record read by its owner", async () => {
  const options: KafkaLogOptions = { ...freshLogOptions(brokers, 4), ownership: "group" };
  const { log, collector } = await openRead(options);
  expect(collector.assignments.at(-1)).toEqual([0, 1, 2, 3]);
  const second = await openKafkaLog(options);
  closing.push(() => second.close());
  const other = new LogCollector();
  await other.subscribeTo(second);
  await collector.until(() => collector.assignments.at(-1)?.length === 2);
  await other.until(() => other.assignments.at(-1)?.length === 2);
  const [mine = [], theirs = []] = [collector.assignments.at(-1), other.assignments.at(-1)];
  expect([...mine, ...theirs].sort((x, y) => x - y)).toEqual([0, 1, 2, 3]);
  for (const partition of [0, 1, 2, 3]) {
    collector.seek(partition, 0);
    other.seek(partition, 0);
  }
  await log.append([0, 1, 2, 3].flatMap((partition) => numberedRecords(partition, 5)));
  for (const partition of mine) await collector.untilOffset(partition, 5);
  for (const partition of theirs) await other.untilOffset(partition, 5);
  expect(mine.flatMap((partition) => other.entriesOf(partition))).toEqual([]);
  await second.close();
  await collector.until(() => collector.assignments.at(-1)?.length === 4);
});
