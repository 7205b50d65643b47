import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import {
  assert,
  type EventLog,
  type LogBounds,
  type LogRecord,
  type LogSubscriber,
  type OpenedEventLog,
  TallyhouseError,
} from "@tallyhouse/domain";
import { ByteBudget } from "./byte-budget.ts";
import { Delivery } from "./delivery.ts";
import { ensureLogMeta } from "./embedded-meta.ts";
import { diskFileSystem, type FileSystem } from "./file-system.ts";
import { partitionFolder, PartitionLog } from "./partition-log.ts";
import { checkedRecordBytes } from "./record-size.ts";

/** Recovery scans the last segment of each partition: 16 of them take about half a second. */
const SEGMENT_BYTES_MAX = 32 * 1_048_576;
/** Records accepted and not yet acknowledged; also the most that one group commit writes. */
const BYTES_IN_FLIGHT_MAX = 16 * 1_048_576;
/** With fsync "interval": what a power loss can take away. */
const SYNC_INTERVAL_MS = 50;
const RETENTION_CHECK_MS = 60_000;
const CLOSE_GRACE_MS = 5_000;
const HOUR_MS = 3_600_000;

/** See {@link openEmbeddedLog}. */
export interface EmbeddedLogOptions {
  /** Holds this log alone; created when absent. */
  readonly folder: string;
  /** For messages, and checked against what the folder was made for. */
  readonly name: string;
  /** Fixed when the folder is made. */
  readonly partitionCount: number;
  readonly clock: { now(): number };
  /**
   * `always` (default): append resolves after fdatasync. `interval`: after the write, with fdatasync at most 50 ms later:
   * survives a killed process, not a power loss. Readers see fsynced records only, in both.
   */
  readonly fsync?: "always" | "interval";
  /** Age below which no segment is removed. Default 168 (7 days). */
  readonly retentionHours?: number;
  /** The next offset that a restart would read; what lies below may be removed. Absent: nothing is ever removed. */
  readonly progressOf?: (partition: number) => number;
  /** Default 32 MiB. Tests make it small. */
  readonly segmentBytesMax?: number;
  /** Default: the disk. Tests put faults here. */
  readonly fileSystem?: FileSystem;
}

/** What was appended since the last commit began; one commit writes it all. */
interface Group {
  readonly records: (LogRecord[] | undefined)[];
  readonly waiters: { bytes: number; resolve: () => void; reject: (error: unknown) => void }[];
}

/**
 * Opens the crash-safe log of one process, recovering from whatever ended the last one. The caller holds the lock that
 * keeps a second process out: two writers would overwrite each other.
 * @throws {TallyhouseError} LOG_CORRUPT (halt): a file is damaged before valid records. LOG_MISCONFIGURED (halt): the
 *   folder was made for another name or partition count.
 */
export async function openEmbeddedLog(options: EmbeddedLogOptions): Promise<OpenedEventLog> {
  const fileSystem = options.fileSystem ?? diskFileSystem;
  const { folder, name, partitionCount } = options;
  assert(Number.isInteger(partitionCount) && partitionCount > 0, "a log has at least one partition");
  await ensureLogMeta(fileSystem, folder, { name, partitionCount });
  const partitions: PartitionLog[] = [];
  try {
    for (let partition = 0; partition < partitionCount; partition += 1) {
      const segmentBytesMax = options.segmentBytesMax ?? SEGMENT_BYTES_MAX;
      partitions.push(await PartitionLog.open(fileSystem, partitionFolder(folder, partition), segmentBytesMax));
    }
  } catch (error) {
    await Promise.allSettled(partitions.map((partition) => partition.close()));
    throw error;
  }
  const log = new EmbeddedLog(options, partitions);
  return { log, failed: log.failed, close: () => log.close() };
}

