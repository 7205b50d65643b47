import {
  assert,
  type EventLog,
  type LogBounds,
  type LogEntry,
  type LogRecord,
  type LogSubscriber,
  TallyhouseError,
} from "@tallyhouse/domain";

/** The contract's bounds: of one record's value, and of one delivered batch. */
const VALUE_BYTES_MAX = 1_000_000;
const BATCH_BYTES_MAX = 1_048_576;

/** What all readers of one log share. */
interface StoredPartition {
  readonly entries: LogEntry[];
  earliestOffset: number;
}

interface MemoryPartition {
  readonly stored: StoredPartition;
  position: number | null;
  /** Counts seeks, so that a batch in flight does not move the position after one. */
  seeks: number;
  isDelivering: boolean;
  /** Something changed since delivery looked last. */
  isWoken: boolean;
}

/**
 * An event log in memory. By itself it delivers to its subscriber as the port says; with `isManual` only when
 * {@link MemoryLog.deliver} is called, so that a test decides every interleaving.
 */
export class MemoryLog implements EventLog {
  readonly name = "memory-log";
  readonly partitionCount: number;
  /** Every offset that was committed, newest last. */
  readonly commits: ReadonlyMap<number, number>[] = [];
  /** Rejects when the subscriber rejected a batch, as an adapter's `failed` does. */
  readonly failed: Promise<never>;
  readonly #fail: (error: unknown) => void;
  readonly #clock: { now(): number };
  readonly #isManual: boolean;
  readonly #batchRecordsMax: number;
  readonly #partitions: readonly MemoryPartition[];
  #subscriber: LogSubscriber | null = null;
  #owned: ReadonlySet<number> = new Set();
  #isClosed = false;

