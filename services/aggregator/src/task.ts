import { createHash } from "node:crypto";
import type { LogEntry, LogRecord, StreamIdentity } from "@tallyhouse/domain";
import { DedupeIndex } from "./dedupe-index.ts";
import { MeterSet } from "./meter-set.ts";
import { LIVE_LANE, RollupBook } from "./rollup-book.ts";
import { bookedStartOf, type ProgressRow, type ResultTable, type Row } from "./tables.ts";

/** Rows of a prefix that are folded and not handed to a flush. */
interface TaskBuffer {
  readonly raw: Row[];
  readonly identities: Row[];
  readonly controls: Row[];
  readonly redirects: LogRecord[];
  /** Estimate of what the rows hold in memory. */
  sizeBytes: number;
}

/** The state of one (stream, partition): a function of the log's first `nextOffset` records and of nothing else. */
export interface Task {
  readonly partition: number;
  nextOffset: number;
  /** The log clock: the largest receivedAt so far, epoch milliseconds. receivedAt can step back, this cannot. */
  clockAt: number;
  counted: number;
  /** The record before nextOffset when this process folded it; else null, and lastRecord is what `progress` says. */
  lastEntry: LogEntry | null;
  readonly lastRecord: bigint;
  readonly index: DedupeIndex;
  readonly meters: MeterSet;
  readonly rollups: RollupBook;
  /** Offsets of this partition that were taken back, by void or replace: without horizon, because once holds for ever. */
  readonly voids: Set<number>;
  /** Whether `stream.close` was passed: nothing behind it counts. */
  isClosed: boolean;
  buffer: TaskBuffer;
  /** nextOffset of the last snapshot. */
  snapshotOffset: number;
}

/** A task at a stored prefix; what its tables hold is still to be loaded. */
export function createTask(stored: ProgressRow, horizonSeconds: number): Task {
  return {
    partition: stored.partition,
    nextOffset: stored.nextOffset,
    clockAt: stored.logClockAt,
    counted: stored.counted,
    lastEntry: null,
    lastRecord: stored.lastRecord,
    index: new DedupeIndex(horizonSeconds),
    meters: new MeterSet(),
    rollups: new RollupBook(),
    voids: new Set(),
    isClosed: false,
    buffer: emptyBuffer(),
    snapshotOffset: stored.nextOffset,
  };
}

/** What one flush stores for one task. */
export interface TaskSnapshot {
  readonly progress: ProgressRow;
  readonly rows: Readonly<Record<ResultTable, readonly Row[]>>;
  readonly redirects: readonly LogRecord[];
  readonly sizeBytes: number;
}

/** A stored rollup row in memory: names, quantities, array. */
const ROLLUP_ROW_BYTES = 512;
/** A stored hash of unique_count: array, bigint, and its place in the set of those that are stored. */
const UNIQUE_ROW_BYTES = 256;

/** Estimate of what the task holds that is not handed to a flush. */
export function bufferedBytesOf(task: Task): number {
  return (
    task.buffer.sizeBytes + task.rollups.dirtyCount * ROLLUP_ROW_BYTES + task.rollups.uniqueCount * UNIQUE_ROW_BYTES
  );
}

/**
 * Takes everything folded since the last snapshot, as rows of the prefix that ends now; null when nothing was. Synchronous,
 * so that position, rows and rollup versions are those of one prefix: rule 4 and the meaning of `ver` rest on it.
 */
export function takeSnapshot(task: Task, stream: StreamIdentity): TaskSnapshot | null {
  if (task.nextOffset === task.snapshotOffset) return null;
  const { buffer, partition, nextOffset } = task;
  const sizeBytes = bufferedBytesOf(task);
  const rollup = task.rollups.takeRows({ stream: stream.streamId, partition, ver: nextOffset, lane: LIVE_LANE });
  const uniques = task.rollups.takeUniqueRows();
  task.rollups.forgetBefore(bookedStartOf(task.clockAt, stream));
  task.buffer = emptyBuffer();
  task.snapshotOffset = nextOffset;
  return {
    progress: {
      partition,
      nextOffset,
      logClockAt: task.clockAt,
      lastRecord: task.lastEntry === null ? task.lastRecord : recordHash(task.lastEntry),
      counted: task.counted,
    },
    rows: {
      raw_events: buffer.raw,
      identities: buffer.identities,
      rollup,
      rollup_uniq: uniques,
      control_records: buffer.controls,
    },
    redirects: buffer.redirects,
    sizeBytes,
  };
}

/**
 * 64 bits that tell a re-created or truncated log from the one that was folded. Never 0n, which in `progress` means that the
 * stream starts there. Of a marker only the offset counts: an adapter may know no more of it.
 */
export function recordHash(entry: LogEntry): bigint {
  const hash = createHash("sha256").update(`${entry.offset}:`);
  if (!entry.marker) {
    const { key, value, receivedAt } = entry;
    hash.update(`${receivedAt}:${key?.length ?? -1}:${value?.length ?? -1}:`);
    if (key !== null) hash.update(key);
    if (value !== null) hash.update(value);
  }
  return hash.digest().readBigUInt64LE(0) || 1n;
}

function emptyBuffer(): TaskBuffer {
  return { raw: [], identities: [], controls: [], redirects: [], sizeBytes: 0 };
}
