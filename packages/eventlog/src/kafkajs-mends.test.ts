import { createRequire } from "node:module";
import kafkajs from "kafkajs";
import { partitionOfKey } from "@tallyhouse/domain";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { type FetchedPartition, markAbortedRecords, mendKafkajs, type RawMessage } from "./kafkajs-mends.ts";

interface RequestQueue {
  pending: { sent: boolean }[];
  inflight: Map<number, unknown>;
  throttledUntil: number;
  throttleCheckTimeoutId: NodeJS.Timeout | null;
  checkPendingRequests(): void;
  push(request: object): void;
  fulfillRequest(answer: object): void;
  destroy(): void;
}
type RequestQueueClass = new (options: object) => RequestQueue;

const require = createRequire(import.meta.url);
const RequestQueue = require("kafkajs/src/network/requestQueue") as RequestQueueClass;
const logger = { debug: () => undefined, warn: () => undefined };

function newQueue(): RequestQueue {
  return new RequestQueue({ maxInFlightRequests: 1, requestTimeout: 1_000, clientId: "t", broker: "b", logger });
}

function request(correlationId: number, sent: number[]): object {
  return {
    entry: { correlationId, apiName: "x", apiKey: 0, apiVersion: 0, resolve: () => undefined, reject: () => undefined },
    expectResponse: true,
    sendRequest: () => sent.push(correlationId),
  };
}

describe("timer mend", () => {
  const queues: RequestQueue[] = [];
  afterEach(() => {
    for (const queue of queues.splice(0)) queue.destroy();
  });

  it("finds in kafkajs what it repairs: an idle queue that arms a timer", async () => {
    // A second copy of the module, which no mend has touched.
    const path = require.resolve("kafkajs/src/network/requestQueue");
    const mended = require.cache[path];
    delete require.cache[path];
    const Unmended = require(path) as RequestQueueClass;
    if (mended !== undefined) require.cache[path] = mended;
    const queue = new Unmended({ requestTimeout: 1_000, clientId: "t", broker: "b", logger });
    queues.push(queue);
    queue.checkPendingRequests();
    expect(queue.throttleCheckTimeoutId).not.toBeNull();
  });

  it("arms no timer with nothing pending, however often an answer arrives", () => {
    mendKafkajs();
    const queue = newQueue();
    queues.push(queue);
    const timersBefore = process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;
    const sent: number[] = [];
    for (let id = 0; id < 100; id += 1) {
      queue.push(request(id, sent));
      queue.fulfillRequest({ correlationId: id, payload: null, size: 0 });
    }
    expect(sent).toHaveLength(100);
    expect(queue.throttleCheckTimeoutId).toBeNull();
    expect(process.getActiveResourcesInfo().filter((kind) => kind === "Timeout")).toHaveLength(timersBefore);
  });

  it("still sends what had to wait, at the next answer or when a throttle ends", async () => {
    mendKafkajs();
    const queue = newQueue();
    queues.push(queue);
    const sent: number[] = [];
    queue.push(request(1, sent));
    queue.push(request(2, sent));
    expect(sent).toEqual([1]);
    expect(queue.throttleCheckTimeoutId).not.toBeNull();
    queue.fulfillRequest({ correlationId: 1, payload: null, size: 0 });
    expect(sent).toEqual([1, 2]);
    queue.fulfillRequest({ correlationId: 2, payload: null, size: 0 });

    queue.throttledUntil = performance.timeOrigin + performance.now() + 30;
    await new Promise<void>((resolve) => {
      const waiting = request(3, sent) as { sendRequest: () => void };
      waiting.sendRequest = () => resolve();
      queue.push(waiting);
      expect(sent).toEqual([1, 2]);
    });
  });

  it("refuses another version of kafkajs", () => {
    expect(() => mendKafkajs("2.3.0")).toThrow(/2\.3\.0/u);
  });
});

it("registers zstd, and unpacks what it packed", async () => {
  mendKafkajs();
  const codec = (
    kafkajs.CompressionCodecs[kafkajs.CompressionTypes.ZSTD] as () => {
      compress(encoder: { buffer: Buffer }): Promise<Buffer>;
      decompress(packed: Buffer): Promise<Buffer>;
    }
  )();
  const bytes = Buffer.from("usage ".repeat(10_000));
  const packed = await codec.compress({ buffer: bytes });
  expect(packed.length).toBeLessThan(bytes.length / 10);
  expect((await codec.decompress(packed)).equals(bytes)).toBe(true);
});

it("partitions like kafkajs's Java-compatible partitioner", () => {
  const partition = kafkajs.Partitioners.DefaultPartitioner();
  fc.assert(
    fc.property(fc.string({ minLength: 1, unit: "grapheme" }), fc.integer({ min: 1, max: 64 }), (key, count) => {
      const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({ partitionId, leader: 1 }));
      const theirs = partition({
        topic: "t",
        partitionMetadata: partitionMetadata as Parameters<typeof partition>[0]["partitionMetadata"],
        message: { key: Buffer.from(key), value: null },
      });
      expect(partitionOfKey(Buffer.from(key), count)).toBe(theirs);
    }),
    { numRuns: 1_000 },
  );
});