class EmbeddedLog implements EventLog {
  readonly name: string;
  readonly partitionCount: number;
  readonly failed: Promise<never>;
  readonly #options: EmbeddedLogOptions;
  readonly #partitions: readonly PartitionLog[];
  readonly #budget = new ByteBudget(BYTES_IN_FLIGHT_MAX);
  readonly #rejectFailed: (error: unknown) => void;
  #deliveries: readonly Delivery[] = [];
  #group: Group = { records: [], waiters: [] };
  /** Set while there is work; cleared in the same turn in which none is left, so no append is overlooked. */
  #pumping: Promise<void> | null = null;
  #syncTimer: NodeJS.Timeout | null = null;
  #isSyncDue = false;
  #retainedAt = 0;
  /** Set once: why nothing more is appended. */
  #ended: TallyhouseError | null = null;
  #hasFailed = false;
  #isClosed = false;
  #closing: Promise<void> | null = null;

  constructor(options: EmbeddedLogOptions, partitions: readonly PartitionLog[]) {
    this.name = options.name;
    this.partitionCount = options.partitionCount;
    this.#options = options;
    this.#partitions = partitions;
    const { promise, reject } = Promise.withResolvers<never>();
    // A caller that looks at `failed` late must not turn the failure into an unhandled rejection.
    promise.catch(() => undefined);
    this.failed = promise;
    this.#rejectFailed = reject;
  }

