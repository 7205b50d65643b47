import { channel } from "node:diagnostics_channel";
import { createRequire } from "node:module";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { TallyhouseError } from "@tallyhouse/domain";
import kafkajs from "kafkajs";
import { mendProduce } from "./kafkajs-produce.ts";

/** The mends below replace methods of this version; another one may have changed what they rely on. */
const KAFKAJS_VERSION = "2.2.4";
/** One fetched batch unpacked. Batches are at most about 1 MiB packed; 128 MiB stops a bomb before it stops the process. */
const UNPACKED_BYTES_MAX = 134_217_728;
/** Control record keys hold version and type, two bytes each; type 0 aborts. @see https://kafka.apache.org/documentation/#controlbatch (read 2026-11) */
const ABORT_TYPE = 0;

/** How this package packs batches. */
export const ZSTD_PARAMETERS = { [constants.ZSTD_c_compressionLevel]: 1 };

const require = createRequire(import.meta.url);
const mended = new WeakSet<object>();

/** The parts of kafkajs's RequestQueue that the timer mend touches. */
export interface RequestQueueLike {
  readonly pending: readonly unknown[];
  scheduleCheckPendingRequests: (this: RequestQueueLike) => void;
}

/** One record of a fetch answer, as kafkajs decodes it. */
export interface RawMessage {
  readonly offset: string;
  readonly timestamp: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer | readonly Buffer[] | null>>;
  isControlRecord: boolean;
  readonly batchContext: {
    readonly producerId: string;
    readonly inTransaction: boolean;
    readonly timestampType: number;
  };
}

/** One partition of a fetch answer. */
export interface FetchedPartition {
  abortedTransactions: readonly { readonly producerId: string; readonly firstOffset: string }[] | null;
  readonly messages: readonly RawMessage[];
}

/**
 * Every partition of every fetch answer of this process. The only place where the high watermark behind an open transaction
 * can be seen: such answers are empty, and kafkajs says nothing of empty answers.
 */
export const fetchedChannel = channel("tallyhouse.kafkajs.fetched");

/** What {@link fetchedChannel} carries. */
export interface FetchedNotice {
  readonly topic: string;
  readonly partition: number;
  /** The end with what open transactions hold back. */
  readonly highWatermark: number;
}

interface DecodedHeader {
  readonly key: string;
  readonly value: Buffer | null;
}

interface DecoderLike {
  readVarIntArray: (this: DecoderLike, reader: unknown) => DecodedHeader[];
}

interface BrokerLike {
  fetch: (this: BrokerLike, request: unknown) => Promise<{ responses: FetchedTopic[] }>;
}

interface FetchedTopic {
  readonly topicName: string;
  readonly partitions: readonly (FetchedPartition & { readonly partition: number; readonly highWatermark: string })[];
}

/**
 * Makes kafkajs fit for use; every client of this package calls it first. Safe to repeat.
 * @throws {TallyhouseError} LOG_MISCONFIGURED (halt) for another version than 2.2.4.
 */
export function mendKafkajs(version = (require("kafkajs/package.json") as { version: string }).version): void {
  if (version !== KAFKAJS_VERSION) {
    throw new TallyhouseError({
      code: "LOG_MISCONFIGURED",
      action: "halt",
      message: `kafkajs ${version} is installed; the repairs in kafkajs-mends.ts were made for ${KAFKAJS_VERSION}`,
    });
  }
  const queue = (require("kafkajs/src/network/requestQueue") as { prototype: RequestQueueLike }).prototype;
  const broker = (require("kafkajs/src/broker") as { prototype: BrokerLike }).prototype;
  const decoder = (require("kafkajs/src/protocol/decoder") as { prototype: DecoderLike }).prototype;
  mendOnce(queue, mendTimer);
  mendOnce(decoder, mendHeaders);
  mendOnce(broker, mendFetch);
  mendOnce(require("kafkajs/src/protocol/requests/produce") as object, mendProduce);
  // On every client, also one that does not write it: a batch in an unregistered codec crashes a consumer for ever.
  kafkajs.CompressionCodecs[kafkajs.CompressionTypes.ZSTD] = () => ({
    compress: async (encoder: { buffer: Buffer }) => zstdCompressSync(encoder.buffer, { params: ZSTD_PARAMETERS }),
    decompress: async (packed: Buffer) => zstdDecompressSync(packed, { maxOutputLength: UNPACKED_BYTES_MAX }),
  });
}

