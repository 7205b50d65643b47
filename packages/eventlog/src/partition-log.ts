import { join } from "node:path";
import { assert, type LogBounds, type LogEntry, type LogRecord, TallyhouseError } from "@tallyhouse/domain";
import { BATCH_BYTES_MAX, BATCH_ENTRIES_MAX } from "./delivery.ts";
import type { FileSystem, LogFile } from "./file-system.ts";
import { FRAME_BYTES_MAX, frameBytes, isIntact, readFrame, statedFrameBytes, writeFrame } from "./frame.ts";
import {
  corrupt,
  listSegments,
  locate,
  newSegment,
  noteCheckpoint,
  type Place,
  recoverSegment,
  type Segment,
} from "./segment.ts";

/** A batch is one read: the largest frame must fit. */
assert(BATCH_BYTES_MAX >= FRAME_BYTES_MAX, "a batch holds the largest frame");

/**
 * One partition on disk. Not concurrent by itself: the group commit calls {@link PartitionLog.write}, `sync`, `retain`
 * one after the other, the delivery loop calls `read` one after the other; the two sides may overlap.
 */
export class PartitionLog {
  readonly #fileSystem: FileSystem;
  readonly #folder: string;
  readonly #segmentBytesMax: number;
  #segments: readonly Segment[];
  #file: LogFile;
  #end: { offset: number; bytes: number; receivedAt: number };
  #durableOffset: number;
  #reading: { readonly segment: Segment; readonly file: LogFile } | null = null;
  #cursor: Place | null = null;

  private constructor(input: {
    fileSystem: FileSystem;
    folder: string;
    segmentBytesMax: number;
    segments: readonly Segment[];
    file: LogFile;
    end: { offset: number; bytes: number; receivedAt: number };
  }) {
    this.#fileSystem = input.fileSystem;
    this.#folder = input.folder;
    this.#segmentBytesMax = input.segmentBytesMax;
    this.#segments = input.segments;
    this.#file = input.file;
    this.#end = input.end;
    this.#durableOffset = input.end.offset;
  }

  /** Opens or creates the partition and recovers its last segment. @throws {TallyhouseError} LOG_CORRUPT (halt). */
  static async open(fileSystem: FileSystem, folder: string, segmentBytesMax: number): Promise<PartitionLog> {
    await fileSystem.makeFolder(folder);
    const segments = await listSegments(fileSystem, folder);
    const last = segments.at(-1);
    if (last === undefined) {
      const first = newSegment(folder, { baseOffset: 0, receivedAtFloor: 0 });
      const file = await createSegmentFile(fileSystem, folder, first);
      const end = { offset: 0, bytes: 0, receivedAt: 0 };
      return new PartitionLog({ fileSystem, folder, segmentBytesMax, segments: [first], file, end });
    }
    for (const segment of segments.slice(0, -1)) {
      const sealed = await fileSystem.open(segment.path);
      segment.durableBytes = await sealed.size();
      await sealed.close();
    }
    const file = await fileSystem.open(last.path);
    const recovered = await recoverSegment(file, last).catch(async (error: unknown) => {
      await file.close();
      throw error;
    });
    const end = { offset: recovered.endOffset, bytes: recovered.bytes, receivedAt: recovered.receivedAt };
    return new PartitionLog({ fileSystem, folder, segmentBytesMax, segments, file, end });
  }

