/** Which backfills are due, and their one loop beside the live fold. */
import type { StreamIdentity } from "@tallyhouse/domain";
import type { Logger } from "@tallyhouse/runtime";
import { backfill } from "./backfill.ts";
import type { BackfillStore, PendingBackfill } from "./backfill-store.ts";
import { Wakeup } from "./wakeup.ts";

/** What the backfiller needs from the aggregator around it. */
export interface BackfillerPorts {
  /** Every call retries outages by itself. */
  readonly store: BackfillStore;
  readonly stream: StreamIdentity;
  readonly logger: Logger;
  /** How far an owned and open partition is stored; null when it is not ours. */
  storedOffset(partition: number): number | null;
}

/**
 * Backfills every activation below a stored prefix that has no `backfills` row, one after another, so that at most one page and one
 * slice are in memory. Two processes may do the same one: their rows are equal.
 */
export class Backfiller {
  readonly #ports: BackfillerPorts;
  /** Partitions that may have an activation we did not look at: those just opened, and those that just stored one. */
  readonly #unchecked = new Set<number>();
  readonly #woken = new Wakeup();
  #pendingCount = 0;

  constructor(ports: BackfillerPorts) {
    this.#ports = ports;
  }

  /** Activations that are known to wait, or are being worked on. */
  get pendingCount(): number {
    return this.#pendingCount;
  }

  /** Says that the partition may hold a new activation below its stored prefix. */
  look(partition: number): void {
    this.#unchecked.add(partition);
    this.#woken.notify();
  }

  /**
   * Works until the signal aborts.
   * @throws what no retry mends: a bug, or data that is none of ours.
   */
  async run(stop: AbortSignal): Promise<void> {
    stop.addEventListener("abort", () => this.#woken.notify(), { once: true });
    while (!stop.aborted) {
      if (this.#unchecked.size === 0) await this.#woken.wait();
      else await this.round(stop);
    }
  }

  /** Does everything that is due now. */
  async round(stop?: AbortSignal): Promise<void> {
    for (const partition of this.#unchecked) {
      this.#unchecked.delete(partition);
      const storedOffset = this.#ports.storedOffset(partition);
      // Taken away or not open yet: whoever opens it looks again.
      if (storedOffset === null) continue;
      const pending = await this.#ports.store.readPending({ partition, belowOffset: storedOffset });
      await this.#backfillAll(pending, () => stop?.aborted !== true && this.#ports.storedOffset(partition) !== null);
      this.#pendingCount = 0;
    }
  }

  /**
   * One partition's backfills. The rows of `backfills` come after all other rows of theirs: earlier, a crash in between would leave
   * usage uncounted for ever. Those without usage share an insert, because a meters file makes many at once.
   */
  async #backfillAll(pending: readonly PendingBackfill[], isWanted: () => boolean): Promise<void> {
    const { store, stream, logger } = this.#ports;
    let done: PendingBackfill[] = [];
    for (const [at, each] of pending.entries()) {
      this.#pendingCount = pending.length - at;
      const events = isWanted() ? await backfill(each, { store, stream, isWanted }) : null;
      if (events === null) break;
      done.push(each);
      if (events === 0) continue;
      await store.recordBackfills(done);
      done = [];
      const { partition, activatedOffset, version } = each;
      const { mode, meter, version: number } = version;
      logger.info({ partition, mode, meter, version: number, activatedOffset, events }, "earlier usage is counted");
    }
    if (done.length > 0) await store.recordBackfills(done);
  }
}