function mendOnce<Target extends object>(target: Target, mend: (target: Target) => void): void {
  if (mended.has(target)) return;
  mended.add(target);
  mend(target);
}

/**
 * An idle connection re-arms a timer 856 times a second (kafkajs issue 1704; 28 ms of CPU per second, measured). With
 * nothing pending there is nothing to check: a later push schedules for itself.
 */
function mendTimer(queue: RequestQueueLike): void {
  const original = queue.scheduleCheckPendingRequests;
  queue.scheduleCheckPendingRequests = function scheduleWhenPending(this: RequestQueueLike): void {
    if (this.pending.length > 0) original.call(this);
  };
}

/**
 * kafkajs copies all headers so far for each further one: a record with 70,000 of them stands the event loop still for
 * minutes, the watchdog ends the process, and the next one meets the same record. Here they are collected in linear time, to
 * the same result: a repeated name gives an array. Header lists are the only arrays of this kind.
 */
function mendHeaders(decoder: DecoderLike): void {
  const original = decoder.readVarIntArray;
  decoder.readVarIntArray = function readHeaders(this: DecoderLike, reader: unknown): DecodedHeader[] {
    const headers = original.call(this, reader);
    return Object.assign(headers, { reduce: () => headersByName(headers) });
  };
}

function headersByName(headers: readonly DecodedHeader[]): RawMessage["headers"] {
  // Without a prototype: a header may be called `__proto__`.
  const named = Object.create(null) as Record<string, (Buffer | null) | (Buffer | null)[]>;
  for (const { key, value } of headers) {
    const known = named[key];
    if (known === undefined) named[key] = value;
    else if (Array.isArray(known)) known.push(value);
    else named[key] = [known, value];
  }
  return named as RawMessage["headers"];
}

/** Does the work of kafkajs's own filter before it, see {@link markAbortedRecords}, and tells {@link fetchedChannel}. */
function mendFetch(broker: BrokerLike): void {
  const original = broker.fetch;
  broker.fetch = async function fetchMarked(this: BrokerLike, request: unknown) {
    const answer = await original.call(this, request);
    for (const { topicName, partitions } of answer.responses) {
      for (const fetched of partitions) {
        markAbortedRecords(fetched);
        const { partition, highWatermark } = fetched;
        const notice: FetchedNotice = { topic: topicName, partition, highWatermark: Number(highWatermark) };
        fetchedChannel.publish(notice);
      }
    }
    return answer;
  };
}

/**
 * Marks the records of aborted transactions as control records and empties the list of those transactions.
 *
 * kafkajs enters one transaction per record and takes the list as sorted by offset, but brokers list transactions as they
 * ended: with two producers' transactions interleaved it delivers aborted records, and which ones depends on where the
 * fetch began. Usage would be counted that never happened, and a replay would count differently.
 * @see https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/clients/consumer/internals/CompletedFetch.java (read 2026-11)
 */
export function markAbortedRecords(partition: FetchedPartition): void {
  const { abortedTransactions } = partition;
  if (abortedTransactions === null || abortedTransactions.length === 0) return;
  const waiting = abortedTransactions.toSorted((a, b) => Number(a.firstOffset) - Number(b.firstOffset));
  const aborted = new Set<string>();
  let next = 0;
  for (const message of partition.messages) {
    for (let begun = waiting[next]; begun !== undefined && Number(begun.firstOffset) <= Number(message.offset);) {
      aborted.add(begun.producerId);
      next += 1;
      begun = waiting[next];
    }
    const { producerId, inTransaction } = message.batchContext;
    if (message.isControlRecord) {
      if (message.key !== null && message.key.length >= 4 && message.key.readInt16BE(2) === ABORT_TYPE)
        aborted.delete(producerId);
    } else if (inTransaction && aborted.has(producerId)) {
      message.isControlRecord = true;
    }
  }
  partition.abortedTransactions = [];
}
