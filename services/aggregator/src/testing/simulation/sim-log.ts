import type { Dice } from "@tallyhouse/testkit";
import { type LogEntry, type LogRecord, type LogSubscriber } from "@tallyhouse/domain";

interface SimPartition {
  readonly entries: LogEntry[];
  earliestOffset: number;
}

/** The log that all processes share: what is appended stays, and its readers see it in any rhythm. */
export class SimLog {
  readonly partitions: readonly SimPartition[];
  /** Advisory commits, as a group coordinator keeps them. The product never reads them back. */
  readonly committed = new Map<number, number>();

  constructor(partitionCount: number) {
    this.partitions = Array.from({ length: partitionCount }, () => ({ entries: [], earliestOffset: 0 }));
  }

  at(partition: number): SimPartition {
    const found = this.partitions[partition];
    if (found === undefined) throw new Error(`no partition ${partition}`);
    return found;
  }

  append(receivedAt: number, record: LogRecord): void {
    const { entries } = this.at(record.partition);
    const { key, value, headers } = record;
    entries.push({ offset: entries.length, receivedAt, key, value, headers, marker: false });
  }

  /** A transaction marker of a neighbour: an offset without a record. */
  appendMarker(partition: number): void {
    const { entries } = this.at(partition);
    entries.push({ offset: entries.length, receivedAt: 0, key: null, value: null, headers: {}, marker: true });
  }

  get recordCount(): number {
    return this.partitions.reduce((sum, { entries }) => sum + entries.length, 0);
  }
}

/** One process's subscription: positions of its own, batches one after another per partition. */
export class SimConsumer {
  subscriber: LogSubscriber | null = null;
  owned: readonly number[] = [];
  readonly #log: SimLog;
  readonly #positions = new Map<number, number>();
  #seeks = 0;
  readonly #delivering = new Set<number>();

  constructor(log: SimLog) {
    this.#log = log;
  }

  /** The complete list of partitions from now on; nothing is delivered before a seek. */
  assign(partitions: readonly number[]): void {
    this.owned = partitions;
    this.#positions.clear();
    this.subscriber?.onAssigned(partitions);
  }

  seek(partition: number, offset: number): void {
    if (!this.owned.includes(partition)) return;
    this.#positions.set(partition, offset);
    this.#seeks += 1;
  }

  /** Partitions with something to read, where the last batch was taken. */
  deliverable(): number[] {
    return this.owned.filter((partition) => {
      const position = this.#positions.get(partition);
      const { entries, earliestOffset } = this.#log.at(partition);
      const isReadable = position !== undefined && position >= earliestOffset && position < entries.length;
      return isReadable && !this.#delivering.has(partition);
    });
  }

  /** Hands over one batch: nearly always the next one, at times one of another position, as a client does around a seek. */
  deliver(partition: number, dice: Dice): void {
    const position = this.#positions.get(partition) ?? 0;
    const { entries, earliestOffset } = this.#log.at(partition);
    const isAstray = dice.chance(0.02);
    const shift = isAstray ? dice.between(-6, 3) : 0;
    const from = Math.min(Math.max(position + shift, earliestOffset), entries.length - 1);
    const batch = entries.slice(from, from + dice.between(1, 12));
    this.#delivering.add(partition);
    const seeks = this.#seeks;
    const taken = (): void => {
      this.#delivering.delete(partition);
      // A seek or an assignment in between has the last word.
      const isCurrent = this.#seeks === seeks && this.#positions.has(partition);
      if (isCurrent) this.#positions.set(partition, from + batch.length);
    };
    // A rejection ends the process by its own way, and a dead one takes no more batches.
    this.subscriber?.onEntries(partition, batch).then(taken, () => {});
  }
}
