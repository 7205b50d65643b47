import { createRequire } from "node:module";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { TallyhouseError } from "@tallyhouse/domain";
import { CompressionCodecs, CompressionTypes } from "kafkajs";

/** The mends below replace methods of this version; another one may have changed what they rely on. */
const KAFKAJS_VERSION = "2.2.4";
/** One fetched batch unpacked. Batches are at most about 1 MiB packed; 128 MiB stops a bomb before it stops the process. */
const UNPACKED_BYTES_MAX = 134_217_728;
/** Control record keys hold version and type, two bytes each; type 0 aborts. @see https://kafka.apache.org/documentation/#controlbatch (read 2026-11) */
const ABORT_TYPE = 0;

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

interface BrokerLike {
  fetch: (this: BrokerLike, request: unknown) => Promise<{ responses: { partitions: FetchedPartition[] }[] }>;
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
  mendOnce(queue, mendTimer);
  mendOnce(broker, mendAbortedRecords);
  // On every client, also one that does not write it: a batch in an unregistered codec crashes a consumer for ever.
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async (encoder: { buffer: Buffer }) =>
      zstdCompressSync(encoder.buffer, { params: { [constants.ZSTD_c_compressionLevel]: 1 } }),
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

/** Does the work of kafkajs's own filter before it, see {@link markAbortedRecords}. */
function mendAbortedRecords(broker: BrokerLike): void {
  const original = broker.fetch;
  broker.fetch = async function fetchWithAbortedMarked(this: BrokerLike, request: unknown) {
    const answer = await original.call(this, request);
    for (const { partitions } of answer.responses) for (const partition of partitions) markAbortedRecords(partition);
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