  async append(records: readonly LogRecord[]): Promise<void> {
    if (this.#ended !== null) throw this.#ended;
    const bytes = checkedRecordBytes(records, this);
    if (records.length === 0) return;
    const admission = this.#budget.acquire(bytes);
    if (admission !== undefined) await admission;
    if (this.#ended !== null && (this.#hasFailed || this.#isClosed)) throw this.#ended;
    await new Promise<void>((resolve, reject) => {
      const { records: byPartition, waiters } = this.#group;
      for (const record of records) (byPartition[record.partition] ??= []).push(record);
      waiters.push({ bytes, resolve, reject });
      this.#startPump();
    });
  }

  async subscribe(subscriber: LogSubscriber): Promise<void> {
    assert(this.#deliveries.length === 0, "a log has one subscriber");
    this.#deliveries = this.#partitions.map(
      (source, partition) => new Delivery({ partition, subscriber, source: { read: (from) => source.read(from) } }),
    );
    for (const delivery of this.#deliveries) void delivery.run().catch((error: unknown) => this.#fail(error));
    subscriber.onAssigned(this.#partitions.map((_, partition) => partition));
  }

  seek(partition: number, offset: number): void {
    this.#deliveries[partition]?.seek(offset);
  }

  async bounds(partition: number): Promise<LogBounds> {
    const found = this.#partitions[partition];
    assert(found !== undefined, "the partition exists");
    if (this.#options.fsync === "interval" && this.#ended === null) {
      // Whoever compares with the end expects to find what was acknowledged before the question.
      this.#isSyncDue = true;
      this.#startPump();
      await this.#pumping;
    }
    return found.bounds;
  }

  /** Nobody else reads this log, so there is nobody to tell. */
  async commitAdvisory(): Promise<void> {}

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Group commit: everything appended in this turn of the event loop, and later during a commit, goes together. */
  #startPump(): void {
    this.#pumping ??= nextTurn()
      .then(() => this.#pump())
      .catch((error: unknown) => {
        this.#fail(error);
      });
  }

  async #pump(): Promise<void> {
    while (!this.#hasFailed && (this.#group.waiters.length > 0 || this.#isSyncDue)) {
      if (this.#group.waiters.length > 0) await this.#commitGroup();
      if (this.#isSyncDue) {
        this.#isSyncDue = false;
        await this.#syncAll();
      }
      await this.#retain();
    }
    this.#pumping = null;
  }

  async #commitGroup(): Promise<void> {
    const group = this.#group;
    this.#group = { records: [], waiters: [] };
    let error: unknown = null;
    try {
      error = await this.#write(group.records);
      if (this.#options.fsync === "interval") this.#armSync();
      // Before the answers: acknowledged means that a power loss cannot take it away.
      else await this.#syncAll();
    } catch (fatal) {
      error = this.#fail(fatal);
      // Not with "interval": there, what was written has been acknowledged, and may yet reach the disk.
      if (this.#options.fsync !== "interval") {
        await Promise.allSettled(this.#partitions.map((partition) => partition.cutUnsynced()));
      }
    }
    for (const waiter of group.waiters) {
      this.#budget.release(waiter.bytes);
      if (error === null) waiter.resolve();
      else waiter.reject(error);
    }
  }

  /** Returns the refusal of a full disk (partitions with room have been written), throws anything worse. */
  async #write(records: Group["records"]): Promise<unknown> {
    const now = Math.floor(this.#options.clock.now());
    const writes: Promise<void>[] = [];
    for (const [partition, log] of this.#partitions.entries()) {
      const written = records[partition];
      if (written !== undefined) writes.push(log.write(written, now));
    }
    let full: unknown = null;
    for (const result of await Promise.allSettled(writes)) {
      if (result.status === "fulfilled") continue;
      if (!(result.reason instanceof TallyhouseError)) throw result.reason;
      full = result.reason;
    }
    return full;
  }

  async #syncAll(): Promise<void> {
    const results = await Promise.allSettled(this.#partitions.map((partition) => partition.sync()));
    for (const result of results) if (result.status === "rejected") throw result.reason;
    for (const delivery of this.#deliveries) delivery.wake();
  }

  #armSync(): void {
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = null;
      this.#isSyncDue = true;
      this.#startPump();
    }, SYNC_INTERVAL_MS);
  }

  async #retain(): Promise<void> {
    const { progressOf, retentionHours = 168, clock } = this.#options;
    const now = clock.now();
    if (progressOf === undefined || now - this.#retainedAt < RETENTION_CHECK_MS) return;
    this.#retainedAt = now;
    for (const [partition, log] of this.#partitions.entries()) {
      await log.retain(now - retentionHours * HOUR_MS, progressOf(partition));
    }
  }

  /** Ends the log: nothing after a failure may be acknowledged, and nothing unsynced may look stored. */
  #fail(cause: unknown): TallyhouseError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = `log ${this.name} below ${this.#options.folder} ended: ${reason}`;
    this.#ended ??= new TallyhouseError({ code: "LOG_UNAVAILABLE", action: "retry", message, cause });
    // A closed log cannot fail: a delivery that still ran has met a closed file.
    if (this.#hasFailed || this.#isClosed) return this.#ended;
    this.#hasFailed = true;
    this.#rejectFailed(
      cause instanceof TallyhouseError && cause.action === "halt"
        ? cause
        : new TallyhouseError({ code: "LOG_UNAVAILABLE", action: "halt", message, cause }),
    );
    for (const delivery of this.#deliveries) delivery.close();
    this.#refuseWaiting(this.#ended);
    return this.#ended;
  }

  #refuseWaiting(error: TallyhouseError): void {
    this.#budget.refuseAll(error);
    for (const waiter of this.#group.waiters.splice(0)) waiter.reject(error);
  }

  async #close(): Promise<void> {
    const message = `log ${this.name} is closed`;
    this.#ended ??= new TallyhouseError({ code: "LOG_UNAVAILABLE", action: "retry", message });
    for (const delivery of this.#deliveries) delivery.close();
    if (this.#syncTimer !== null) clearTimeout(this.#syncTimer);
    // The last commit may not be on the disk yet with fsync "interval".
    this.#isSyncDue = true;
    this.#startPump();
    await Promise.race([this.#pumping, sleep(CLOSE_GRACE_MS, undefined, { ref: false })]);
    this.#isClosed = true;
    this.#refuseWaiting(this.#ended);
    await Promise.allSettled(this.#partitions.map((partition) => partition.close()));
  }
}
