import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { type LogRecord, TallyhouseError } from "@tallyhouse/domain";
import type { Kafka, Producer } from "kafkajs";
import { systemClock } from "@tallyhouse/runtime";
import { ByteBudget } from "./byte-budget.ts";
import { hasProtocolCode, KAFKA_RETRY, unavailable } from "./kafka-client.ts";
import { batchMessage } from "./kafkajs-produce.ts";
import { checkProduceAnswer } from "./produce-answer.ts";
import { encodeRecordBatch } from "./record-batch.ts";
import { recordBytes } from "./record-size.ts";

/** The broker's limit of 1 MiB is per partition and request, after compression; before it is the safe side. */
const PARTITION_BYTES_MAX = 921_600;
/** What halving a refused batch may cost: 13 further requests for one record. */
const PARTITION_RECORDS_MAX = 8_192;
/** Above 100 MB a broker cuts the connection; much less already fills it. */
const REQUEST_BYTES_MAX = 8 * 1_048_576;
/** How long one group of records is sent again and again before its callers are told. */
const APPEND_BUDGET_MS = 30_000;
const RESEND_PAUSE_MS = 200;
const BROKER_TIMEOUT_MS = 10_000;
/** Codes MESSAGE_TOO_LARGE and RECORD_LIST_TOO_LARGE. @see https://kafka.apache.org/protocol#protocol_error_codes (read 2026-11) */
const TOO_LARGE_CODES = new Set<unknown>([10, 18]);

interface AppendCall {
  remaining: number;
  resolve(): void;
  reject(error: unknown): void;
}

interface QueuedRecord {
  readonly record: LogRecord;
  readonly bytes: number;
  readonly call: AppendCall;
}

/**
 * The producing side. One request at a time, filled with whatever waits: a second one in flight gained nothing (measured)
 * and would let a resend overtake.
 *
 * Not idempotent in Kafka's sense: with `idempotent: true` kafkajs reuses a sequence number after a request time-out and the
 * broker acknowledges records that it drops as duplicates (measured). Plain sends can only duplicate, and duplicates are
 * counted once.
 */
export class KafkaAppender {
  readonly #kafka: Kafka;
  readonly #topic: string;
  readonly #isCompressed: boolean;
  readonly #budget: ByteBudget;
  #producer: Producer;
  #queue: QueuedRecord[] = [];
  #pumping: Promise<void> | null = null;
  #isClosed = false;

  constructor(input: { kafka: Kafka; topic: string; isCompressed: boolean; bytesInFlightMax: number }) {
    this.#kafka = input.kafka;
    this.#topic = input.topic;
    this.#isCompressed = input.isCompressed;
    this.#budget = new ByteBudget(input.bytesInFlightMax);
    this.#producer = this.#newProducer();
  }

  async connect(): Promise<void> {
    await this.#producer.connect();
  }

  /** See the port. `bytes` is the sum of the records' sizes. */
  async append(records: readonly LogRecord[], bytes: number): Promise<void> {
    const admission = this.#budget.acquire(bytes);
    if (admission !== undefined) await admission;
    try {
      await new Promise<void>((resolve, reject) => {
        const call = { remaining: records.length, resolve, reject };
        for (const record of records) this.#queue.push({ record, bytes: recordBytes(record), call });
        this.#startPump();
      });
    } finally {
      this.#budget.release(bytes);
    }
  }

  /** Waits for what is queued, at most `graceMs`; the rest is refused. */
  async close(graceMs: number): Promise<void> {
    await Promise.race([this.#pumping, sleep(graceMs, undefined, { ref: false })]);
    this.#isClosed = true;
    this.#refuseWaiting(unavailable(`topic ${this.#topic} is closed`));
    await this.#producer.disconnect();
  }

  #startPump(): void {
    this.#pumping ??= nextTurn().then(() => this.#pump());
  }

  async #pump(): Promise<void> {
    while (this.#queue.length > 0 && !this.#isClosed) {
      const group = this.#takeGroup();
      try {
        await this.#send(group, performance.now() + APPEND_BUDGET_MS);
      } catch (error) {
        for (const { call } of group) call.reject(error);
        // Everybody behind has waited as long: telling them now keeps the wait of any call bounded.
        this.#refuseWaiting(error);
      }
    }
    this.#pumping = null;
  }

