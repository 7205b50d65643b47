import { createRequire } from "node:module";
import type { LogRecord } from "@tallyhouse/domain";
import fc from "fast-check";
import type { Message } from "kafkajs";
import { beforeAll, expect, test } from "vitest";
import { batchMessage } from "./kafkajs-produce.ts";
import { mendKafkajs } from "./kafkajs-mends.ts";
import { encodeRecordBatch } from "./record-batch.ts";

interface Encoded {
  readonly request: { encode(): Promise<{ readonly buffer: Buffer }> };
}
type Produce = (options: { version: number }) => (input: object) => Encoded;
interface DecodedRecord {
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
  readonly offset: string;
  readonly timestamp: string;
}

const require = createRequire(import.meta.url);
const { protocol: produceOfKafkajs } = require("kafkajs/src/protocol/requests/produce") as { protocol: Produce };
const { requests } = require("kafkajs/src/protocol/requests") as { requests: { Produce: { protocol: Produce } } };
const Decoder = require("kafkajs/src/protocol/decoder") as new (bytes: Buffer) => unknown;
const decodeBatch = require("kafkajs/src/protocol/recordBatch/v0/decoder") as (
  decoder: unknown,
) => Promise<{ readonly records: readonly DecodedRecord[] }>;

const TIMESTAMP = 1_795_168_800_123;
beforeAll(() => {
  mendKafkajs();
});

const part = fc.oneof(
  { weight: 8, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)) },
  { weight: 1, arbitrary: fc.integer({ min: 60, max: 2_000 }).map((length) => Buffer.alloc(length, "x")) },
);
const record: fc.Arbitrary<LogRecord> = fc.record({
  partition: fc.constant(3),
  key: fc.option(part),
  value: fc.option(part),
  headers: fc.dictionary(fc.string({ minLength: 1, maxLength: 70 }), part, { maxKeys: 3, noNullPrototype: true }),
});

/** kafkajs's own produce request of the same records. */
async function kafkajsRequest(input: object, records: readonly LogRecord[]): Promise<Buffer> {
  const messages = records.map(({ key, value, headers }): Message => ({
    key,
    value,
    headers,
    timestamp: `${TIMESTAMP}`,
  }));
  const { request } = produceOfKafkajs({ version: 7 })({ ...input, topicData: topicData(messages) });
  return (await request.encode()).buffer;
}

function topicData(messages: readonly Message[]): object {
  return [{ topic: "töpic", partitions: [{ partition: 3, firstSequence: 0, messages }] }];
}

test("a produce request of batches is kafkajs's request of the same records, byte for byte", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 150 }), async (records) => {
      const input = { acks: -1, timeout: 10_000, compression: 0 };
      const batch = encodeRecordBatch(records, { timestamp: TIMESTAMP, isCompressed: false });
      const { request } = requests.Produce.protocol({ version: 7 })({
        ...input,
        topicData: topicData([batchMessage(3, batch)]),
      });
      const encoded = await request.encode();
      expect(encoded.buffer.equals(await kafkajsRequest(input, records))).toBe(true);
    }),
    { numRuns: 200 },
  );
});

test("a packed batch holds the same records", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 40 }), async (records) => {
      const batch = encodeRecordBatch(records, { timestamp: TIMESTAMP, isCompressed: true });
      const decoded = await decodeBatch(new Decoder(batch));
      expect(
        decoded.records.map(({ key, value, headers, offset, timestamp }) => [key, value, headers, offset, timestamp]),
      ).toEqual(
        records.map(({ key, value, headers }, offset) => [key, value, { ...headers }, `${offset}`, `${TIMESTAMP}`]),
      );
    }),
    { numRuns: 20 },
  );
});