  constructor(options: {
    partitionCount: number;
    clock: { now(): number };
    isManual?: boolean;
    batchRecordsMax?: number;
    stored?: readonly StoredPartition[];
  }) {
    this.partitionCount = options.partitionCount;
    this.#clock = options.clock;
    this.#isManual = options.isManual ?? false;
    this.#batchRecordsMax = options.batchRecordsMax ?? 100;
    this.#partitions = Array.from({ length: this.partitionCount }, (_, partition) => ({
      stored: options.stored?.[partition] ?? { entries: [], earliestOffset: 0 },
      position: null,
      seeks: 0,
      isDelivering: false,
      isWoken: false,
    }));
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => {}); // A test that never looks at it must not end with an unhandled rejection.
    this.failed = promise;
    this.#fail = reject;
  }

  async append(records: readonly LogRecord[]): Promise<void> {
    if (this.#isClosed) throw refused("LOG_UNAVAILABLE", "retry", "the log is closed");
    for (const { partition, value } of records) {
      if (this.#partitions[partition] === undefined)
        throw refused("LOG_UNAVAILABLE", "retry", `there is no partition ${partition}`);
      if ((value?.length ?? 0) > VALUE_BYTES_MAX)
        throw refused("LOG_RECORD_TOO_LARGE", "dead-letter", `a value has at most ${VALUE_BYTES_MAX} bytes`);
    }
    for (const record of records) this.appendAt(this.#clock.now(), record);
  }

  /** Appends one record with this receivedAt, which may be smaller than the one before. Returns its offset. */
  appendAt(receivedAt: number, record: LogRecord, options: { marker?: boolean } = {}): number {
    const { entries } = this.#at(record.partition).stored;
    const { key, value, headers } = record;
    const offset = entries.length;
    entries.push({ offset, receivedAt, key, value, headers, marker: options.marker ?? false });
    this.#wake(record.partition);
    return offset;
  }

  async subscribe(subscriber: LogSubscriber): Promise<void> {
    this.#subscriber = subscriber;
    this.assign(this.#partitions.map((_, partition) => partition));
  }

  /** Damage: the subscriber hears nothing any more, and nobody says so. */
  fallSilent(): void {
    this.#subscriber = null;
  }

  /** A new assignment: these partitions and no others. */
  assign(partitions: readonly number[]): void {
    this.#owned = new Set(partitions);
    for (const partition of this.#partitions) partition.position = null;
    this.#subscriber?.onAssigned(partitions);
  }

  seek(partition: number, offset: number): void {
    if (!this.#owned.has(partition)) return;
    const state = this.#at(partition);
    state.position = offset;
    state.seeks += 1;
    this.#wake(partition);
  }

  async bounds(partition: number): Promise<LogBounds> {
    const { earliestOffset, entries } = this.#at(partition).stored;
    return { earliestOffset, endOffset: entries.length };
  }

  async commitAdvisory(offsets: ReadonlyMap<number, number>): Promise<void> {
    this.commits.push(offsets);
  }

  /** Delivers one batch of at most this many records where the partition stands; the number delivered. */
  async deliver(partition: number, recordsMax = this.#batchRecordsMax): Promise<number> {
    const state = this.#at(partition);
    const { position, seeks } = state;
    if (position === null || this.#subscriber === null || position < state.stored.earliestOffset) return 0;
    const batch = batchFrom(state.stored.entries, position, recordsMax);
    if (batch.length === 0) return 0;
    await this.#subscriber.onEntries(partition, batch);
    if (state.seeks === seeks && state.position === position) state.position = position + batch.length;
    return batch.length;
  }

  /** A second log on the same records: another process, one that should be dead, or the same after a restart. */
  reader(): MemoryLog {
    return new MemoryLog({
      partitionCount: this.partitionCount,
      clock: this.#clock,
      isManual: this.#isManual,
      stored: this.#partitions.map(({ stored }) => stored),
    });
  }

  /** Everything ever appended to the partition, deleted records included. */
  entries(partition: number): readonly LogEntry[] {
    return this.#at(partition).stored.entries;
  }

  /** Retention: records below the offset are gone. */
  deleteBefore(partition: number, offset: number): void {
    this.#at(partition).stored.earliestOffset = offset;
  }

  /** Damage: the end of the partition is cut off, as by an unclean leader election. */
  truncate(partition: number, endOffset: number): void {
    this.#at(partition).stored.entries.length = endOffset;
  }

  /** Delivers nothing any more and refuses appends. Safe to repeat. */
  close(): void {
    this.#isClosed = true;
    this.#subscriber = null;
  }

  #at(partition: number): MemoryPartition {
    const state = this.#partitions[partition];
    assert(state !== undefined, `no partition ${partition}`);
    return state;
  }

  #wake(partition: number): void {
    if (!this.#isManual) void this.#deliverAll(partition);
  }

  async #deliverAll(partition: number): Promise<void> {
    const state = this.#at(partition);
    state.isWoken = true;
    if (state.isDelivering) return;
    state.isDelivering = true;
    try {
      while (state.isWoken) {
        state.isWoken = false;
        await Promise.resolve(); // The caller of seek or append goes on first.
        while ((await this.deliver(partition)) > 0);
      }
    } catch (error) {
      this.#fail(error);
      this.fallSilent();
    }
    state.isDelivering = false;
  }
}

function refused(code: "LOG_RECORD_TOO_LARGE" | "LOG_UNAVAILABLE", action: "dead-letter" | "retry", message: string) {
  return new TallyhouseError({ code, action, message });
}

/** As many entries as one batch may hold, at least one if there is one. */
function batchFrom(entries: readonly LogEntry[], position: number, recordsMax: number): LogEntry[] {
  let bytes = 0;
  const batch: LogEntry[] = [];
  for (const entry of entries.slice(position, position + recordsMax)) {
    bytes += entry.value?.length ?? 0;
    if (batch.length > 0 && bytes > BATCH_BYTES_MAX) break;
    batch.push(entry);
  }
  return batch;
}
