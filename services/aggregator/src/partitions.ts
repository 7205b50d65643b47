import { type EventLog, type LogEntry, type LogSubscriber, unreachable } from "@tallyhouse/domain";
import type { Clock } from "@tallyhouse/runtime";
import type { DedupeMemory } from "./dedupe-memory.ts";
import { halt } from "./halt.ts";
import { checkBounds, type OpenedTask } from "./open.ts";
import type { FoldContext } from "./fold-context.ts";
import { step } from "./step.ts";
import { bufferedBytesOf, recordHash, takeSnapshot, type Task, type TaskSnapshot } from "./task.ts";

/** Partitions opened at the same time: each open runs five queries. */
const OPENS_MAX = 4;
/** Batches of a wrong position in a row. A few are normal after a seek; more mean that the log cannot deliver the offset. */
const RESYNCS_MAX = 100;

/** A partition that is ours and being loaded, or open. */
type Slot =
  | { readonly state: "opening"; readonly partition: number; readonly abandon: AbortController }
  | {
      readonly state: "open";
      readonly partition: number;
      readonly task: Task;
      /** Whether the record below the position was compared with progress, where that is possible. */
      isVerified: boolean;
      resyncs: number;
      /** When the partition last showed life: epoch milliseconds of our clock, at first the log clock. */
      activeAt: number;
      /** nextOffset of the last acknowledged progress. */
      storedOffset: number;
    };

/** An open partition, as the ticker and the status see it. */
export type OpenSlot = Extract<Slot, { state: "open" }>;

/** What the partitions need from the aggregator around them. */
export interface PartitionsPorts {
  readonly log: EventLog;
  readonly clock: Clock;
  readonly context: FoldContext;
  readonly forwardClockMaxMs: number;
  /** Where an index that is dropped is released. */
  readonly memory: DedupeMemory;
  /** Opens one partition, retries included. The signal ends it early: the partition was taken away. */
  open(partition: number, signal: AbortSignal): Promise<OpenedTask>;
  /** Called when a partition is open. */
  onOpened(partition: number): void;
  /** The log's bounds, retries included. */
  bounds(partition: number): ReturnType<EventLog["bounds"]>;
  /** Called once per folded batch. The returned promise is the log's backpressure. */
  onFolded(): Promise<void>;
  /** Resolves when the process needs no more batches; rejects after a failure. */
  whenEnded(): Promise<void>;
  /** The one place for failures; every one ends the process. */
  onFailure(error: unknown): void;
}

/** The partitions this process owns: opens them, folds what the log delivers, and drops what is taken away. */
export class Partitions implements LogSubscriber {
  readonly #ports: PartitionsPorts;
  readonly #slots = new Map<number, Slot>();
  readonly #waiting: Extract<Slot, { state: "opening" }>[] = [];
  #opening = 0;
  #isStopped = false;

  constructor(ports: PartitionsPorts) {
    this.#ports = ports;
  }

  /** Opens every new partition without waiting for a record of it. A partition that stays keeps its state: that is pure. */
  onAssigned(partitions: readonly number[]): void {
    const owned = new Set(partitions);
    // Rows of a dropped task that a flush already holds may still be stored: they are rows of the same log.
    for (const [partition, slot] of this.#slots) {
      if (owned.has(partition)) continue;
      if (slot.state === "open") this.#ports.memory.release(slot.task.index);
      else slot.abandon.abort();
      this.#slots.delete(partition);
    }
    for (const partition of owned) {
      const slot = this.#slots.get(partition);
      if (slot?.state === "open") this.#ports.log.seek(partition, wantedOffset(slot));
      if (slot !== undefined) continue;
      const opening = { state: "opening", partition, abandon: new AbortController() } as const;
      this.#slots.set(partition, opening);
      this.#waiting.push(opening);
    }
    this.#openNext();
  }

