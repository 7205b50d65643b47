import { assert, type LogEntry, type LogSubscriber, type OpenedEventLog } from "@tallyhouse/domain";

/** One batch as it was handed over. */
export interface CollectedBatch {
  readonly partition: number;
  readonly entries: readonly LogEntry[];
}

/**
 * A subscriber that keeps what it gets and lets a test wait for conditions on it, never for time. A batch's promise
 * resolves at once unless its partition is held. A log may assign its partitions anew at any time (Kafka does when a fresh
 * topic's leader moves): then the collector goes on where it was, as every subscriber must.
 */
export class LogCollector implements LogSubscriber {
  readonly assignments: (readonly number[])[] = [];
  readonly batches: CollectedBatch[] = [];
  readonly #held = new Map<number, PromiseWithResolvers<void>>();
  readonly #conditions: { isMet: () => boolean; resolve: () => void }[] = [];
  readonly #positions = new Map<number, number>();
  #opened: OpenedEventLog | null = null;
  #refusal: Error | null = null;

  async subscribeTo(opened: OpenedEventLog): Promise<void> {
    this.#opened = opened;
    await opened.log.subscribe(this);
  }

  seek(partition: number, offset: number): void {
    assert(this.#opened !== null, "a collector subscribes before it seeks");
    this.#positions.set(partition, offset);
    this.#opened.log.seek(partition, offset);
  }

  onAssigned(partitions: readonly number[]): void {
    this.assignments.push(partitions);
    for (const partition of partitions) {
      const position = this.#positions.get(partition);
      if (position !== undefined) this.seek(partition, position);
    }
    this.#check();
  }

  async onEntries(partition: number, entries: readonly LogEntry[]): Promise<void> {
    this.batches.push({ partition, entries });
    this.#positions.set(partition, (entries.at(-1)?.offset ?? 0) + 1);
    this.#check();
    await this.#held.get(partition)?.promise;
    if (this.#refusal !== null) throw this.#refusal;
  }

  /** Batches of the partition stay unresolved until {@link LogCollector.release}. */
  hold(partition: number): void {
    this.#held.set(partition, Promise.withResolvers());
  }

  release(partition: number): void {
    this.#held.get(partition)?.resolve();
    this.#held.delete(partition);
  }

  /** The next batch is rejected with this error. */
  refuseWith(error: Error): void {
    this.#refusal = error;
  }

  /** Everything the partition delivered, in order of delivery, repeats included. */
  entriesOf(partition: number): LogEntry[] {
    return this.batches.filter((batch) => batch.partition === partition).flatMap((batch) => batch.entries);
  }

  batchCountOf(partition: number): number {
    return this.batches.filter((batch) => batch.partition === partition).length;
  }

  /** Forgets what was delivered, as before a seek. */
  clear(): void {
    this.batches.length = 0;
  }

  /** Resolves when the condition holds; it is tried now and after every delivery. Rejects when the log fails meanwhile. */
  async until(isMet: () => boolean): Promise<void> {
    if (isMet()) return;
    const met = new Promise<void>((resolve) => {
      this.#conditions.push({ isMet, resolve });
    });
    await (this.#opened === null ? met : Promise.race([met, this.#opened.failed]));
  }

  /** Resolves with the entries from `offset` to `endOffset` once the last of them was delivered. */
  async untilOffset(partition: number, endOffset: number): Promise<LogEntry[]> {
    await this.until(() => this.entriesOf(partition).at(-1)?.offset === endOffset - 1);
    return this.entriesOf(partition);
  }

  #check(): void {
    const met = this.#conditions.filter((condition) => condition.isMet());
    for (const condition of met) {
      this.#conditions.splice(this.#conditions.indexOf(condition), 1);
      condition.resolve();
    }
  }
}
