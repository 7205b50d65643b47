/** Produce requests whose record batches are encoded already; everything else about a send stays kafkajs's. */
import { createRequire } from "node:module";
import { assert } from "@tallyhouse/domain";
import type { Message, ProducerRecord } from "kafkajs";

const require = createRequire(import.meta.url);
/** The first version whose batches have magic 2; Kafka 4 takes none below. */
const VERSION_MIN = 3;

/** A batch in the place of a message: one for each partition of a send. */
export interface BatchMessage extends Message {
  readonly partition: number;
  readonly value: Buffer;
  readonly isRecordBatch: true;
}

/** Puts a batch of encodeRecordBatch where kafkajs expects a message. */
export function batchMessage(partition: number, batch: Buffer): BatchMessage {
  return { partition, value: batch, isRecordBatch: true };
}

interface PartitionData {
  readonly partition: number;
  readonly messages: readonly (Message | BatchMessage)[];
}

interface ProduceInput extends Readonly<Required<Pick<ProducerRecord, "acks" | "timeout">>> {
  readonly topicData: readonly { readonly topic: string; readonly partitions: readonly PartitionData[] }[];
}

interface EncodedLike {
  readonly buf: Buffer;
  readonly buffer: Buffer;
}

interface ProduceLike {
  protocol: (options: { version: number }) => (input: ProduceInput) => {
    readonly request: { readonly encode: () => Promise<EncodedLike> };
    readonly response: unknown;
  };
}

/**
 * Teaches kafkajs's produce request to send a {@link BatchMessage} as it is. Which broker leads a partition, how requests queue, what
 * is tried again and what an answer says stays as it was.
 */
export function mendProduce(): void {
  const { requests } = require("kafkajs/src/protocol/requests") as { requests: { Produce: ProduceLike } };
  const produce = requests.Produce;
  const original = produce.protocol;
  produce.protocol = ({ version }) => {
    const make = original({ version });
    return (input) => {
      const made = make(input);
      if (!isOfBatches(input)) return made;
      assert(version >= VERSION_MIN, "a broker takes record batches");
      return { ...made, request: { ...made.request, encode: async () => encoded(input) } };
    };
  };
}

function isOfBatches({ topicData }: ProduceInput): boolean {
  return topicData.every(({ partitions }) =>
    partitions.every(({ messages }) => "isRecordBatch" in (messages[0] ?? {})),
  );
}

/** transactional id: null | i16 acks | i32 timeout | topics: name, partitions: i32 partition, i32 length, batch. */
function encoded({ acks, timeout, topicData }: ProduceInput): EncodedLike {
  const parts: Buffer[] = [Buffer.alloc(12)];
  parts[0]?.writeInt16BE(-1, 0);
  parts[0]?.writeInt16BE(acks, 2);
  parts[0]?.writeInt32BE(timeout, 4);
  parts[0]?.writeInt32BE(topicData.length, 8);
  for (const { topic, partitions } of topicData) {
    const name = Buffer.from(topic, "utf8");
    const lengths = Buffer.alloc(6 + name.length);
    lengths.writeInt16BE(name.length, 0);
    name.copy(lengths, 2);
    lengths.writeInt32BE(partitions.length, 2 + name.length);
    parts.push(lengths);
    for (const { partition, messages } of partitions) {
      const [message] = messages;
      assert(messages.length === 1 && Buffer.isBuffer(message?.value), "a partition's records are one batch");
      const head = Buffer.alloc(8);
      head.writeInt32BE(partition, 0);
      head.writeInt32BE(message.value.length, 4);
      parts.push(head, message.value);
    }
  }
  const buffer = Buffer.concat(parts);
  return { buf: buffer, buffer };
}
