/** How a new stream goes on from the streams before it: their identities, their meters, their clock. */
import type { StreamIdentity, StreamPredecessor } from "@tallyhouse/domain";
import { halt } from "./halt.ts";
import type { ResultStore } from "./result-store.ts";
import type { Task } from "./task.ts";

/** A stream before this one, and where its results are. Only read. */
export type PredecessorStore = StreamPredecessor & { readonly store: ResultStore };

/** A predecessor may have had another booking window; none is longer. */
const BOOKING_WINDOW_SECONDS_MAX = 900;

/** @throws {TallyhouseError} CONFIG_INVALID (halt) when identities could not be found where this stream looks for them. */
export function checkPredecessors({ streamId, partitionCount, predecessors = [] }: StreamIdentity): void {
  const ids = [...predecessors.map((each) => each.streamId), streamId];
  if (new Set(ids).size < ids.length)
    throw halt("CONFIG_INVALID", `STREAM_PREDECESSORS names a stream twice, or stream ${streamId} itself`);
  for (const before of predecessors) {
    if (before.partitionCount > 0 && partitionCount % before.partitionCount === 0) continue;
    throw halt(
      "CONFIG_INVALID",
      `LOG_PARTITIONS ${partitionCount} is no multiple of the ${before.partitionCount} partitions of stream ${before.streamId} in ` +
        "STREAM_PREDECESSORS: one partition's identities would be spread over several",
    );
  }
}

/**
 * The log clock (epoch milliseconds) at which the partition of a new stream starts: where its predecessors' ended. From 0, records
 * that are read again would be booked in windows that were sealed long ago.
 * @throws {TallyhouseError} STREAM_MISMATCH (halt) while a predecessor is not at its end: what it still counts would not be known here.
 */
export async function clockAfter(partition: number, predecessors: readonly PredecessorStore[]): Promise<number> {
  let clockAt = 0;
  for (const before of predecessors) {
    const end = before.isLost ? await endOfLost(partition, before) : await endOfClosed(partition, before);
    clockAt = Math.max(clockAt, end);
  }
  return clockAt;
}

/** Gives the task every meter of its predecessors, with its end. Before its own control records, which may end one. */
export async function inheritMeters(task: Task, predecessors: readonly PredecessorStore[]): Promise<void> {
  for (const before of predecessors) {
    for (const control of await before.store.readControls(await placeIn(before, task.partition))) {
      // Voids and the close are of offsets of that stream.
      if (control.kind === "meter.activate") task.meters.add(control.version);
      if (control.kind === "meter.end") task.meters.end(control.name, control.untilAt);
    }
  }
}

/** Where a predecessor has what a partition of this stream goes on from: everything that is stored whole. */
export async function placeIn(
  before: PredecessorStore,
  newPartition: number,
): Promise<{ readonly partition: number; readonly belowOffset: number }> {
  const partition = partitionIn(before, newPartition);
  const progress = await before.store.readProgress(partition);
  return { partition, belowOffset: progress?.nextOffset ?? 0 };
}

/** Identities of one partition now were in this one partition then, because the new count is a multiple of the old one. */
function partitionIn(before: StreamPredecessor, partition: number): number {
  return partition % before.partitionCount;
}

/** Progress behind the close says that everything that will ever count is stored. Ticks go on, but not this clock. */
async function endOfClosed(newPartition: number, before: PredecessorStore): Promise<number> {
  const place = await placeIn(before, newPartition);
  for (const control of await before.store.readControls(place))
    if (control.kind === "stream.close") return control.bookedAt;
  throw halt(
    "STREAM_MISMATCH",
    `stream ${before.streamId} partition ${place.partition} is not closed, or its close is not folded yet: let its aggregator finish first. If its ` +
      `log was lost, say so: ${before.streamId}:${before.partitionCount}:lost in STREAM_PREDECESSORS`,
  );
}

/** What lies beyond a lost stream's progress is a flush that was cut, and no log is left to finish it from. */
async function endOfLost(newPartition: number, before: PredecessorStore): Promise<number> {
  const partition = partitionIn(before, newPartition);
  const { nextOffset, logClockAt } = (await before.store.readProgress(partition)) ?? { nextOffset: 0, logClockAt: 0 };
  const [beyond, rollups] = await Promise.all([
    before.store.readRawTail({
      partition,
      fromOffset: nextOffset,
      belowOffset: Number.MAX_SAFE_INTEGER,
      bookedFromAt: logClockAt,
    }),
    before.store.readRollups({
      partition,
      bookedFrom: Math.max(0, Math.floor(logClockAt / 1_000) - BOOKING_WINDOW_SECONDS_MAX),
    }),
  ]);
  if (beyond === null && rollups.every(({ ver }) => ver <= nextOffset)) return logClockAt;
  throw halt(
    "STREAM_MISMATCH",
    `stream ${before.streamId} partition ${partition} holds rows of offsets from ${nextOffset} on, beyond its progress: its last flush was ` +
      "cut, and part of what it counted is not stored. Repair it first (runbook: log replaced)",
  );
}