  async onEntries(partition: number, entries: readonly LogEntry[]): Promise<void> {
    if (this.#isStopped) {
      await this.#ports.whenEnded();
      return;
    }
    const slot = this.#slots.get(partition);
    if (slot?.state !== "open") return;
    try {
      if (!this.#fold(slot, entries)) await this.#resync(slot);
      await this.#ports.onFolded();
    } catch (error) {
      this.#ports.onFailure(error);
      throw error;
    }
  }

  /** Folds nothing any more: what is delivered from now on is dropped, and folded by whoever opens the partition next. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Every folded and not yet taken prefix. */
  takeSnapshots(): TaskSnapshot[] {
    const { stream } = this.#ports.context;
    return this.openSlots()
      .map((slot) => takeSnapshot(slot.task, stream))
      .filter((snapshot) => snapshot !== null);
  }

  /** Notes acknowledged progress. */
  noteStored(snapshots: readonly TaskSnapshot[]): void {
    for (const { progress } of snapshots) {
      const slot = this.#slots.get(progress.partition);
      if (slot?.state === "open") slot.storedOffset = Math.max(slot.storedOffset, progress.nextOffset);
    }
  }

  isDirty(): boolean {
    return this.openSlots().some(({ task }) => task.nextOffset !== task.snapshotOffset);
  }

  /** Estimate of what is folded and not yet handed to a flush. */
  bufferedBytes(): number {
    return this.openSlots().reduce((sum, { task }) => sum + bufferedBytesOf(task), 0);
  }

  /** The acknowledged prefix of an open partition; null when it is not ours, or not open. */
  storedOffsetOf(partition: number): number | null {
    const slot = this.#slots.get(partition);
    return slot?.state === "open" && !this.#isStopped ? slot.storedOffset : null;
  }

  openSlots(): OpenSlot[] {
    return [...this.#slots.values()].filter((slot) => slot.state === "open");
  }

  /** Every owned partition and what it is doing. */
  describe(): PartitionStatus[] {
    return [...this.#slots.values()].map((slot) => {
      const { partition } = slot;
      switch (slot.state) {
        case "opening":
          return { partition, state: "opening", nextOffset: null, storedOffset: null, bookedAt: null };
        case "open": {
          const { task, storedOffset, isVerified } = slot;
          const state = isVerified ? "running" : "verifying";
          return { partition, state, nextOffset: task.nextOffset, storedOffset, bookedAt: task.clockAt };
        }
        default:
          return unreachable(slot);
      }
    });
  }

  #openNext(): void {
    while (this.#opening < OPENS_MAX) {
      const slot = this.#waiting.shift();
      if (slot === undefined) return;
      if (this.#slots.get(slot.partition) !== slot) continue;
      this.#opening += 1;
      void this.#open(slot);
    }
  }

  /** Never rejects: a failure goes to the one place for failures. */
  async #open(slot: Extract<Slot, { state: "opening" }>): Promise<void> {
    const { partition, abandon } = slot;
    try {
      const { task, readFromOffset } = await this.#ports.open(partition, abandon.signal);
      // Taken away meanwhile, perhaps even given back: then a newer slot has its own open under way.
      if (this.#slots.get(partition) === slot && !this.#isStopped) {
        const isVerified = readFromOffset === task.nextOffset;
        const { nextOffset: storedOffset, clockAt: activeAt } = task;
        this.#slots.set(partition, { state: "open", partition, task, isVerified, resyncs: 0, activeAt, storedOffset });
        this.#ports.log.seek(partition, readFromOffset);
        this.#ports.onOpened(partition);
      } else this.#ports.memory.release(task.index);
    } catch (error) {
      // Of a partition that was taken away nothing fails here: whoever has it now meets the same.
      if (!abandon.signal.aborted) this.#ports.onFailure(error);
    }
    this.#opening -= 1;
    this.#openNext();
  }

  /** Folds the batch; false when it does not continue where the task stands, and the log must be told again. */
  #fold(slot: OpenSlot, entries: readonly LogEntry[]): boolean {
    const { context, clock, forwardClockMaxMs } = this.#ports;
    const { task } = slot;
    const receivedAtMax = clock.now() + forwardClockMaxMs;
    for (const entry of entries) {
      if (entry.offset !== wantedOffset(slot)) return false;
      if (!slot.isVerified) {
        this.#verify(slot, entry);
        continue;
      }
      if (entry.receivedAt > receivedAtMax) throw this.#clockAhead(slot, entry);
      step(task, entry, context);
    }
    slot.resyncs = 0;
    slot.activeAt = clock.now();
    return true;
  }

  /** The record below our position must be the one that progress saw, or this is another log with the same name. */
  #verify(slot: OpenSlot, entry: LogEntry): void {
    const { log } = this.#ports;
    if (recordHash(entry) !== slot.task.lastRecord) {
      throw halt(
        "STREAM_MISMATCH",
        `${log.name} partition ${slot.partition}: the record at offset ${entry.offset} is not the one that was folded there. The log was ` +
          "truncated or re-created under the same name: start a new stream, which recognises what was counted",
      );
    }
    slot.isVerified = true;
  }

  /** Asks for the wanted offset again, unless the log no longer has it. */
  async #resync(slot: OpenSlot): Promise<void> {
    const { log } = this.#ports;
    slot.resyncs += 1;
    if (slot.resyncs > RESYNCS_MAX) {
      throw halt(
        "LOG_GAP",
        `${log.name} partition ${slot.partition} does not deliver offset ${wantedOffset(slot)}, asked for ${RESYNCS_MAX} times: records ` +
          "were removed from its middle (cleanup.policy must be delete)",
      );
    }
    const bounds = await this.#ports.bounds(slot.partition);
    if (this.#slots.get(slot.partition) !== slot || this.#isStopped) return;
    checkBounds(log, { partition: slot.partition, nextOffset: slot.task.nextOffset, bounds });
    // Retention may have taken the record to compare with while we asked; the next one is still there.
    if (wantedOffset(slot) < bounds.earliestOffset) slot.isVerified = true;
    log.seek(slot.partition, wantedOffset(slot));
  }

  #clockAhead(slot: OpenSlot, entry: LogEntry): Error {
    const { log, forwardClockMaxMs } = this.#ports;
    const receivedAt = new Date(entry.receivedAt).toISOString();
    return halt(
      "LOG_MISCONFIGURED",
      `${log.name} partition ${slot.partition} offset ${entry.offset} was received at ${receivedAt}, more than ${forwardClockMaxMs / 1_000} s ` +
        "ahead of this machine's clock. Compare the clocks of brokers and aggregator; a clock that far ahead would make all usage too late",
    );
  }
}

/** One owned partition. Offsets are the next to fold, and the next after the stored prefix. */
export interface PartitionStatus {
  readonly partition: number;
  readonly state: "opening" | "verifying" | "running";
  readonly nextOffset: number | null;
  readonly storedOffset: number | null;
  /** The partition's log clock, epoch milliseconds. */
  readonly bookedAt: number | null;
}

/** Where the log must deliver from: the task's position, or one below it for the comparison. */
function wantedOffset(slot: OpenSlot): number {
  return slot.isVerified ? slot.task.nextOffset : slot.task.nextOffset - 1;
}
