import {
  FRAME_BYTES_MAX,
  FRAME_BYTES_MIN,
  isIntact,
  statedFrameBytes,
  statedOffset,
  statedReceivedAt,
} from "./frame.ts";
import type { LogFile } from "./file-system.ts";

/** Bytes read at a time while walking or searching. Holds at least two of the largest frames. */
const WALK_BYTES = 4 * 1_048_576;

/** A frame met on a walk. `bytePosition` is where it starts in the file. */
export interface WalkedFrame {
  readonly bytePosition: number;
  readonly offset: number;
  readonly receivedAt: number;
}

/**
 * Walks the intact frames of `file[from, to)` in order until `visit` answers false or a frame is bad or cut.
 * Holds one window of 4 MiB. Returns the byte position where it stopped: `to` when all was well.
 */
export async function walkFrames(
  file: LogFile,
  range: { readonly from: number; readonly to: number },
  visit: (frame: WalkedFrame) => boolean,
): Promise<number> {
  let windowStart = range.from;
  while (windowStart < range.to) {
    const window = await readWindow(file, windowStart, range.to);
    let at = 0;
    for (;;) {
      const total = statedFrameBytes(window, at);
      if (total === 0 || at + total > window.length) break;
      const frame = {
        bytePosition: windowStart + at,
        offset: statedOffset(window, at),
        receivedAt: statedReceivedAt(window, at),
      };
      if (!isIntact(window, at, total) || !visit(frame)) return windowStart + at;
      at += total;
    }
    // Nothing whole in a window that holds the largest frame: what starts here is bad or cut.
    if (at === 0) return windowStart;
    windowStart += at;
  }
  return windowStart;
}

/**
 * Searches `file[from, to)` at every byte for an intact frame with an offset in `[offsetMin, offsetMax]`. Tells a torn
 * tail (nothing valid behind it) from damage in the middle. Holds one window; the offset is compared before the checksum
 * is computed, so random bytes cost almost nothing.
 */
export async function findIntactFrame(
  file: LogFile,
  range: { readonly from: number; readonly to: number },
  offsets: { readonly offsetMin: number; readonly offsetMax: number },
): Promise<WalkedFrame | null> {
  let windowStart = range.from;
  while (windowStart + FRAME_BYTES_MIN <= range.to) {
    const window = await readWindow(file, windowStart, range.to);
    const isLast = windowStart + window.length >= range.to;
    // Frames that begin in the last FRAME_BYTES_MAX bytes may reach beyond the window: the next one starts with them.
    const end = isLast ? window.length - FRAME_BYTES_MIN + 1 : window.length - FRAME_BYTES_MAX;
    for (let at = 0; at < end; at += 1) {
      const total = statedFrameBytes(window, at);
      if (total === 0 || at + total > window.length) continue;
      const offset = statedOffset(window, at);
      if (offset < offsets.offsetMin || offset > offsets.offsetMax || !isIntact(window, at, total)) continue;
      return { bytePosition: windowStart + at, offset, receivedAt: statedReceivedAt(window, at) };
    }
    if (isLast) return null;
    windowStart += end;
  }
  return null;
}

async function readWindow(file: LogFile, from: number, to: number): Promise<Buffer> {
  const window = Buffer.allocUnsafe(Math.min(WALK_BYTES, to - from));
  return window.subarray(0, await file.read(window, from));
}
