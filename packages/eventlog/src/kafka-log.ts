import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  assert,
  type EventLog,
  type LogBounds,
  type LogRecord,
  type LogSubscriber,
  type OpenedEventLog,
  TallyhouseError,
} from "@tallyhouse/domain";
import type { Admin, Kafka } from "kafkajs";
import { KafkaAppender } from "./kafka-appender.ts";
import { KafkaBounds } from "./kafka-bounds.ts";
import { createKafka, isLocal, KAFKA_RETRY, type KafkaClientOptions, unavailable } from "./kafka-client.ts";
import { KafkaReader } from "./kafka-reader.ts";
import { checkTopic } from "./kafka-topic.ts";
import { checkedRecordBytes } from "./record-size.ts";

/** Two requests' worth: one in flight, one filling. More only grows memory while a broker is away. */
const BYTES_IN_FLIGHT_MAX = 16 * 1_048_576;
const CLOSE_GRACE_MS = 5_000;

/** See {@link openKafkaLog}. */
export interface KafkaLogOptions extends KafkaClientOptions {
  readonly topic: string;
  /** The stream's, checked against the topic's. */
  readonly partitionCount: number;
  readonly groupId: string;
  /**
   * `group`: the processes of `groupId` share the partitions. `fixed`: this one process owns them all, in a private group
   * named after `groupId`; a successor starts at once instead of waiting for the old member's session.
   */
  readonly ownership: "group" | "fixed";
  /** Bytes accepted and not yet acknowledged; appends wait beyond. Default 16 MiB. */
  readonly bytesInFlightMax?: number;
}

/**
 * Opens a topic that exists, through kafkajs. See ensureTopic for making it.
 * @throws {TallyhouseError} LOG_MISCONFIGURED (halt): the topic breaks the log contract, all faults named, or kafkajs has
 *   another version. LOG_UNAVAILABLE (retry): no broker answers.
 */
export async function openKafkaLog(options: KafkaLogOptions): Promise<OpenedEventLog> {
  const kafka = createKafka(options);
  const log = new KafkaLog(options, kafka);
  try {
    await log.open();
  } catch (error) {
    await log.close();
    if (error instanceof TallyhouseError) throw error;
    throw unavailable(`Kafka at ${options.brokers.join(", ")} does not answer`, error);
  }
  return { log, failed: log.failed, close: () => log.close() };
}

class KafkaLog implements EventLog {
  readonly name: string;
  readonly partitionCount: number;
  readonly failed: Promise<never>;
  readonly #options: KafkaLogOptions;
  readonly #kafka: Kafka;
  readonly #admin: Admin;
  readonly #bounds: KafkaBounds;
  readonly #appender: KafkaAppender;
  readonly #rejectFailed: (error: unknown) => void;
  #reader: KafkaReader | null = null;
  #closing: Promise<void> | null = null;

  constructor(options: KafkaLogOptions, kafka: Kafka) {
    this.name = options.topic;
    this.partitionCount = options.partitionCount;
    this.#options = options;
    this.#kafka = kafka;
    this.#admin = kafka.admin({ retry: KAFKA_RETRY });
    this.#bounds = new KafkaBounds(this.#admin, options.topic);
    this.#appender = new KafkaAppender({
      kafka,
      topic: options.topic,
      isCompressed: !isLocal(options.brokers),
      bytesInFlightMax: options.bytesInFlightMax ?? BYTES_IN_FLIGHT_MAX,
    });
    const { promise, reject } = Promise.withResolvers<never>();
    // A caller that looks at `failed` late must not turn the failure into an unhandled rejection.
    promise.catch(() => undefined);
    this.failed = promise;
    this.#rejectFailed = reject;
  }

  async open(): Promise<void> {
    await this.#admin.connect();
    await checkTopic(this.#admin, { topic: this.name, partitionCount: this.partitionCount });
    await this.#appender.connect();
  }

  async append(records: readonly LogRecord[]): Promise<void> {
    if (this.#closing !== null) throw unavailable(`topic ${this.name} is closed`);
    const bytes = checkedRecordBytes(records, this);
    if (records.length > 0) await this.#appender.append(records, bytes);
  }

  async subscribe(subscriber: LogSubscriber): Promise<void> {
    assert(this.#reader === null, "a log has one subscriber");
    const { topic, partitionCount, groupId, ownership, logger } = this.#options;
    this.#reader = new KafkaReader({
      kafka: this.#kafka,
      topic,
      partitionCount,
      groupId: ownership === "fixed" ? `${groupId}.${randomUUID()}` : groupId,
      ownership,
      subscriber,
      allBounds: () => this.#bounds.all(),
      fail: this.#rejectFailed,
      logger,
    });
    await this.#reader.start();
  }

  seek(partition: number, offset: number): void {
    this.#reader?.seek(partition, offset);
  }

  bounds(partition: number): Promise<LogBounds> {
    return this.#bounds.of(partition);
  }

  async commitAdvisory(offsets: ReadonlyMap<number, number>): Promise<void> {
    await this.#reader?.commit(offsets);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const ends = [this.#reader?.close(), this.#appender.close(CLOSE_GRACE_MS), this.#admin.disconnect()];
    const all = Promise.allSettled(ends.map((end) => Promise.resolve(end)));
    // Leaving a group whose broker is away may hang: the sockets die with the process.
    await Promise.race([all, sleep(CLOSE_GRACE_MS, undefined, { ref: false })]);
  }
}
