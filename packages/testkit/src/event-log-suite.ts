import { type LogEntry, type LogRecord, type OpenedEventLog, TallyhouseError } from "@tallyhouse/domain";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { LogCollector } from "./event-log-collector.ts";

export { LogCollector };

/** A log opened for one test, on nothing that another test uses. */
export interface EventLogUnderTest {
  readonly opened: OpenedEventLog;
  /** The clock that receivedAt comes from, epoch milliseconds. */
  readonly now: () => number;
  /** Closes the log and opens it again on the same data. */
  reopen(): Promise<OpenedEventLog>;
  /** Closes the log and removes its data. */
  dispose(): Promise<void>;
}

/** Opens a fresh, empty log. */
export type OpenEventLogUnderTest = (options: { readonly partitionCount: number }) => Promise<EventLogUnderTest>;

const PARTITION_COUNT = 3;
const BATCH_ENTRIES_MAX = 5_000;
const BATCH_BYTES_MAX = 1_048_576;
const PROPERTY_RUNS = 25;

/** A record with a valid default for everything. */
export function logRecord(partition: number, value: string | Buffer | null, rest: Partial<LogRecord> = {}): LogRecord {
  const bytes = typeof value === "string" ? Buffer.from(value) : value;
  return { partition, key: Buffer.from("live/c/api/1"), value: bytes, headers: {}, ...rest };
}

/** `count` records of one partition with the values `from`, `from + 1`, … */
export function numberedRecords(partition: number, count: number, from = 0): LogRecord[] {
  return Array.from({ length: count }, (_, i) => logRecord(partition, String(from + i)));
}

/** The values as texts, for comparing with {@link numberedRecords}. */
export function valuesOf(entries: readonly LogEntry[]): string[] {
  return entries.map((entry) => String(entry.value));
}

function numbers(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, i) => String(from + i));
}

/** What the port promises, run against an adapter: both the embedded log and Kafka pass it, or neither may be used. */
export function eventLogContract(name: string, open: OpenEventLogUnderTest): void {
  describe(`event log contract: ${name}`, () => {
    const opened: EventLogUnderTest[] = [];

    afterEach(async () => {
      for (const under of opened.splice(0)) await under.dispose();
    });

    async function openOne(): Promise<EventLogUnderTest> {
      const under = await open({ partitionCount: PARTITION_COUNT });
      opened.push(under);
      return under;
    }

    /** A log with a collector reading every partition from 0. */
    async function openRead(): Promise<EventLogUnderTest & { collector: LogCollector }> {
      const under = await openOne();
      const collector = new LogCollector();
      await collector.subscribeTo(under.opened);
      for (let partition = 0; partition < PARTITION_COUNT; partition += 1) collector.seek(partition, 0);
      return { ...under, collector };
    }

    appendTests(openRead);
    deliveryTests(openRead, openOne);
    seekTests(openRead);
    lifeTests(openRead, openOne);
    propertyTests(openRead);
  });
}

type OpenRead = () => Promise<EventLogUnderTest & { collector: LogCollector }>;