  get bounds(): LogBounds {
    return { earliestOffset: this.#first().baseOffset, endOffset: this.#durableOffset };
  }

  /**
   * Writes the records behind the end, with one write; they are neither durable nor readable before
   * {@link PartitionLog.sync}.
   * @throws {TallyhouseError} LOG_FULL (retry): the partial frames are cut off again and nothing was appended.
   *   Anything else: the file's state is unknown, and the process must end.
   */
  async write(records: readonly LogRecord[], now: number): Promise<void> {
    let length = 0;
    for (const record of records) length += frameBytes(record);
    if (this.#end.bytes > 0 && this.#end.bytes + length > this.#segmentBytesMax) await this.#roll();
    const receivedAt = Math.max(now, this.#end.receivedAt);
    const target = { bytes: Buffer.allocUnsafe(length), at: 0 };
    let offset = this.#end.offset;
    const segment = this.#last();
    for (const record of records) {
      noteCheckpoint(segment, offset, this.#end.bytes + target.at);
      writeFrame(target, record, { offset, receivedAt });
      offset += 1;
    }
    assert(target.at === length, "frames take the bytes that were counted for them");
    try {
      await this.#file.write(target.bytes, this.#end.bytes);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      // Cut before the next write: a shorter group would otherwise leave valid-looking bytes of this one behind it.
      await this.#file.truncate(this.#end.bytes);
      this.#forgetCheckpoints(segment);
      throw diskFull(this.#folder, error);
    }
    this.#end = { offset, bytes: this.#end.bytes + length, receivedAt };
  }

  /** Makes everything written durable, and with that readable. Rejects when the disk refuses: the process must end. */
  async sync(): Promise<void> {
    if (this.#durableOffset === this.#end.offset) return;
    const { offset, bytes } = this.#end;
    const segment = this.#last();
    await this.#file.datasync();
    segment.durableBytes = bytes;
    this.#durableOffset = offset;
  }

  /**
   * Cuts off what no fsync confirmed. After a failed fsync the kernel may call lost pages clean: a recovery would read
   * them from the cache as if they were stored.
   */
  async cutUnsynced(): Promise<void> {
    await this.#file.truncate(this.#last().durableBytes);
  }

  /**
   * Entries from exactly `position` on, one read of at most 1 MiB; empty outside the bounds.
   * @throws {TallyhouseError} LOG_CORRUPT (halt).
   */
  async read(position: number): Promise<readonly LogEntry[]> {
    if (!this.#holds(position)) return [];
    try {
      return await this.#readHeld(position);
    } catch (error) {
      // Retention removed the segment under a reader that lags behind progress.
      if (!this.#holds(position)) return [];
      throw error;
    }
  }

  #holds(position: number): boolean {
    const { earliestOffset, endOffset } = this.bounds;
    return position >= earliestOffset && position < endOffset;
  }

  async #readHeld(position: number): Promise<readonly LogEntry[]> {
    const place = await this.#placeOf(position);
    const { segment } = place;
    const bytes = Buffer.allocUnsafeSlow(Math.min(segment.durableBytes - place.bytePosition, BATCH_BYTES_MAX));
    const file = await this.#fileOf(segment);
    const length = await file.read(bytes, place.bytePosition);
    const entries: LogEntry[] = [];
    let at = 0;
    while (entries.length < BATCH_ENTRIES_MAX) {
      const total = statedFrameBytes(bytes, at);
      if (total === 0 || at + total > length) break;
      const entry = isIntact(bytes, at, total) ? readFrame(bytes, at) : null;
      if (entry?.offset !== position + entries.length) break;
      entries.push(entry);
      at += total;
    }
    // A short batch is fine: the next read begins where this one ended, and finds out whether the frame there is bad.
    if (entries.length === 0) throw corrupt(segment, `offset ${position} at byte ${place.bytePosition} is damaged`);
    this.#cursor = { segment, offset: position + entries.length, bytePosition: place.bytePosition + at };
    return entries;
  }

  /** Removes whole segments that are older than `receivedBefore` and lie wholly below `progressOffset`, oldest first. */
  async retain(receivedBefore: number, progressOffset: number): Promise<void> {
    for (;;) {
      const [oldest, next] = this.#segments;
      if (oldest === undefined || next === undefined) return;
      // The next segment's floor is the latest receivedAt of this one.
      if (next.receivedAtFloor >= receivedBefore || next.baseOffset > progressOffset) return;
      this.#segments = this.#segments.slice(1);
      await this.#fileSystem.remove(oldest.path);
      // One by one: after a crash the chain may have lost only its oldest part.
      await this.#fileSystem.syncFolder(this.#folder);
    }
  }

  async close(): Promise<void> {
    await this.#reading?.file.close();
    this.#reading = null;
    await this.#file.close();
  }

  /** Seals the last segment and starts a new one. */
  async #roll(): Promise<void> {
    // First: recovery scans only the last segment, so everything before it must be whole on the disk.
    await this.sync();
    const { offset, receivedAt } = this.#end;
    const segment = newSegment(this.#folder, { baseOffset: offset, receivedAtFloor: receivedAt });
    let file: LogFile;
    try {
      file = await createSegmentFile(this.#fileSystem, this.#folder, segment);
    } catch (error) {
      throw isDiskFull(error) ? diskFull(this.#folder, error) : error;
    }
    await this.#file.close();
    this.#file = file;
    this.#segments = [...this.#segments, segment];
    this.#end = { offset, bytes: 0, receivedAt };
  }

  async #placeOf(position: number): Promise<Place> {
    const segments = this.#segments;
    const index = segments.findLastIndex((segment) => segment.baseOffset <= position);
    const segment = segments[index];
    assert(segment !== undefined, "a position within the bounds has a segment");
    if (segment.baseOffset === position) return { segment, offset: position, bytePosition: 0 };
    const cursor = this.#cursor;
    if (cursor?.segment === segment && cursor.offset === position) {
      // The segment ends before the next one begins: a sealed file was cut.
      if (cursor.bytePosition >= segment.durableBytes) throw corrupt(segment, `offset ${position} is missing`);
      return cursor;
    }
    return locate(await this.#fileOf(segment), segment, position);
  }

  async #fileOf(segment: Segment): Promise<LogFile> {
    if (this.#reading?.segment === segment) return this.#reading.file;
    await this.#reading?.file.close();
    this.#reading = null;
    const file = await this.#fileSystem.open(segment.path);
    this.#reading = { segment, file };
    return file;
  }

  #forgetCheckpoints(segment: Segment): void {
    while ((segment.checkpoints.at(-1)?.bytePosition ?? -1) >= this.#end.bytes) segment.checkpoints.pop();
  }

  #first(): Segment {
    const first = this.#segments[0];
    assert(first !== undefined, "a partition has a segment");
    return first;
  }

  #last(): Segment {
    const last = this.#segments.at(-1);
    assert(last !== undefined, "a partition has a segment");
    return last;
  }
}

/** The folder of one partition below the log's folder. */
export function partitionFolder(folder: string, partition: number): string {
  return join(folder, `partition-${String(partition).padStart(4, "0")}`);
}

async function createSegmentFile(fileSystem: FileSystem, folder: string, segment: Segment): Promise<LogFile> {
  const file = await fileSystem.create(segment.path);
  // Before the first record: fdatasync of the file says nothing about its entry in the folder, and a power loss could
  // take away the whole file with acknowledged records in it.
  try {
    await file.sync();
    await fileSystem.syncFolder(folder);
  } catch (error) {
    await file.close();
    throw error;
  }
  return file;
}

function isDiskFull(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOSPC" || code === "EDQUOT";
}

function diskFull(folder: string, cause: unknown): TallyhouseError {
  return new TallyhouseError({
    code: "LOG_FULL",
    action: "retry",
    message: `no room for more records below ${folder}; free some space, the log goes on by itself`,
    cause,
  });
}
