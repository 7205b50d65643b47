/**
 * The event log: a partitioned, durable, ordered record of everything that happened. Two adapters (Kafka and the
 * embedded log of packages/eventlog) pass one contract suite in packages/testkit.
 */

/** One record to append. The caller chooses the partition (see {@link partitionOfKey}), as the log contract demands. */
export interface LogRecord {
  readonly partition: number;
  /** `null` only for control records; usage events carry `mode/customer/source/id`, for placement alone. */
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  /** Names are unique; a repeated header of a foreign producer is delivered as its last value. */
  readonly headers: Readonly<Record<string, Buffer>>;
}

/**
 * One offset of a partition as read. Offsets of a delivered batch are contiguous: where Kafka holds a transaction
 * marker, an aborted record or nothing readable, an entry with `marker: true` stands in its place, so that a gap is
 * always a fault and never a neighbour's transaction.
 */
export interface LogEntry {
  readonly offset: number;
  /**
   * The log's append time (LogAppendTime), epoch milliseconds. May step back when leadership moves. 0 for a marker, always:
   * which markers arrive with a time depends on where a fetch began, and a replay must give equal entries.
   */
  readonly receivedAt: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer>>;
  readonly marker: boolean;
}

/**
 * What a partition holds now: `[earliestOffset, endOffset)`; equal when it is empty. The end is that of the readable part:
 * records behind a neighbour's open transaction lie beyond it until that ends.
 */
export interface LogBounds {
  readonly earliestOffset: number;
  readonly endOffset: number;
}

/** Callbacks of the one subscriber. */
export interface LogSubscriber {
  /**
   * The partitions owned from now on, complete (not a difference). Nothing of them is delivered until
   * {@link EventLog.seek} names the offset to start at. Partitions absent from the list were taken away: a batch of
   * them may still arrive and is harmless.
   */
  onAssigned(partitions: readonly number[]): void;
  /**
   * Entries of one partition, in offset order, `entries[0].offset` first, no gap inside. The adapter delivers the next batch of
   * that partition after the returned promise resolves: that is the backpressure. A rejection ends the subscription.
   */
  onEntries(partition: number, entries: readonly LogEntry[]): Promise<void>;
}

/** The event log's port: five methods. Opening and closing belong to the adapter's constructor function. */
export interface EventLog {
  /** Topic or folder name, for messages. */
  readonly name: string;
  /** Fixed for the life of a stream. */
  readonly partitionCount: number;
  /**
   * Resolves when every record is durable under the log's policy (Kafka: all in-sync replicas; embedded: fsynced).
   * Safe to repeat: yes, records may then stand twice in the log, and the aggregator counts the copies once.
   * @throws {TallyhouseError} LOG_UNAVAILABLE or LOG_FULL (retry), LOG_RECORD_TOO_LARGE (dead-letter); any part of
   *   the records may or may not have been appended.
   */
  append(records: readonly LogRecord[]): Promise<void>;
  /**
   * Starts the one subscription; resolves when the adapter has joined and reported the first assignment, rejects never
   * afterwards: a later failure ends through the adapter's `failed` promise.
   */
  subscribe(subscriber: LogSubscriber): Promise<void>;
  /**
   * Delivers the partition from this offset on, whatever was in flight: entries of another position that are still
   * delivered are the caller's to drop. Unowned partitions are ignored. An offset outside the bounds delivers nothing:
   * the caller compares with {@link EventLog.bounds} first.
   */
  seek(partition: number, offset: number): void;
  /** @throws {TallyhouseError} LOG_UNAVAILABLE (retry). */
  bounds(partition: number): Promise<LogBounds>;
  /** Tells lag monitors how far we are: partition → next offset. Advisory: never read back, losing it costs nothing. */
  commitAdvisory(offsets: ReadonlyMap<number, number>): Promise<void>;
}

/** What an adapter's `open…` function returns beside the port. */
export interface OpenedEventLog {
  readonly log: EventLog;
  /** Rejects when the log can serve no longer (failed fsync, crashed consumer): the process must end and restart. */
  readonly failed: Promise<never>;
  /** Stops delivery, lets appends in flight finish (at most 5 s), releases everything. Safe to repeat. */
  close(): Promise<void>;
}
