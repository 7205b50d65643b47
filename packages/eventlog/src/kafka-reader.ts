import { setTimeout as sleep } from "node:timers/promises";
import { type LogBounds, type LogSubscriber, TallyhouseError } from "@tallyhouse/domain";
import type { Logger } from "@tallyhouse/runtime";
import kafkajs, { type Cluster, type Consumer, type EachBatchPayload, type Kafka } from "kafkajs";
import { FIXED_ASSIGNER } from "./kafka-assigner.ts";
import { KAFKA_RETRY, unavailable } from "./kafka-client.ts";
import { dismissNamesakes } from "./kafka-dismissal.ts";
import { markerRange, toEntries } from "./kafka-entries.ts";
import { KafkaFeed } from "./kafka-feed.ts";
import { ConsumerWatchdog, type PartitionLag } from "./kafka-watchdog.ts";
import { fetchedChannel, type FetchedNotice, type RawMessage } from "./kafkajs-mends.ts";

/** How long the partitions of a machine that is gone stand still; a process that comes back dismisses its former self. */
const SESSION_TIMEOUT_MS = 10_000;
const REBALANCE_TIMEOUT_MS = 10_000;
/** A member hears of a rebalance from its next heartbeat, and all others wait for it: half a second costs two requests a second. */
const HEARTBEAT_INTERVAL_MS = 500;
/** Larger fetches gave no throughput and cost memory (measured). */
const FETCH_PARTITION_BYTES_MAX = 262_144;
const FETCH_BYTES_MAX = 10_485_760;
const FETCH_WAIT_MS = 100;
const WATCH_EVERY_MS = 1_000;
const LAG_CHECK_EVERY = 20;
/** Answers at a wrong position in a row, all inside the bounds, before the partition counts as unreadable. */
const MISMATCHES_MAX = 20;
/** A broker that has just started answers for a few seconds that its coordinator is loading; kafkajs gives up at once. */
const JOIN_ATTEMPTS = 15;
const JOIN_PAUSE_MS = 1_000;

/** See {@link KafkaReader}. */
export interface KafkaReaderInput {
  readonly kafka: Kafka;
  readonly topic: string;
  readonly partitionCount: number;
  readonly groupId: string;
  readonly ownership: "group" | "fixed";
  /** What members of the group are called that this process left there when it died; null when nobody is known to be ours. */
  readonly namesake: string | null;
  /** See KafkaLogOptions. */
  readonly sessionTimeoutMs: number | undefined;
  readonly subscriber: LogSubscriber;
  readonly allBounds: () => Promise<ReadonlyMap<number, LogBounds>>;
  /** Called once or more; the first cause counts. */
  readonly fail: (error: unknown) => void;
  readonly logger: Logger | undefined;
}

/**
 * The consuming side. kafkajs only fetches: positions are ours, delivery is ours, and nothing is awaited in its callbacks,
 * because one slow handler holds up every partition of that broker and the heartbeat with them.
 */
export class KafkaReader {
  readonly #input: KafkaReaderInput;
  readonly #consumer: Consumer;
  readonly #feeds: readonly KafkaFeed[];
  readonly #mismatches: number[] = [];
  readonly #highWatermarks: number[] = [];
  readonly #onFetched = (message: unknown): void => {
    const { topic, partition, highWatermark } = message as FetchedNotice;
    if (topic === this.#input.topic) this.#highWatermarks[partition] = highWatermark;
  };
  /** The consumer's own connections; kafkajs shows them to partition assigners alone. */
  #cluster: Cluster | null = null;
  #joining = Promise.withResolvers<void>();
  #hasJoined = false;
  #hasFailed = false;
  #owned: ReadonlySet<number> = new Set();
  #watchdog: ConsumerWatchdog | null = null;
  #watchTimer: NodeJS.Timeout | null = null;
  #checks = 0;
  #isClosed = false;