describe("aborted records", () => {
  const COMMIT = Buffer.from([0, 0, 0, 1]);
  const ABORT = Buffer.from([0, 0, 0, 0]);

  function message(
    offset: number,
    producerId: string,
    rest: Partial<RawMessage> & { inTransaction?: boolean } = {},
  ): RawMessage {
    const { inTransaction = true, ...others } = rest;
    return {
      offset: String(offset),
      timestamp: "0",
      key: null,
      value: Buffer.from(String(offset)),
      headers: {},
      isControlRecord: false,
      batchContext: { producerId, inTransaction, timestampType: 1 },
      ...others,
    };
  }
  const marker = (offset: number, producerId: string, key: Buffer): RawMessage =>
    message(offset, producerId, { key, isControlRecord: true });

  function readable(partition: FetchedPartition): number[] {
    markAbortedRecords(partition);
    expect(partition.abortedTransactions ?? []).toEqual([]);
    return partition.messages.filter((found) => !found.isControlRecord).map(({ offset }) => Number(offset));
  }

  it("takes transactions in the order of their first offsets, however the broker lists them", () => {
    const messages = [
      message(5, "B"),
      message(6, "B"),
      message(10, "A"),
      marker(12, "A", ABORT),
      message(13, "B"),
      marker(15, "B", ABORT),
    ];
    const abortedTransactions = [
      { producerId: "A", firstOffset: "10" },
      { producerId: "B", firstOffset: "5" },
    ];
    expect(readable({ messages, abortedTransactions })).toEqual([]);
  });

  it("takes every transaction that was open where the fetch began", () => {
    const messages = [
      message(20, "B"),
      message(21, "A"),
      message(22, "C"),
      marker(23, "A", ABORT),
      marker(24, "B", ABORT),
    ];
    const abortedTransactions = [
      { producerId: "A", firstOffset: "3" },
      { producerId: "B", firstOffset: "4" },
    ];
    expect(readable({ messages, abortedTransactions })).toEqual([22]);
  });

  it("leaves committed transactions, plain records, and a producer's next transaction", () => {
    const messages = [
      message(0, "A"),
      message(1, "A", { inTransaction: false, key: ABORT }),
      marker(2, "A", ABORT),
      message(3, "A"),
      marker(4, "A", COMMIT),
    ];
    expect(readable({ messages, abortedTransactions: [{ producerId: "A", firstOffset: "0" }] })).toEqual([1, 3]);
    expect(readable({ messages: [message(0, "A")], abortedTransactions: null })).toEqual([0]);
  });
});

describe("headers mend", () => {
  /** A record as it stands in a batch, with the given headers of empty values. */
  function recordBytes(names: readonly string[]): Buffer {
    const varint = (value: number): number[] => {
      const bytes: number[] = [];
      // Zigzag: the counts and lengths here are not negative.
      for (let rest = value * 2; ; rest = Math.floor(rest / 128)) {
        if (rest < 128) return [...bytes, rest];
        bytes.push((rest % 128) + 128);
      }
    };
    const headers = names.map((name) =>
      Buffer.concat([
        Buffer.from(varint(Buffer.byteLength(name))),
        Buffer.from(name),
        Buffer.from(varint(1)),
        Buffer.from("v"),
      ]),
    );
    // Attributes, timestamp delta, offset delta, null key, null value.
    return Buffer.concat([Buffer.from([0, 0, 0, 1, 1]), Buffer.from(varint(names.length)), ...headers]);
  }

  function decode(names: readonly string[]): RawMessage {
    mendKafkajs();
    const Decoder = require("kafkajs/src/protocol/decoder") as new (bytes: Buffer) => object;
    const decodeRecord = require("kafkajs/src/protocol/recordBatch/record/v0/decoder") as (
      decoder: object,
      context: object,
    ) => RawMessage;
    return decodeRecord(new Decoder(recordBytes(names)), { firstOffset: "0", firstTimestamp: "0", magicByte: 2 });
  }

  it("gives what kafkajs gives: a buffer for each name, an array for a repeated one", () => {
    const { headers } = decode(["a", "b", "a", "__proto__", "a"]);
    const v = Buffer.from("v");
    expect(Object.entries(headers)).toEqual([
      ["a", [v, v, v]],
      ["b", v],
      ["__proto__", v],
    ]);
  });

  it("G9 a record of 300,000 headers does not stand the event loop still", () => {
    // Unmended it takes longer than any test may.
    const names = Array.from({ length: 300_000 }, (_, n) => `h${n}`);
    expect(Object.keys(decode(names).headers)).toHaveLength(300_000);
  });
});
