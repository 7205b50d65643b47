import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startKafka } from "@tallyhouse/infra/local/kafka.ts";
import { openKafkaLog } from "@tallyhouse/eventlog";
import { LogCollector, logRecord, valuesOf } from "@tallyhouse/testkit";
import { expect, it } from "vitest";
import { freshLogOptions, kafkaBrokers, openKafkaUnderTest } from "./kafka-support.ts";

kafkaBrokers();

const PARTITION_COUNT = 2;

it("G1 keeps every acknowledged record through a broker's SIGKILL, and the appender goes on by itself", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-kafka-"));
  const kafka = await startKafka({ folder });
  try {
    const options = freshLogOptions([kafka.brokers], PARTITION_COUNT);
    const under = await openKafkaUnderTest(options);
    const { log } = under.opened;
    const acknowledged: string[] = [];
    const over = new AbortController();
    let next = 0;
    const waiting: { count: number; resolve: () => void }[] = [];
    const untilAcknowledged = (more: number): Promise<void> =>
      new Promise((resolve) => waiting.push({ count: acknowledged.length + more, resolve }));
    const appendUntilOver = async (): Promise<void> => {
      while (!over.signal.aborted) {
        const value = String(next);
        next += 1;
        await log.append([logRecord(Number(value) % PARTITION_COUNT, value)]);
        acknowledged.push(value);
        for (const { count, resolve } of waiting) if (acknowledged.length >= count) resolve();
      }
    };
    const appenders = Array.from({ length: 5 }, appendUntilOver);
    for (let kill = 0; kill < 2; kill += 1) {
      await untilAcknowledged(500);
      kafka.kill();
      await kafka.restart();
    }
    await untilAcknowledged(500);
    over.abort();
    await Promise.all(appenders);

    // A process that follows reads from its own position.
    await under.opened.close();
    const reader = await openKafkaLog(options);
    const collector = new LogCollector();
    await collector.subscribeTo(reader);
    const read = new Set<string>();
    for (let partition = 0; partition < PARTITION_COUNT; partition += 1) {
      collector.seek(partition, 0);
      const { endOffset } = await reader.log.bounds(partition);
      for (const value of valuesOf(await collector.untilOffset(partition, endOffset))) read.add(value);
    }
    expect(acknowledged.filter((value) => !read.has(value))).toEqual([]);
    expect([...read].filter((value) => Number(value) >= next)).toEqual([]);
    await reader.close();
  } finally {
    await kafka.stop();
    await rm(folder, { recursive: true, force: true });
  }
}, 180_000);

it("G9 an opening waits for a broker that is coming back", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-kafka-"));
  const kafka = await startKafka({ folder });
  try {
    const options = { ...freshLogOptions([kafka.brokers], 1), openBudgetMs: 60_000 };
    const under = await openKafkaUnderTest(options);
    await under.opened.log.append([logRecord(0, "before")]);
    await under.opened.close();
    kafka.kill();
    const opening = openKafkaLog(options);
    await kafka.restart();
    const again = await opening;
    expect((await again.log.bounds(0)).endOffset).toBe(1);
    await again.close();
  } finally {
    await kafka.stop();
    await rm(folder, { recursive: true, force: true });
  }
}, 120_000);

it("G9 a consumer whose broker stays away ends through `failed`", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tallyhouse-kafka-"));
  const kafka = await startKafka({ folder });
  try {
    const under = await openKafkaUnderTest(freshLogOptions([kafka.brokers], 1));
    await under.opened.log.subscribe(new LogCollector());
    under.opened.log.seek(0, 0);
    kafka.kill();
    await expect(under.opened.failed).rejects.toMatchObject({ code: "LOG_UNAVAILABLE" });
    await under.opened.close();
  } finally {
    await kafka.stop();
    await rm(folder, { recursive: true, force: true });
  }
}, 120_000);
