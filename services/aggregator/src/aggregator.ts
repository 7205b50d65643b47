import { createDigester, type EventLog, TallyhouseError } from "@tallyhouse/domain";
import {
  aborted,
  type Clock,
  type Component,
  type Logger,
  pause,
  type Registry,
  retry,
  type RetryBudget,
} from "@tallyhouse/runtime";
import { AggregatorMetrics } from "./aggregator-metrics.ts";
import { Backfiller } from "./backfiller.ts";
import type { BackfillStore } from "./backfill-store.ts";
import type { AggregatorConfig } from "./config.ts";
import { DedupeMemory } from "./dedupe-memory.ts";
import { flush } from "./flush.ts";
import { halt } from "./halt.ts";
import { openTask } from "./open.ts";
import { Partitions, type PartitionStatus } from "./partitions.ts";
import { checkPredecessors, type PredecessorStore } from "./predecessors.ts";
import type { ResultStore } from "./result-store.ts";
import type { TaskSnapshot } from "./task.ts";
import { silenceMsOf, tickSilent } from "./ticker.ts";
import { Wakeup } from "./wakeup.ts";

/**
 * `forever` of the design: after ten minutes a restart is more likely to help than another attempt. A second at most between
 * two attempts, half of it in the mean: it is added to the recovery of every partition when the store comes back.
 */
const FOREVER: RetryBudget = { firstDelayMs: 50, delayMaxMs: 1_000, totalMs: 600_000 };
/** An outage delays a backfill and nothing else, so it is waited out without limit. */
const BACKFILL_RETRIES: RetryBudget = { firstDelayMs: 100, delayMaxMs: 60_000, totalMs: Number.POSITIVE_INFINITY };
/** What a graceful stop may spend on storing what is folded; the rest is folded again after the restart. */
const STOP_FLUSH_MAX_MS = 5_000;
const TICK_ROUND_MAX_MS = 1_000;
/** Folded and unstored for longer than this, the aggregator is not ready, whatever its process says. */
const UNSTORED_MAX_MS = 25_000;

/** The ports of an aggregator on a result store. */
export interface AggregatorPorts {
  readonly log: EventLog;
  readonly store: ResultStore;
  readonly backfills: BackfillStore;
  /** The stores of config.stream's predecessors, oldest first. Absent: none. */
  readonly predecessors?: readonly PredecessorStore[];
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: Registry;
}

/** How the aggregator is doing. */
export interface AggregatorStatus {
  readonly partitions: readonly PartitionStatus[];
  /** Owned partitions that are behind the log and got nothing of it for 25 s. */
  readonly stuckPartitions: readonly number[];
  /** Folded and not acknowledged. */
  readonly bufferedBytes: number;
  /** Activations of owned partitions whose earlier usage is being counted; figures of their meters are too small meanwhile. */
  readonly pendingBackfills: number;
  /** Memory of the dedupe indexes. */
  readonly dedupeBytes: number;
  /** How long the oldest folded record waits to be acknowledged; 0 when none does. */
  readonly unstoredMs: number;
  /** `ok` when every owned partition runs, none is stuck and nothing waits too long to be stored; else what is wrong. */
  readonly state: string;
  readonly isReady: boolean;
}

/** Folds the log and stores what comes out, prefix by prefix. {@link Aggregator.run} drives it; tests drive its parts. */
export class Aggregator implements Component {
  readonly name = "aggregator";
  readonly partitions: Partitions;
  readonly #config: AggregatorConfig;
  readonly #ports: AggregatorPorts;
  readonly #metrics: AggregatorMetrics;
  readonly #backfiller: Backfiller;
  readonly #memory: DedupeMemory;
  #hasWarnedOfMemory = false;
  readonly #failed = Promise.withResolvers<never>();
  /** Rejects with the first failure of a part that nobody awaits. */
  readonly failed: Promise<never> = this.#failed.promise;
  readonly #giveUp = new AbortController();
  readonly #dirty = new Wakeup();
  readonly #drained = new Wakeup();
  #failure: { error: unknown } | null = null;
  #isSubscribed = false;
  #stuckPartitions: readonly number[] = [];
  #inFlightBytes = 0;
  /** When the oldest record that is not acknowledged was folded; of the flush in flight, and of what came after it. */
  #inFlightSinceAt: number | null = null;
  #dirtySinceAt: number | null = null;
  /** Cuts the wait before the next flush short. */
  #hurry: AbortController | null = null;
  #isCommitting = false;

