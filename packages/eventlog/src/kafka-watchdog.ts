/** kafkajs has hung silently in several ways (its issues 659, 1163, 1700): each limit turns one into an end with a reason. */
const FETCH_SILENCE_MAX_MS = 60_000;
const HEARTBEAT_SILENCE_MAX_MS = 20_000;
const LOOP_STALL_MAX_MS = 5_000;
const LAG_MAX_MS = 60_000;

/** How far one partition is, and how far it could be. */
export interface PartitionLag {
  readonly partition: number;
  /** The next offset to fetch. */
  readonly nextOffset: number;
  readonly endOffset: number;
}

/** Judges a consumer by what it did last. All instants in milliseconds of one monotonic clock. */
export class ConsumerWatchdog {
  #checkedAt: number;
  #fetchedAt: number;
  #heartbeatAt: number;
  readonly #lagging = new Map<number, { nextOffset: number; since: number }>();

  constructor(now: number) {
    this.#checkedAt = now;
    this.#fetchedAt = now;
    this.#heartbeatAt = now;
  }

  noteFetch(now: number): void {
    this.#fetchedAt = now;
  }

  noteHeartbeat(now: number): void {
    this.#heartbeatAt = now;
  }

  /** What is being fetched and has more to give; partitions absent from the list do not lag. */
  noteLags(now: number, lags: readonly PartitionLag[]): void {
    const before = new Map(this.#lagging);
    this.#lagging.clear();
    for (const { partition, nextOffset, endOffset } of lags) {
      if (nextOffset >= endOffset) continue;
      const known = before.get(partition);
      const since = known?.nextOffset === nextOffset ? known.since : now;
      this.#lagging.set(partition, { nextOffset, since });
    }
  }

  /** To be called every `everyMs`. Returns what is wrong, or `null`. */
  check(now: number, everyMs: number): string | null {
    const stalledMs = now - this.#checkedAt - everyMs;
    this.#checkedAt = now;
    // First: after a stall the other silences are its consequence.
    if (stalledMs > LOOP_STALL_MAX_MS) return `the event loop stood still for ${Math.round(stalledMs)} ms`;
    if (now - this.#fetchedAt > FETCH_SILENCE_MAX_MS) return `no fetch for ${FETCH_SILENCE_MAX_MS / 1000} s`;
    if (now - this.#heartbeatAt > HEARTBEAT_SILENCE_MAX_MS) {
      return `no heartbeat for ${HEARTBEAT_SILENCE_MAX_MS / 1000} s, two sessions`;
    }
    for (const [partition, { nextOffset, since }] of this.#lagging) {
      if (now - since > LAG_MAX_MS) {
        return (
          `partition ${partition} has stood at offset ${nextOffset} for ${LAG_MAX_MS / 1000} s with records behind it: ` +
          "a producer's transaction may be open, or fetching hangs"
        );
      }
    }
    return null;
  }
}