  constructor(input: KafkaReaderInput) {
    this.#input = input;
    const { topic, subscriber, partitionCount } = input;
    const assigner = input.ownership === "fixed" ? FIXED_ASSIGNER : kafkajs.PartitionAssigners.roundRobin;
    this.#consumer = input.kafka.consumer({
      groupId: input.groupId,
      partitionAssigners: [
        (config) => {
          this.#cluster = config.cluster;
          return assigner(config);
        },
      ],
      sessionTimeout: input.sessionTimeoutMs ?? SESSION_TIMEOUT_MS,
      rebalanceTimeout: input.sessionTimeoutMs ?? REBALANCE_TIMEOUT_MS,
      heartbeatInterval: HEARTBEAT_INTERVAL_MS,
      maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
      maxBytes: FETCH_BYTES_MAX,
      maxWaitTimeInMs: FETCH_WAIT_MS,
      allowAutoTopicCreation: false,
      // A restart inside kafkajs would join with positions that nobody gave it: the process ends instead.
      retry: { ...KAFKA_RETRY, retries: 5, restartOnFailure: async () => false },
    });
    this.#feeds = Array.from({ length: partitionCount }, (_, partition) => {
      const place = [{ topic, partitions: [partition] }];
      const control = { pause: () => this.#consumer.pause(place), resume: () => this.#consumer.resume(place) };
      return new KafkaFeed({ partition, subscriber, control });
    });
  }

  /** Resolves after the first assignment was reported. @throws {TallyhouseError} LOG_UNAVAILABLE (retry). */
  async start(): Promise<void> {
    const { events } = this.#consumer;
    this.#consumer.on(events.GROUP_JOIN, ({ payload }) => this.#onJoin(payload.memberAssignment));
    this.#consumer.on(events.FETCH, () => this.#watchdog?.noteFetch(performance.now()));
    this.#consumer.on(events.HEARTBEAT, () => this.#watchdog?.noteHeartbeat(performance.now()));
    this.#consumer.on(events.START_BATCH_PROCESS, ({ payload }) => {
      if (payload.batchSize === 0) this.#onUnreadableRange(payload);
    });
    this.#consumer.on(events.CRASH, ({ payload: { error } }) => {
      const crash = unavailable(`the consumer of topic ${this.#input.topic} crashed: ${error.message}`, error);
      if (this.#hasJoined) this.#fail(crash);
      else this.#joining.reject(crash);
    });
    fetchedChannel.subscribe(this.#onFetched);
    for (const { delivery } of this.#feeds) delivery.run().catch((error: unknown) => this.#fail(error));
    for (let attempt = 1; !this.#isClosed; attempt += 1) {
      try {
        await this.#join();
        return;
      } catch (error) {
        if (attempt === JOIN_ATTEMPTS || this.#hasFailed) throw error;
        this.#input.logger?.warn({ topic: this.#input.topic, attempt, err: error }, "joining again");
        await sleep(JOIN_PAUSE_MS);
      }
    }
  }

  async #join(): Promise<void> {
    const { topic, partitionCount } = this.#input;
    this.#joining = Promise.withResolvers();
    // It may be rejected before anybody waits for it.
    this.#joining.promise.catch(() => undefined);
    try {
      await this.#consumer.connect();
      // `false` would mean the end for a partition without a commit.
      await this.#consumer.subscribe({ topics: [topic], fromBeginning: true });
      await this.#dismissFormerSelf();
      await this.#consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        partitionsConsumedConcurrently: partitionCount,
        eachBatch: async (payload) => this.#onBatch(payload),
      });
    } catch (error) {
      throw unavailable(`cannot consume topic ${topic}`, error);
    }
    // run() resolves also when joining failed; then the crash event has rejected this.
    await this.#joining.promise;
  }

  /**
   * Right before each join: whoever bears our name is what we were before a kill, or before the last attempt broke off. Its
   * session would hold up everybody's rebalance until it ends.
   */
  async #dismissFormerSelf(): Promise<void> {
    const { groupId, namesake, topic, logger } = this.#input;
    if (namesake === null || this.#cluster === null) return;
    const memberIds = await dismissNamesakes(this.#cluster, { groupId, namesake });
    if (memberIds.length > 0) logger?.info({ topic, groupId, memberIds }, "dismissed what this process was before");
  }

  seek(partition: number, offset: number): void {
    if (!this.#owned.has(partition) || this.#isClosed) return;
    this.#feeds[partition]?.seek(offset);
    this.#consumer.seek({ topic: this.#input.topic, partition, offset: String(offset) });
    this.#consumer.resume([{ topic: this.#input.topic, partitions: [partition] }]);
  }

  /** Never throws: the commit is advice to lag monitors. */
  async commit(offsets: ReadonlyMap<number, number>): Promise<void> {
    const { topic, logger } = this.#input;
    const commits = [...offsets].filter(([partition]) => this.#owned.has(partition));
    if (commits.length === 0 || this.#isClosed) return;
    try {
      await this.#consumer.commitOffsets(
        commits.map(([partition, offset]) => ({ topic, partition, offset: String(offset) })),
      );
    } catch (error) {
      logger?.warn({ topic, err: error }, "the advisory commit failed; lag monitors are behind until the next");
    }
  }

  /** Nothing is delivered any more; leaves the group. */
  async close(): Promise<void> {
    this.#isClosed = true;
    fetchedChannel.unsubscribe(this.#onFetched);
    if (this.#watchTimer !== null) clearTimeout(this.#watchTimer);
    for (const { delivery } of this.#feeds) delivery.close();
    await this.#consumer.disconnect();
  }

  /**
   * Runs synchronously inside kafkajs's join, before its first fetch: pausing here keeps it from delivering from the
   * committed offset before our own positions are loaded. After any await it would be too late.
   */
  #onJoin(memberAssignment: Readonly<Record<string, readonly number[]>>): void {
    const { topic, subscriber } = this.#input;
    try {
      const partitions = [...(memberAssignment[topic] ?? [])].sort((a, b) => a - b);
      if (partitions.length > 0) this.#consumer.pause([{ topic, partitions }]);
      for (const feed of this.#feeds) feed.reset();
      this.#owned = new Set(partitions);
      this.#watch();
      this.#hasJoined = true;
      subscriber.onAssigned(partitions);
      this.#joining.resolve();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Only queues: no await, so that kafkajs goes on to heartbeat and to the other partitions. */
  #onBatch(payload: EachBatchPayload): void {
    const { batch } = payload;
    const feed = this.#feeds[batch.partition];
    // Not resolved: taken away, not yet sought, or a seek is under way. It will be fetched again from the right place.
    if (feed?.nextOffset === null || feed === undefined || this.#isClosed || payload.isStale()) return;
    const { fetchedOffset, rawMessages } = batch as typeof batch & { fetchedOffset: string; rawMessages: RawMessage[] };
    if (Number(fetchedOffset) !== feed.nextOffset) {
      this.#onMismatch(batch.partition, feed.nextOffset);
      return;
    }
    try {
      const entries = toEntries(rawMessages, feed.nextOffset, `${batch.topic} ${batch.partition}`);
      const last = entries.at(-1);
      if (last === undefined) return;
      this.#mismatches[batch.partition] = 0;
      feed.push(entries);
      payload.resolveOffset(String(last.offset));
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Batches of markers and aborted records alone reach no handler; without their range they would look like a gap. */
  #onUnreadableRange(range: {
    topic: string;
    partition: number;
    firstOffset: string | null;
    lastOffset: string;
  }): void {
    const feed = this.#feeds[range.partition];
    if (feed?.nextOffset === null || feed === undefined || this.#isClosed || range.firstOffset === null) return;
    if (Number(range.firstOffset) !== feed.nextOffset) {
      this.#onMismatch(range.partition, feed.nextOffset);
      return;
    }
    this.#mismatches[range.partition] = 0;
    feed.push(markerRange(Number(range.firstOffset), Number(range.lastOffset)));
  }

  /**
   * kafkajs fetched from elsewhere: an offset out of range makes it jump to the earliest in silence. Inside the bounds our
   * position is asked for again. Outside them, a position that was good once means that records were taken away under us; a
   * position that was never good delivers nothing, as the port says.
   */
  #onMismatch(partition: number, position: number): void {
    const feed = this.#feeds[partition];
    if (feed === undefined) return;
    this.#consumer.pause([{ topic: this.#input.topic, partitions: [partition] }]);
    feed.notePaused();
    const count = (this.#mismatches[partition] ?? 0) + 1;
    this.#mismatches[partition] = count;
    void this.#settleMismatch(feed, { partition, position, count }).catch((error: unknown) => this.#fail(error));
  }

  async #settleMismatch(feed: KafkaFeed, at: { partition: number; position: number; count: number }): Promise<void> {
    const { topic, allBounds, logger } = this.#input;
    const { partition, position, count } = at;
    const held = (await allBounds()).get(partition);
    // A seek or a rebalance meanwhile has settled it.
    if (feed.nextOffset !== position || held === undefined || this.#isClosed) return;
    const isInside = position >= held.earliestOffset && position <= held.endOffset;
    const gap = (what: string): TallyhouseError =>
      new TallyhouseError({
        code: "LOG_GAP",
        action: "halt",
        message: `${topic} ${partition}: offset ${position} ${what}`,
      });
    if (isInside && count <= MISMATCHES_MAX) this.seek(partition, position);
    else if (isInside) this.#fail(gap(`cannot be fetched: ${count} answers began elsewhere`));
    else if (feed.hasArrived) this.#fail(gap(`left the bounds ${held.earliestOffset} to ${held.endOffset}`));
    else logger?.error({ topic, partition, position, ...held }, "a seek outside the bounds delivers nothing");
  }

  #watch(): void {
    const now = performance.now();
    if (this.#watchdog === null) {
      this.#watchdog = new ConsumerWatchdog(now);
      this.#armWatch();
    }
    // A join is a sign of life.
    this.#watchdog.noteFetch(now);
    this.#watchdog.noteHeartbeat(now);
  }

  #armWatch(): void {
    this.#watchTimer = setTimeout(() => {
      const problem = this.#watchdog?.check(performance.now(), WATCH_EVERY_MS) ?? null;
      if (this.#isClosed) return;
      if (problem !== null) this.#fail(unavailable(`the consumer of topic ${this.#input.topic} hangs: ${problem}`));
      this.#checks += 1;
      if (this.#checks % LAG_CHECK_EVERY === 0) {
        const { logger, topic } = this.#input;
        // A broker that stays away is the fetch watchdog's case.
        this.#noteLags().catch((error: unknown) =>
          logger?.warn({ topic, err: error }, "the lag is unknown at the moment"),
        );
      }
      this.#armWatch();
    }, WATCH_EVERY_MS);
  }

  async #noteLags(): Promise<void> {
    const bounds = await this.#input.allBounds();
    const lags: PartitionLag[] = [];
    for (const partition of this.#owned) {
      const feed = this.#feeds[partition];
      const held = bounds.get(partition);
      if (!feed?.isFetching || feed.nextOffset === null || held === undefined) continue;
      const { nextOffset } = feed;
      // kafkajs has jumped to the earliest offset, and no record has come from there yet to reveal it.
      if (feed.hasArrived && nextOffset < held.earliestOffset) this.#onMismatch(partition, nextOffset);
      lags.push({ partition, nextOffset, endOffset: Math.max(held.endOffset, this.#highWatermarks[partition] ?? 0) });
    }
    this.#watchdog?.noteLags(performance.now(), lags);
  }

  #fail(error: unknown): void {
    if (this.#isClosed) return;
    this.#hasFailed = true;
    this.#joining.reject(error);
    for (const { delivery } of this.#feeds) delivery.close();
    this.#input.fail(error);
  }
}