  constructor(config: AggregatorConfig, ports: AggregatorPorts) {
    const { log, clock, store, predecessors = [] } = ports;
    const { stream } = config;
    this.#config = config;
    this.#ports = ports;
    const memory = new DedupeMemory({
      bytesMax: config.DEDUPE_MEMORY_BYTES_MAX,
      partitionCount: stream.partitionCount,
    });
    this.#memory = memory;
    this.#metrics = new AggregatorMetrics(ports.metrics, memory);
    this.failed.catch(() => {}); // Whoever runs the aggregator sees it; without a run nobody needs to.
    const horizonSeconds = config.DEDUPE_HORIZON_HOURS * 3_600;
    this.partitions = new Partitions({
      log,
      clock,
      memory,
      forwardClockMaxMs: config.FORWARD_CLOCK_MAX_SECONDS * 1_000,
      context: {
        stream,
        digest: createDigester(stream.hashSeed),
        controlKeys: config.controlKeys,
        maxAgeSeconds: config.MAX_AGE_HOURS * 3_600,
        maxAheadSeconds: config.MAX_AHEAD_SECONDS,
      },
      open: (partition, signal) =>
        this.#forever(() => openTask(partition, { log, store, stream, predecessors, horizonSeconds, memory, signal })),
      onOpened: (partition) => this.#backfiller.look(partition),
      bounds: (partition) => this.#forever(() => log.bounds(partition)),
      onFolded: () => this.#onFolded(),
      whenEnded: () => this.#whenEnded(),
      onFailure: (error) => this.#fail(error),
    });
    this.#backfiller = new Backfiller({
      store: this.#patientBackfills(ports.backfills),
      stream,
      logger: ports.logger,
      storedOffset: (partition) => this.partitions.storedOffsetOf(partition),
    });
  }

  /**
   * Subscribes, folds and stores until the signal aborts, then stores what is folded (at most 5 s).
   * @throws the first failure: a halt, after storing what is folded (at most 5 s), or an outage longer than 10 minutes. Everything
   * acknowledged stays true; a restart continues.
   */
  async run(signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const end = (): void => {
      stop.abort();
      this.partitions.stop();
      this.#dirty.notify();
      this.#drained.notify();
      this.#hurry?.abort();
    };
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    const { failed } = this;
    let loops: Promise<unknown> | null = null;
    try {
      this.#checkStream();
      await Promise.race([failed, aborted(stop.signal), this.#ports.log.subscribe(this.partitions)]);
      this.#isSubscribed = true;
      loops = Promise.all([
        this.#flushLoop(stop.signal),
        this.#tickLoop(stop.signal),
        this.#backfiller.run(stop.signal),
      ]);
      await Promise.race([failed, loops, aborted(stop.signal)]);
      await this.#finish(loops);
    } catch (error) {
      this.#fail(error);
      // A halt often means that the log is lost. What is folded was read while it was true, and a flush cut now could never be
      // finished from that log.
      if (loops !== null && error instanceof TallyhouseError && error.action === "halt") {
        end();
        await this.#finish(loops);
      }
      throw error;
    } finally {
      signal.removeEventListener("abort", end);
      end();
      this.#giveUp.abort();
    }
  }

  /** Nothing to release: the ports belong to whoever opened them. */
  async close(): Promise<void> {}

  /** Whether this part works, and how far it is. */
  status(): AggregatorStatus {
    const partitions = this.partitions.describe();
    const now = this.#ports.clock.now();
    const unstoredMs = now - (this.#inFlightSinceAt ?? this.#dirtySinceAt ?? now);
    const state = this.#stateOf(partitions, unstoredMs);
    return {
      partitions,
      stuckPartitions: this.#stuckPartitions,
      bufferedBytes: this.#bufferedBytes(),
      pendingBackfills: this.#backfiller.pendingCount,
      dedupeBytes: this.#memory.sizeBytes,
      unstoredMs,
      state,
      isReady: state === "ok",
    };
  }

  #stateOf(partitions: readonly PartitionStatus[], unstoredMs: number): string {
    if (this.#failure !== null) return "failed";
    if (!this.#isSubscribed) return "not subscribed";
    const loading = partitions.filter(({ state }) => state !== "running").map(({ partition }) => partition);
    if (loading.length > 0) return `loading partitions ${loading.join(", ")}`;
    if (this.#stuckPartitions.length > 0) return `stuck: partitions ${this.#stuckPartitions.join(", ")}`;
    return unstoredMs < UNSTORED_MAX_MS ? "ok" : "nothing could be stored for too long";
  }

  /** Stores everything folded so far. The caller has one flush in flight at a time. */
  async flush(): Promise<void> {
    const { clock, store, log } = this.#ports;
    const snapshots = this.partitions.takeSnapshots();
    this.#inFlightSinceAt = this.#dirtySinceAt;
    this.#dirtySinceAt = null;
    if (snapshots.length > 0) {
      this.#inFlightBytes = snapshots.reduce((sum, snapshot) => sum + snapshot.sizeBytes, 0);
      const startedAt = clock.now();
      await flush(snapshots, { store, log, forever: (effect) => this.#forever(effect) });
      this.#inFlightBytes = 0;
      this.partitions.noteStored(snapshots);
      // Now, and not when it was folded: a backfill reads what stands below the activation, so that must be stored.
      for (const { progress, rows } of snapshots)
        if (rows.control_records.length > 0) this.#backfiller.look(progress.partition);
      this.#metrics.noteFlush(snapshots, clock.now() - startedAt);
      this.#commit(snapshots);
    }
    this.#inFlightSinceAt = null;
    this.#drained.notify();
  }

  /** Does every backfill that is due. {@link Aggregator.run} has a loop for it. */
  backfill(): Promise<void> {
    return this.#backfiller.round();
  }

  /** One round of ticks. An unreachable log is left to the next round. */
  async tick(): Promise<void> {
    const { log, clock } = this.#ports;
    const silenceMs = silenceMsOf(this.#config.stream.bookingWindowSeconds);
    try {
      const [key] = this.#config.controlKeys;
      this.#stuckPartitions = await tickSilent(this.partitions.openSlots(), { log, clock, key, silenceMs });
    } catch (error) {
      if (!(error instanceof TallyhouseError) || error.action !== "retry") throw error;
      this.#ports.logger.warn({ code: error.code, err: error }, "tick not appended; the next round tries again");
    }
  }

  #checkStream(): void {
    const { log } = this.#ports;
    const { streamId, partitionCount } = this.#config.stream;
    checkPredecessors(this.#config.stream);
    if (log.partitionCount === partitionCount) return;
    throw halt(
      "STREAM_MISMATCH",
      `${log.name} has ${log.partitionCount} partitions, but stream ${streamId} was made with ${partitionCount}: identities would be looked ` +
        "for in the wrong partition. Restore the partition count, or start a new stream",
    );
  }

  async #flushLoop(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      if (!this.partitions.isDirty()) {
        await this.#dirty.wait();
        continue;
      }
      this.#hurry = new AbortController();
      if (this.partitions.bufferedBytes() < this.#config.FLUSH_BYTES_MAX)
        await pause(this.#config.FLUSH_INTERVAL_MS, this.#hurry.signal);
      this.#hurry = null;
      await this.flush();
    }
  }

  async #tickLoop(stop: AbortSignal): Promise<void> {
    const roundMs = Math.min(TICK_ROUND_MAX_MS, silenceMsOf(this.#config.stream.bookingWindowSeconds) / 2);
    while (!stop.aborted) {
      await pause(roundMs, stop);
      if (!stop.aborted) await this.tick();
    }
  }

  /** After a stop that was asked for, or a halt: the flush in flight, then one more. Failing here loses nothing but time. */
  async #finish(loops: Promise<unknown>): Promise<void> {
    const timer = new AbortController();
    const giveUp = pause(STOP_FLUSH_MAX_MS, timer.signal).then(() => this.#giveUp.abort());
    try {
      await Promise.race([loops.then(() => this.flush()), giveUp]);
    } catch (error) {
      this.#ports.logger.warn(
        { err: error },
        "not everything folded was stored at the stop; the next start folds it again",
      );
    }
    timer.abort();
  }

  /** Called once per batch, whatever it held. Waits while too much is folded and not acknowledged. */
  async #onFolded(): Promise<void> {
    this.#checkMemory();
    if (this.partitions.isDirty()) {
      this.#dirtySinceAt ??= this.#ports.clock.now();
      this.#dirty.notify();
    }
    if (this.partitions.bufferedBytes() >= this.#config.FLUSH_BYTES_MAX) this.#hurry?.abort();
    while (this.#bufferedBytes() > this.#config.BUFFER_BYTES_MAX && !this.#isEnding()) {
      await this.#drained.wait();
    }
  }

  /** Halts above the limit of the dedupe index; warns once before. */
  #checkMemory(): void {
    const warning = this.#memory.check();
    if (warning === null || this.#hasWarnedOfMemory) return;
    this.#hasWarnedOfMemory = true;
    this.#ports.logger.warn({ code: "DEDUPE_MEMORY_EXCEEDED" }, warning);
  }

  /** Ends with the run. Until then a batch that is not folded waits: the log would otherwise deliver the next one at once. */
  #whenEnded(): Promise<void> {
    return Promise.race([this.failed, aborted(this.#giveUp.signal)]);
  }

  #isEnding(): boolean {
    return this.#failure !== null || this.#giveUp.signal.aborted;
  }

  #bufferedBytes(): number {
    return this.partitions.bufferedBytes() + this.#inFlightBytes;
  }

  /** Tells lag monitors how far we are; nothing reads it back, so errors are counted and a slow commit is not waited for. */
  #commit(snapshots: readonly TaskSnapshot[]): void {
    if (this.#isCommitting) return;
    this.#isCommitting = true;
    const offsets = new Map(snapshots.map(({ progress }) => [progress.partition, progress.nextOffset]));
    this.#ports.log
      .commitAdvisory(offsets)
      .catch(() => this.#metrics.noteCommitFailure())
      .finally(() => {
        this.#isCommitting = false;
      });
  }

  #forever<Result>(effect: () => Promise<Result>): Promise<Result> {
    const { clock, random, logger } = this.#ports;
    return retry(effect, FOREVER, {
      clock,
      random,
      signal: this.#giveUp.signal,
      onRetry: (error, attempt) => logger.warn({ code: error.code, attempt, err: error }, "outage; trying again"),
    });
  }

  /** The store of backfills, each call repeated until it is answered or the process ends. */
  #patientBackfills(store: BackfillStore): BackfillStore {
    const { clock, random, logger } = this.#ports;
    const patiently = <Result>(effect: () => Promise<Result>): Promise<Result> =>
      retry(effect, BACKFILL_RETRIES, {
        clock,
        random,
        signal: this.#giveUp.signal,
        onRetry: (error, attempt) => logger.warn({ code: error.code, attempt, err: error }, "a backfill waits"),
      });
    return {
      readPending: (query) => patiently(() => store.readPending(query)),
      readSlices: (query) => patiently(() => store.readSlices(query)),
      readPage: (query) => patiently(() => store.readPage(query)),
      insertLane: (table, rows) => patiently(() => store.insertLane(table, rows)),
      recordBackfills: (done) => patiently(() => store.recordBackfills(done)),
    };
  }

  #fail(error: unknown): void {
    if (this.#failure !== null) return;
    this.#failure = { error };
    this.partitions.stop();
    this.#failed.reject(error);
    this.#drained.notify();
  }
}
