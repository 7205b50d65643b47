/** How long after a fault each partition's progress covers what was in the log before it, and one record more. */
import type { AnalyticsStore, EventLog } from "@tallyhouse/domain";
import { pause } from "@tallyhouse/runtime";

const POLL_MS = 200;
/** Longer, and the ends known from the last look are used. */
const FRESH_ENDS_MAX_MS = 500;

interface Watched {
  readonly name: string;
  readonly startedAt: number;
  readonly target: readonly number[];
  readonly open: Set<number>;
}

/** Seconds from a fault until a partition was recovered. */
export interface Recovery {
  readonly name: string;
  readonly seconds: number;
}

/** Polls progress and the log's ends; faults are watched until every partition has recovered. */
export class RecoveryWatch {
  /** One for each fault and partition. */
  readonly recoveries: Recovery[] = [];
  readonly #log: EventLog;
  readonly #analytics: AnalyticsStore;
  readonly #watched = new Set<Watched>();
  #ends: number[];
  #progress: number[];

  constructor(log: EventLog, analytics: AnalyticsStore) {
    this.#log = log;
    this.#analytics = analytics;
    this.#ends = Array.from({ length: log.partitionCount }, () => 0);
    this.#progress = [...this.#ends];
  }

  /** Records in the log that are not stored, as of the last look. */
  backlog(): number {
    return this.#ends.reduce((sum, end, partition) => sum + Math.max(0, end - (this.#progress[partition] ?? 0)), 0);
  }

  /** Next offset of the stored prefix of each partition, as of the last look. */
  progress(): readonly number[] {
    return [...this.#progress];
  }

  /** Faults whose partitions have not all recovered. */
  unrecovered(): string[] {
    return [...this.#watched].map(({ name }) => name);
  }

  /** The log's ends, fresh where the broker answers at once: to be read before a fault. */
  async ends(): Promise<readonly number[]> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, FRESH_ENDS_MAX_MS); // time passes here: the bound of a wait.
    await Promise.race([this.#readEnds(), late]);
    clearTimeout(timer);
    return [...this.#ends];
  }

  /** Starts the clock of a fault that happens now. */
  note(name: string, ends: readonly number[] = this.#ends): void {
    // One more: a broker's death leaves what it had delivered, and only a record after it shows that the partition moves.
    const target = ends.map((end) => end + 1);
    const open = new Set(target.keys());
    this.#watched.add({ name, startedAt: performance.now(), target, open });
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#loop(signal, () => this.#readEnds()), this.#loop(signal, () => this.#readProgress())]);
  }

  async #loop(signal: AbortSignal, look: () => Promise<void>): Promise<void> {
    while (!signal.aborted) {
      await look();
      // time passes here: the resolution of the measurement.
      await pause(POLL_MS, signal);
    }
  }

  /** Never rejects: a broker that is away has no newer ends. */
  async #readEnds(): Promise<void> {
    const read = this.#ends.map(async (_, partition) => (await this.#log.bounds(partition)).endOffset);
    const ends = await Promise.all(read).catch(() => null);
    if (ends !== null) this.#ends = ends.map((end, partition) => Math.max(end, this.#ends[partition] ?? 0));
  }

  async #readProgress(): Promise<void> {
    const rows = await this.#analytics
      .select<{ partition: number; next: string }>(
        "SELECT logPartition AS partition, toString(max(nextOffset)) AS next FROM progress GROUP BY logPartition",
      )
      .catch(() => []);
    for (const { partition, next } of rows) this.#progress[partition] = Number(next);
    const now = performance.now();
    for (const watched of this.#watched) {
      for (const partition of watched.open) {
        if ((this.#progress[partition] ?? 0) < (watched.target[partition] ?? 0)) continue;
        watched.open.delete(partition);
        this.recoveries.push({ name: watched.name, seconds: (now - watched.startedAt) / 1_000 });
      }
      if (watched.open.size === 0) this.#watched.delete(watched);
    }
  }
}
