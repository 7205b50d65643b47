import { createDigester, type EventLog, type LogBounds, type StreamIdentity, unreachable } from "@tallyhouse/domain";
import type { DedupeMemory } from "./dedupe-memory.ts";
import { halt } from "./halt.ts";
import { clockAfter, inheritMeters, placeIn, type PredecessorStore } from "./predecessors.ts";
import type { IdentityQuery, StoredIdentity } from "./identity-rows.ts";
import type { ResultStore } from "./result-store.ts";
import type { StoredControl } from "./stored-control.ts";
import { bookedStartOf, type ProgressRow } from "./tables.ts";
import { createTask, type Task } from "./task.ts";

/** How many offsets below progress are looked at for a hole: a torn restore shows at its end. */
const HOLE_CHECK_OFFSETS = 100_000;
/**
 * And how far back: raw rows are partitioned by day, so this reads three days at most instead of 400. Rows booked since are a
 * suffix of the offsets, because bookedAt never falls.
 */
const HOLE_CHECK_SPAN_MS = 2 * 86_400_000;

/** Where a task's state comes from, and the limit of its index. */
interface OpenPorts {
  readonly log: EventLog;
  readonly store: ResultStore;
  readonly stream: StreamIdentity;
  /** Oldest first. */
  readonly predecessors: readonly PredecessorStore[];
  readonly horizonSeconds: number;
  readonly memory: DedupeMemory;
  /** Ends the open early: the partition was taken away. */
  readonly signal: AbortSignal;
}

/** A task whose state is S(p, progress), and where the log must be read from. */
export interface OpenedTask {
  readonly task: Task;
  /** One below the task's position when the record there must prove that the log is the one that was folded. */
  readonly readFromOffset: number;
}

/**
 * Loads the state of one partition as of its progress. Reads only, but for the first open of a stream with predecessors, which
 * notes where it starts. Safe to repeat: yes.
 *
 * Progress comes first: read after the loads, it could be of a prefix whose last rows the loads did not see yet, and those
 * records would be neither in the state nor folded again.
 * The task's index counts as claimed in `memory` until it is released; an open that fails, or is ended, has released it.
 * @throws {TallyhouseError} LOG_GAP, STREAM_MISMATCH or DEDUPE_MEMORY_EXCEEDED (halt); STORE_UNAVAILABLE or LOG_UNAVAILABLE
 * (retry).
 */
export async function openTask(partition: number, ports: OpenPorts): Promise<OpenedTask> {
  const { log, store, stream, predecessors, horizonSeconds } = ports;
  const stored = (await store.readProgress(partition)) ?? (await streamStart(partition, ports));
  const task = createTask(stored, horizonSeconds);
  const belowOffset = stored.nextOffset;
  const [bounds, controls, rollups] = await Promise.all([
    log.bounds(partition),
    store.readControls({ partition, belowOffset }),
    // No upper bound: another process may have folded further, and its rows must not be overtaken by smaller ones.
    store.readRollups({ partition, bookedFrom: bookedStartOf(stored.logClockAt, stream) }),
    checkNoHole(stored, store),
    inheritMeters(task, predecessors),
  ]);
  for (const control of controls) loadControl(task, control);
  for (const rollup of rollups) task.rollups.load(rollup.key, rollup.ver, rollup.values);
  checkBounds(log, { partition, nextOffset: stored.nextOffset, bounds });
  // Last and alone: it is the one load that takes long, and nothing of it is left running when another fails.
  await loadIdentities(task, ports);
  const canVerify = stored.lastRecord !== 0n && stored.nextOffset > bounds.earliestOffset;
  return { task, readFromOffset: canVerify ? stored.nextOffset - 1 : stored.nextOffset };
}

/**
 * Fills the empty index of a task. While it waits for the next rows, other partitions are folded.
 *
 * Without the bound by offset, the identity of a record that is folded again would meet itself and become a duplicate.
 */
async function loadIdentities(task: Task, ports: OpenPorts): Promise<void> {
  const { memory, signal } = ports;
  const { index } = task;
  const sources = await identitySources(task, ports);
  for (const { store, query } of sources) checkSeed(await store.readLastIdentity(query), ports.stream);
  const hours = await Promise.all(sources.map(({ store, query }) => store.countIdentities(query)));
  signal.throwIfAborted();
  memory.claim(index, task.partition, hours.flat());
  const release = (): void => memory.release(index);
  // At once: the partition may come back, and must not be refused for the memory of this open.
  signal.addEventListener("abort", release, { once: true });
  try {
    for (const [at, { store, query }] of sources.entries()) {
      const expected = (hours[at] ?? []).reduce((sum, { identities }) => sum + identities, 0);
      await store.readIdentities({ ...query, expected }, (rows) => {
        signal.throwIfAborted();
        index.putRows(rows);
      });
    }
  } catch (error) {
    release();
    throw error;
  } finally {
    signal.removeEventListener("abort", release);
  }
}