  #refuseWaiting(error: unknown): void {
    for (const { call } of this.#queue.splice(0)) call.reject(error);
    this.#budget.refuseAll(error);
  }

  /** The longest prefix of the queue that fits one request; at least one record. */
  #takeGroup(): QueuedRecord[] {
    const bytesOf: number[] = [];
    const recordsOf: number[] = [];
    let requestBytes = 0;
    let count = 0;
    for (const { record, bytes } of this.#queue) {
      const { partition } = record;
      const partitionBytes = (bytesOf[partition] ?? 0) + bytes;
      const partitionRecords = (recordsOf[partition] ?? 0) + 1;
      bytesOf[partition] = partitionBytes;
      recordsOf[partition] = partitionRecords;
      requestBytes += bytes;
      const isOver =
        partitionBytes > PARTITION_BYTES_MAX ||
        partitionRecords > PARTITION_RECORDS_MAX ||
        requestBytes > REQUEST_BYTES_MAX;
      if (isOver && count > 0) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  /** Sends until acknowledged; a record that the broker calls too large is found by halving and rejected alone. */
  async #send(group: readonly QueuedRecord[], deadlineMs: number): Promise<void> {
    for (;;) {
      let problem: unknown;
      try {
        problem = await this.#sendOnce(group);
      } catch (error) {
        if (hasProtocolCode(error, TOO_LARGE_CODES)) return this.#sendHalves(group, { deadlineMs, error });
        problem = error;
      }
      if (problem === null) {
        for (const { call } of group) {
          call.remaining -= 1;
          if (call.remaining === 0) call.resolve();
        }
        return;
      }
      // kafkajs's `retriable` is false even for a broker that restarts: everything but "too large" is sent again.
      if (this.#isClosed || performance.now() > deadlineMs) {
        throw unavailable(`topic ${this.#topic} took no records for ${APPEND_BUDGET_MS / 1000} s`, problem);
      }
      await sleep(RESEND_PAUSE_MS);
    }
  }

  /** `null` when every partition acknowledged, else what was wrong; then the producer has fresh metadata. */
  async #sendOnce(group: readonly QueuedRecord[]): Promise<string | null> {
    const byPartition = new Map<number, LogRecord[]>();
    for (const { record } of group) {
      const records = byPartition.get(record.partition);
      if (records === undefined) byPartition.set(record.partition, [record]);
      else records.push(record);
    }
    const options = { timestamp: systemClock.now(), isCompressed: this.#isCompressed };
    const answer = await this.#producer.send({
      topic: this.#topic,
      acks: -1,
      timeout: BROKER_TIMEOUT_MS,
      messages: Array.from(byPartition, ([partition, records]) =>
        batchMessage(partition, encodeRecordBatch(records, options)),
      ),
    });
    const partitions = new Set(byPartition.keys());
    const problem = checkProduceAnswer({ topic: this.#topic, partitions }, answer);
    if (problem !== null) await this.#reconnect();
    return problem;
  }

  async #sendHalves(group: readonly QueuedRecord[], from: { deadlineMs: number; error: unknown }): Promise<void> {
    const [only] = group;
    if (group.length === 1 && only !== undefined) {
      only.call.reject(
        new TallyhouseError({
          code: "LOG_RECORD_TOO_LARGE",
          action: "dead-letter",
          message: `topic ${this.#topic} refuses a record of ${only.bytes} bytes: its max.message.bytes is lower`,
          cause: from.error,
        }),
      );
      return;
    }
    const middle = Math.ceil(group.length / 2);
    await this.#send(group.slice(0, middle), from.deadlineMs);
    await this.#send(group.slice(middle), from.deadlineMs);
  }

  async #reconnect(): Promise<void> {
    const old = this.#producer;
    this.#producer = this.#newProducer();
    await old.disconnect();
    await this.#producer.connect();
  }

  #newProducer(): Producer {
    return this.#kafka.producer({
      idempotent: false,
      allowAutoTopicCreation: false,
      retry: KAFKA_RETRY,
      createPartitioner: () => (input) => {
        // The caller has chosen; kafkajs sees only batches, one for each partition.
        return input.message.partition ?? -1;
      },
    });
  }
}