function appendTests(openRead: OpenRead): void {
  it("G1 delivers keys, values and headers as they were appended, null and empty ones too", async () => {
    const { opened, collector } = await openRead();
    const key = Buffer.from("live/köln/日本/🧾");
    const records = [
      logRecord(1, "plain"),
      logRecord(1, null),
      logRecord(1, ""),
      logRecord(1, "no key", { key: null }),
      logRecord(1, "empty key", { key: Buffer.alloc(0) }),
      logRecord(1, "Größe 日本 🧾", { key, headers: { "ce_ty-pé": Buffer.from("ü"), empty: Buffer.alloc(0) } }),
      logRecord(1, Buffer.from([0, 255, 254, 0, 1]), { headers: { binary: Buffer.from([0, 255]) } }),
    ];
    await opened.log.append(records);
    const entries = await collector.untilOffset(1, records.length);
    expect(entries.map(contentOf)).toEqual(records.map(contentOf));
    expect(entries.every((entry) => !entry.marker)).toBe(true);
  });

  it("takes a value of 900 kB, and batches that together exceed a batch", async () => {
    const { opened, collector } = await openRead();
    const values = [1, 2, 3].map((fill) => Buffer.alloc(900_000, fill));
    await opened.log.append(values.map((value) => logRecord(0, value)));
    const entries = await collector.untilOffset(0, 3);
    expect(entries.map((entry) => entry.value?.equals(values[entry.offset] ?? Buffer.alloc(0)))).toEqual([
      true,
      true,
      true,
    ]);
  });

  it("numbers each partition from 0 without a gap, in the order of the appends", async () => {
    const { opened, collector } = await openRead();
    for (let i = 0; i < 30; i += 1) await opened.log.append([logRecord(i % PARTITION_COUNT, String(i))]);
    for (let partition = 0; partition < PARTITION_COUNT; partition += 1) {
      const entries = await collector.untilOffset(partition, 10);
      expect(entries.map((entry) => entry.offset)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      expect(valuesOf(entries)).toEqual(entries.map((_, i) => String(i * PARTITION_COUNT + partition)));
    }
  });

  it("stamps receivedAt between the call and its answer, never stepping back", async () => {
    const { opened, collector, now } = await openRead();
    const bounds: { from: number; to: number }[] = [];
    for (let i = 0; i < 5; i += 1) {
      const from = Math.floor(now());
      await opened.log.append([logRecord(0, String(i))]);
      bounds.push({ from, to: Math.ceil(now()) });
    }
    const entries = await collector.untilOffset(0, 5);
    let last = 0;
    for (const [i, { receivedAt }] of entries.entries()) {
      expect(receivedAt).toBeGreaterThanOrEqual(Math.max(last, bounds[i]?.from ?? Infinity));
      expect(receivedAt).toBeLessThanOrEqual(bounds[i]?.to ?? 0);
      last = receivedAt;
    }
  });

  it("G1 keeps every record of many concurrent appends, each call's in order", async () => {
    const { opened, collector } = await openRead();
    const calls = Array.from({ length: 200 }, (_, call) =>
      opened.log.append(
        Array.from({ length: 9 }, (_, i) =>
          logRecord(i % PARTITION_COUNT, `${call}:${Math.floor(i / PARTITION_COUNT)}`),
        ),
      ),
    );
    await Promise.all(calls);
    for (let partition = 0; partition < PARTITION_COUNT; partition += 1) {
      const values = valuesOf(await collector.untilOffset(partition, 600));
      expect(new Set(values).size).toBe(600);
      for (let call = 0; call < 200; call += 1) {
        const places = [0, 1, 2].map((i) => values.indexOf(`${call}:${i}`));
        expect(places).toEqual([...places].sort((a, b) => a - b));
      }
    }
  });

  it("refuses a record above the limit and appends nothing of that call", async () => {
    const { opened } = await openRead();
    const call = opened.log.append([logRecord(0, "small"), logRecord(0, Buffer.alloc(1_000_001))]);
    await expect(call).rejects.toMatchObject({ code: "LOG_RECORD_TOO_LARGE", action: "dead-letter" });
    expect(await opened.log.bounds(0)).toEqual({ earliestOffset: 0, endOffset: 0 });
  });

  it("refuses a partition that does not exist", async () => {
    const { opened } = await openRead();
    for (const partition of [-1, PARTITION_COUNT, 0.5]) {
      await expect(opened.log.append([logRecord(partition, "x")])).rejects.toBeInstanceOf(TallyhouseError);
    }
  });

  it("appends nothing for an empty call", async () => {
    const { opened } = await openRead();
    await opened.log.append([]);
    expect(await opened.log.bounds(0)).toEqual({ earliestOffset: 0, endOffset: 0 });
  });
}

function deliveryTests(openRead: OpenRead, openOne: () => Promise<EventLogUnderTest>): void {
  it("reports all partitions once subscribed, and delivers nothing before a seek", async () => {
    const { opened } = await openOne();
    await opened.log.append([...numberedRecords(0, 3), ...numberedRecords(1, 3)]);
    const collector = new LogCollector();
    await collector.subscribeTo(opened);
    expect(collector.assignments.at(-1)?.toSorted((a, b) => a - b)).toEqual([0, 1, 2]);
    collector.seek(1, 0);
    await collector.untilOffset(1, 3);
    expect(collector.entriesOf(0)).toEqual([]);
  });

  it("takes a seek from inside onAssigned", async () => {
    const { opened } = await openOne();
    await opened.log.append(numberedRecords(0, 5));
    const collector = new LogCollector();
    await opened.log.subscribe({
      onAssigned: (partitions) => {
        for (const partition of partitions) opened.log.seek(partition, partition === 0 ? 2 : 0);
      },
      onEntries: (partition, entries) => collector.onEntries(partition, entries),
    });
    expect(valuesOf(await collector.untilOffset(0, 5))).toEqual(numbers(2, 5));
  });

  it("waits for the promise of a batch before the next of that partition, and goes on with the others", async () => {
    const { opened, collector } = await openRead();
    collector.hold(0);
    await opened.log.append(numberedRecords(0, 1));
    await collector.until(() => collector.batchCountOf(0) === 1);
    await opened.log.append([...numberedRecords(0, 50, 1), ...numberedRecords(1, 50)]);
    await collector.untilOffset(1, 50);
    await opened.log.append(numberedRecords(1, 50, 50));
    await collector.untilOffset(1, 100);
    expect(collector.batchCountOf(0)).toBe(1);
    collector.release(0);
    expect(valuesOf(await collector.untilOffset(0, 51))).toEqual(numbers(0, 51));
  });

  it("hands over at most 5,000 entries and 1 MiB at a time, however long the subscriber took", async () => {
    const { opened, collector } = await openRead();
    collector.hold(0);
    await opened.log.append(numberedRecords(0, 1));
    await collector.until(() => collector.batchCountOf(0) === 1);
    for (let i = 0; i < 6; i += 1) await opened.log.append(numberedRecords(0, 2_000, 1 + i * 2_000));
    await opened.log.append(Array.from({ length: 30 }, () => logRecord(0, Buffer.alloc(100_000, 7))));
    collector.release(0);
    await collector.untilOffset(0, 12_031);
    for (const { entries } of collector.batches) {
      expect(entries.length).toBeLessThanOrEqual(BATCH_ENTRIES_MAX);
      const bytes = entries.reduce((sum, entry) => sum + (entry.value?.length ?? 0), 0);
      expect(bytes).toBeLessThanOrEqual(BATCH_BYTES_MAX);
    }
    expect(valuesOf(collector.entriesOf(0)).slice(0, 12_001)).toEqual(numbers(0, 12_001));
  });

  it("ends through `failed` when the subscriber rejects", async () => {
    const { opened, collector } = await openRead();
    collector.refuseWith(new Error("the subscriber's own"));
    await opened.log.append(numberedRecords(0, 1));
    await expect(opened.failed).rejects.toThrow(/the subscriber's own/u);
  });
}

function seekTests(openRead: OpenRead): void {
  it("seeks back, forward and into the middle of what was one batch", async () => {
    const { opened, collector } = await openRead();
    await opened.log.append(numberedRecords(0, 100));
    await collector.untilOffset(0, 100);
    for (const from of [0, 99, 37, 1, 64]) {
      collector.clear();
      collector.seek(0, from);
      const entries = await collector.untilOffset(0, 100);
      expect(valuesOf(entries)).toEqual(numbers(from, 100));
    }
  });

  it("lets a seek during a callback win over the position behind the batch", async () => {
    const { opened, collector } = await openRead();
    collector.hold(0);
    await opened.log.append(numberedRecords(0, 10));
    await collector.until(() => collector.batchCountOf(0) === 1);
    await opened.log.append(numberedRecords(0, 10, 10));
    collector.clear();
    collector.seek(0, 3);
    collector.release(0);
    expect(valuesOf(await collector.untilOffset(0, 20))).toEqual(numbers(3, 20));
  });

  it("takes the last of several seeks", async () => {
    const { opened, collector } = await openRead();
    await opened.log.append(numberedRecords(0, 40));
    await collector.untilOffset(0, 40);
    collector.clear();
    for (const from of [0, 10, 39, 20]) collector.seek(0, from);
    await collector.until(() => collector.entriesOf(0).some((entry) => entry.offset === 20));
    const entries = await collector.untilOffset(0, 40);
    expect(valuesOf(entries.slice(entries.findIndex((entry) => entry.offset === 20)))).toEqual(numbers(20, 40));
  });

  it("delivers from the end what is appended after a seek to the end", async () => {
    const { opened, collector } = await openRead();
    await opened.log.append(numberedRecords(2, 5));
    await collector.untilOffset(2, 5);
    collector.clear();
    collector.seek(2, 5);
    await opened.log.append(numberedRecords(2, 5, 5));
    expect(valuesOf(await collector.untilOffset(2, 10))).toEqual(numbers(5, 10));
  });

  it("delivers nothing outside the bounds, and goes on after a seek inside them", async () => {
    const { opened, collector } = await openRead();
    await opened.log.append(numberedRecords(0, 5));
    await collector.untilOffset(0, 5);
    collector.clear();
    collector.seek(0, 1_000);
    await opened.log.append(numberedRecords(1, 5));
    await collector.untilOffset(1, 5);
    await opened.log.append(numberedRecords(0, 5, 5));
    await opened.log.append(numberedRecords(1, 5, 5));
    await collector.untilOffset(1, 10);
    expect(collector.entriesOf(0)).toEqual([]);
    collector.seek(0, 4);
    expect(valuesOf(await collector.untilOffset(0, 10))).toEqual(numbers(4, 10));
  });

  it("ignores a seek of a partition that it does not own", async () => {
    const { opened, collector } = await openRead();
    collector.seek(PARTITION_COUNT, 0);
    await opened.log.append(numberedRecords(0, 2));
    expect(valuesOf(await collector.untilOffset(0, 2))).toEqual(["0", "1"]);
  });
}

function lifeTests(openRead: OpenRead, openOne: () => Promise<EventLogUnderTest>): void {
  it("says what a partition holds", async () => {
    const { opened } = await openOne();
    expect(await opened.log.bounds(1)).toEqual({ earliestOffset: 0, endOffset: 0 });
    await opened.log.append(numberedRecords(1, 7));
    const [ours, another] = await Promise.all([opened.log.bounds(1), opened.log.bounds(0)]);
    expect(ours).toEqual({ earliestOffset: 0, endOffset: 7 });
    expect(another).toEqual({ earliestOffset: 0, endOffset: 0 });
  });

  it("never starts from an advisory commit", async () => {
    const under = await openRead();
    await under.opened.log.append(numberedRecords(0, 10));
    await under.collector.untilOffset(0, 10);
    await under.opened.log.commitAdvisory(
      new Map([
        [0, 8],
        [1, 0],
      ]),
    );
    await under.opened.log.commitAdvisory(new Map([[0, 2]]));
    const reopened = await under.reopen();
    const collector = new LogCollector();
    await collector.subscribeTo(reopened);
    collector.seek(0, 5);
    expect(valuesOf(await collector.untilOffset(0, 10))).toEqual(numbers(5, 10));
  });

  it("G1 keeps everything over a restart and numbers on from there", async () => {
    const under = await openOne();
    await under.opened.log.append([...numberedRecords(0, 20), ...numberedRecords(2, 3)]);
    const reopened = await under.reopen();
    expect(await reopened.log.bounds(0)).toEqual({ earliestOffset: 0, endOffset: 20 });
    await reopened.log.append(numberedRecords(0, 20, 20));
    const collector = new LogCollector();
    await collector.subscribeTo(reopened);
    collector.seek(0, 0);
    collector.seek(2, 0);
    const entries = await collector.untilOffset(0, 40);
    expect(valuesOf(entries)).toEqual(numbers(0, 40));
    expect(entries.map((entry) => entry.offset)).toEqual(numbers(0, 40).map(Number));
    expect(valuesOf(await collector.untilOffset(2, 3))).toEqual(numbers(0, 3));
  });

  it("lets appends finish when it closes, refuses later ones, and closes twice", async () => {
    const under = await openOne();
    const before = under.opened.log.append(numberedRecords(0, 100));
    await Promise.all([before, under.opened.close()]);
    await under.opened.close();
    await expect(under.opened.log.append(numberedRecords(0, 1))).rejects.toMatchObject({
      code: "LOG_UNAVAILABLE",
      action: "retry",
    });
    const { log } = await under.reopen();
    expect((await log.bounds(0)).endOffset).toBe(100);
  });
}

function propertyTests(openRead: OpenRead): void {
  it("reads like an array per partition, for random appends and seeks", async () => {
    const { opened, collector } = await openRead();
    const model: LogRecord[][] = Array.from({ length: PARTITION_COUNT }, () => []);
    const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
    const record = fc.record({
      partition: fc.nat(PARTITION_COUNT - 1),
      key: fc.option(bytes),
      value: fc.option(bytes),
      headers: fc.dictionary(fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" }), bytes, { maxKeys: 3 }),
    });
    const round = fc.record({
      calls: fc.array(fc.array(record, { maxLength: 12 }), { minLength: 1, maxLength: 6 }),
      partition: fc.nat(PARTITION_COUNT - 1),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    await fc.assert(
      fc.asyncProperty(round, async ({ calls, partition, share }) => {
        for (const records of calls) {
          await opened.log.append(records);
          for (const appended of records) model[appended.partition]?.push(appended);
        }
        const all = model[partition] ?? [];
        if (all.length === 0) return;
        const from = Math.floor(share * (all.length - 1));
        collector.clear();
        collector.seek(partition, from);
        const entries = await collector.untilOffset(partition, all.length);
        expect(entries.map((entry) => entry.offset)).toEqual(all.slice(from).map((_, i) => from + i));
        expect(entries.map(contentOf)).toEqual(all.slice(from).map(contentOf));
      }),
      { numRuns: PROPERTY_RUNS, endOnFailure: true, verbose: 1 },
    );
  });
}

/** What must survive the log, in a form that `toEqual` prints well. */
function contentOf(record: Pick<LogRecord, "key" | "value" | "headers">): unknown {
  const headers = Object.entries(record.headers).map(([name, value]): [string, string] => [
    name,
    value.toString("base64"),
  ]);
  return {
    key: record.key?.toString("base64") ?? null,
    value: record.value?.toString("base64") ?? null,
    headers: Object.fromEntries(headers),
  };
}