/** The partition's own identities, and those of the partitions that it goes on from. */
async function identitySources(
  { partition, nextOffset, clockAt }: Task,
  { store, predecessors, horizonSeconds }: OpenPorts,
): Promise<readonly { readonly store: ResultStore; readonly query: IdentityQuery }[]> {
  const bookedFrom = Math.max(0, Math.floor(clockAt / 1_000) - horizonSeconds);
  const inherited = predecessors.map(async (before) => ({
    store: before.store,
    query: { ...(await placeIn(before, partition)), bookedFrom },
  }));
  return [...(await Promise.all(inherited)), { store, query: { partition, belowOffset: nextOffset, bookedFrom } }];
}

/**
 * HALTs when the log holds neither the record wanted next nor its end: records were deleted unread, or the log is another.
 * @throws {TallyhouseError} LOG_GAP
 */
export function checkBounds(log: EventLog, input: { partition: number; nextOffset: number; bounds: LogBounds }): void {
  const { partition, nextOffset, bounds } = input;
  if (bounds.earliestOffset <= nextOffset && nextOffset <= bounds.endOffset) return;
  const place = `${log.name} partition ${partition} holds offsets ${bounds.earliestOffset} to ${bounds.endOffset}`;
  const remedy =
    nextOffset < bounds.earliestOffset
      ? "retention deleted records before they were folded; restore the log, or start a new stream from what is left"
      : "the log was truncated, re-created or restored from an older copy; start a new stream";
  throw halt("LOG_GAP", `${place}, but offset ${nextOffset} is the next to fold: ${remedy}`);
}

/** Repeats what the record did at its offset, but for its contributions: those are in the rollups. */
function loadControl(task: Task, control: StoredControl): void {
  switch (control.kind) {
    case "meter.activate":
      task.meters.add(control.version);
      return;
    case "meter.end":
      task.meters.end(control.name, control.untilAt);
      return;
    case "void":
      task.voids.add(control.targetOffset);
      return;
    case "stream.close":
      task.isClosed = true;
      return;
    default:
      unreachable(control);
  }
}

/**
 * Nothing was stored yet: a stream starts at offset 0, one that goes on from others at the earliest record that is left. That is
 * noted before anything is folded: a restart must not begin behind it because retention went on meanwhile.
 */
async function streamStart(partition: number, ports: OpenPorts): Promise<ProgressRow> {
  const { log, store, predecessors } = ports;
  const start = { partition, nextOffset: 0, logClockAt: 0, lastRecord: 0n, counted: 0 };
  if (predecessors.length === 0) return start;
  const logClockAt = await clockAfter(partition, predecessors);
  const { earliestOffset } = await log.bounds(partition);
  const row = { ...start, nextOffset: earliestOffset, logClockAt };
  await store.recordProgress([row]);
  return row;
}

/** With another seed nothing that comes again is recognised, and everything of it counts twice. */
function checkSeed(stored: StoredIdentity | null, { streamId, hashSeed }: StreamIdentity): void {
  if (stored === null) return;
  const { fpHigh, fpLow, ...identity } = stored;
  const digests = createDigester(hashSeed)({
    ...identity,
    type: "",
    occurredAt: null,
    isStamped: false,
    decidedAt: null,
    data: {},
  });
  if (digests.fpHigh === fpHigh && digests.word2 === fpLow) return;
  throw halt(
    "STREAM_MISMATCH",
    `STREAM_HASH_SEED is not the seed with which the identities of stream ${streamId} were stored: no retry would be recognised. Set the ` +
      "seed of before; it is the same for the life of the stream and of those that go on from it",
  );
}

/** Progress newer than its rows is the one restore that loses usage for ever, so it is looked for at each open. */
async function checkNoHole(stored: ProgressRow, store: ResultStore): Promise<void> {
  const { partition, nextOffset, logClockAt } = stored;
  if (stored.lastRecord === 0n) return;
  const tail = await store.readRawTail({
    partition,
    fromOffset: Math.max(0, nextOffset - HOLE_CHECK_OFFSETS),
    belowOffset: nextOffset,
    bookedFromAt: Math.max(0, logClockAt - HOLE_CHECK_SPAN_MS),
  });
  if (tail !== null && tail.distinctOffsets === nextOffset - tail.firstOffset) return;
  const found = tail === null ? "none" : `${tail.distinctOffsets} from offset ${tail.firstOffset} on`;
  throw halt(
    "STREAM_MISMATCH",
    `partition ${partition}: progress says that every record below offset ${nextOffset} is stored, but of the last raw rows there are ` +
      `${found}. The tables were restored out of order, or a part was lost: lower the partition's progress to a point before the hole`,
  );
}
