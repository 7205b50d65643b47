import { join } from "node:path";
import { TallyhouseError } from "@tallyhouse/domain";
import type { FileSystem, LogFile } from "./file-system.ts";
import { findIntactFrame, walkFrames } from "./frame-walk.ts";
import { FRAME_BYTES_MIN } from "./frame.ts";

/** Distance between the places of a segment that a seek can start its walk from. */
const CHECKPOINT_BYTES = 1_048_576;
const NAME_PATTERN = /^(\d{16})-(\d{16})\.log$/;

/** One file of a partition: the frames of offsets `[baseOffset, next segment's baseOffset)`. */
export interface Segment {
  readonly path: string;
  readonly baseOffset: number;
  /** No record of an earlier segment was received later than this, no record of this one before it. */
  readonly receivedAtFloor: number;
  /** Frames up to here are on the disk and may be read. */
  durableBytes: number;
  /** Some known frame starts, ascending, for seeks; the segment's start is implied. */
  readonly checkpoints: { readonly offset: number; readonly bytePosition: number }[];
}

/** The place of a record: its segment and where in the file its frame starts. */
export interface Place {
  readonly segment: Segment;
  readonly offset: number;
  readonly bytePosition: number;
}

/** The file's name carries both numbers, so that retention and opening read no sealed segment. */
export function newSegment(folder: string, start: { baseOffset: number; receivedAtFloor: number }): Segment {
  const name = `${String(start.baseOffset).padStart(16, "0")}-${String(start.receivedAtFloor).padStart(16, "0")}.log`;
  return { path: join(folder, name), ...start, durableBytes: 0, checkpoints: [] };
}

/** The partition's segments, oldest first, with unknown lengths. */
export async function listSegments(fileSystem: FileSystem, folder: string): Promise<Segment[]> {
  const names = [...(await fileSystem.list(folder))].filter((name) => NAME_PATTERN.test(name)).sort();
  return names.map((name) => {
    const match = NAME_PATTERN.exec(name);
    return newSegment(folder, { baseOffset: Number(match?.[1]), receivedAtFloor: Number(match?.[2]) });
  });
}

/** Remembers a frame start when the last one remembered is far enough back. */
export function noteCheckpoint(segment: Segment, offset: number, bytePosition: number): void {
  const last = segment.checkpoints.at(-1)?.bytePosition ?? 0;
  if (bytePosition - last >= CHECKPOINT_BYTES) segment.checkpoints.push({ offset, bytePosition });
}

/** What recovery found: where the partition ends. */
export interface RecoveredEnd {
  readonly endOffset: number;
  readonly receivedAt: number;
  readonly bytes: number;
}

/**
 * Scans the partition's last segment, cuts a torn tail, and makes the rest durable. Safe to repeat.
 *
 * A bad frame with nothing valid behind it is the end of a write that a crash interrupted: none of it was acknowledged.
 * A bad frame before a valid one is damage to records that may have been acknowledged and counted; cutting there would
 * lose them and hand out their offsets again, so the log refuses to open.
 * @throws {TallyhouseError} LOG_CORRUPT (halt); the file is left as it was.
 */
export async function recoverSegment(file: LogFile, segment: Segment): Promise<RecoveredEnd> {
  const size = await file.size();
  let endOffset = segment.baseOffset;
  let receivedAt = segment.receivedAtFloor;
  const bytes = await walkFrames(file, { from: 0, to: size }, (frame) => {
    if (frame.offset !== endOffset) return false;
    noteCheckpoint(segment, frame.offset, frame.bytePosition);
    endOffset += 1;
    receivedAt = Math.max(receivedAt, frame.receivedAt);
    return true;
  });
  if (bytes < size) {
    const offsetMax = endOffset + Math.ceil((size - bytes) / FRAME_BYTES_MIN);
    const behind = await findIntactFrame(file, { from: bytes, to: size }, { offsetMin: segment.baseOffset, offsetMax });
    if (behind !== null) {
      throw corrupt(
        segment,
        `the frame of offset ${endOffset} at byte ${bytes} is damaged, and offset ${behind.offset} behind it is not`,
      );
    }
    await file.truncate(bytes);
  }
  // What a killed process wrote may still be in the page cache only. It must not be read before it is on the disk:
  // after a power loss its offsets would be given to other records.
  await file.datasync();
  segment.durableBytes = bytes;
  return { endOffset, receivedAt, bytes };
}

/** Finds the frame of an offset that the segment must hold. Walks at most the bytes between two checkpoints. */
export async function locate(file: LogFile, segment: Segment, offset: number): Promise<Place> {
  const start = segment.checkpoints.findLast((checkpoint) => checkpoint.offset <= offset);
  let found = -1;
  const from = start?.bytePosition ?? 0;
  const stoppedAt = await walkFrames(file, { from, to: segment.durableBytes }, (frame) => {
    if (frame.offset === offset) {
      found = frame.bytePosition;
      return false;
    }
    noteCheckpoint(segment, frame.offset, frame.bytePosition);
    return true;
  });
  if (found < 0)
    throw corrupt(segment, `offset ${offset} is missing: the walk from byte ${from} ended at ${stoppedAt}`);
  return { segment, offset, bytePosition: found };
}

/** Damage that no restart repairs. */
export function corrupt(segment: Segment, what: string): TallyhouseError {
  return new TallyhouseError({
    code: "LOG_CORRUPT",
    action: "halt",
    message: `${segment.path}: ${what}. Restore the file from a copy; nothing was changed.`,
  });
}
