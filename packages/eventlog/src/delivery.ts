import type { LogEntry, LogSubscriber } from "@tallyhouse/domain";

/** One batch to the subscriber holds at most this many entries. */
export const BATCH_ENTRIES_MAX = 5_000;
/** Payload bytes of one batch to the subscriber; the sources see to it. */
export const BATCH_BYTES_MAX = 1_048_576;

/** Where a delivery loop takes entries from. */
export interface DeliverySource {
  /**
   * Entries from exactly this offset on, contiguous, within the batch bounds; empty when there are none now, and then
   * {@link Delivery.wake} must follow as soon as there are.
   */
  read(position: number): Promise<readonly LogEntry[]> | readonly LogEntry[];
}

/**
 * One partition's in-order delivery: read, hand over, wait for the subscriber's promise, next. Nothing before the first
 * seek. A seek during a read or a callback wins over the position that these would have led to.
 */
export class Delivery {
  readonly #partition: number;
  readonly #source: DeliverySource;
  readonly #subscriber: LogSubscriber;
  #position: number | null = null;
  /** Counts seeks: what began under another number no longer moves the position. */
  #generation = 0;
  #closed = false;
  #isAwake = true;
  #wakeWaiting: (() => void) | null = null;

  constructor(input: { partition: number; source: DeliverySource; subscriber: LogSubscriber }) {
    this.#partition = input.partition;
    this.#source = input.source;
    this.#subscriber = input.subscriber;
  }

  seek(offset: number): void {
    this.#position = offset;
    this.#generation += 1;
    this.wake();
  }

  /** Nothing is handed over before the next seek; the position of a batch in hand is forgotten. */
  stopUntilSeek(): void {
    this.#position = null;
    this.#generation += 1;
  }

  /** There may be something to read. */
  wake(): void {
    this.#isAwake = true;
    this.#wakeWaiting?.();
    this.#wakeWaiting = null;
  }

  /** Nothing is handed over any more; a callback that runs is not waited for. */
  close(): void {
    this.#closed = true;
    this.wake();
  }

  /** Ends after {@link Delivery.close}; rejects with what the source or the subscriber threw. */
  async run(): Promise<void> {
    while (!this.#closed) {
      await this.#untilAwake();
      this.#isAwake = false;
      while (await this.#deliverOne());
    }
  }

  async #deliverOne(): Promise<boolean> {
    const position = this.#position;
    if (this.#closed || position === null) return false;
    const generation = this.#generation;
    const read = this.#source.read(position);
    const entries = read instanceof Promise ? await read : read;
    if (this.#closed) return false;
    if (generation !== this.#generation) return true;
    const last = entries.at(-1);
    if (last === undefined) return false;
    await this.#subscriber.onEntries(this.#partition, entries);
    if (generation === this.#generation) this.#position = last.offset + 1;
    return true;
  }

  async #untilAwake(): Promise<void> {
    if (this.#isAwake) return;
    await new Promise<void>((resolve) => {
      this.#wakeWaiting = resolve;
    });
  }
}
