import { assert, type LogEntry, type LogSubscriber } from "@tallyhouse/domain";
import { BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, Delivery, type DeliverySource } from "./delivery.ts";

/** A partition with this much fetched and undelivered is paused, */
const QUEUED_BYTES_MAX = 2 * 1_048_576;
/** and fetched again when the subscriber has brought it down to this. */
const QUEUED_BYTES_RESUME = QUEUED_BYTES_MAX / 2;
const ENTRY_OVERHEAD_BYTES = 64;

/** What a feed asks of the consumer. */
export interface FeedControl {
  pause(): void;
  resume(): void;
}

/** One partition between kafkajs, which fetches, and the delivery loop: a bounded queue of batches. */
export class KafkaFeed implements DeliverySource {
  readonly delivery: Delivery;
  readonly #control: FeedControl;
  #batches: { entries: readonly LogEntry[]; bytes: number }[] = [];
  #queuedBytes = 0;
  #isPaused = true;
  /** The offset that the next fetched batch must begin with; `null` until a seek after each assignment. */
  #nextOffset: number | null = null;
  /** Whether anything arrived since the last seek: then the position was good once. */
  #hasArrived = false;

  constructor(input: { partition: number; subscriber: LogSubscriber; control: FeedControl }) {
    this.#control = input.control;
    this.delivery = new Delivery({ partition: input.partition, subscriber: input.subscriber, source: this });
  }

  get nextOffset(): number | null {
    return this.#nextOffset;
  }

  get hasArrived(): boolean {
    return this.#hasArrived;
  }

  /** Whether kafkajs should be bringing more. */
  get isFetching(): boolean {
    return !this.#isPaused && this.#nextOffset !== null;
  }

  /** The partition was assigned anew or taken away: nothing flows until the next seek. kafkajs is paused by the caller. */
  reset(): void {
    this.#clear();
    this.#isPaused = true;
    this.#nextOffset = null;
    this.delivery.stopUntilSeek();
  }

  seek(offset: number): void {
    this.#clear();
    this.#isPaused = false;
    this.#nextOffset = offset;
    this.delivery.seek(offset);
  }

  /** The consumer was paused because the position is in doubt; a seek resumes. */
  notePaused(): void {
    this.#isPaused = true;
  }

  /** Takes entries that begin with `nextOffset`, contiguous. */
  push(entries: readonly LogEntry[]): void {
    const last = entries.at(-1);
    if (last === undefined) return;
    assert(entries[0]?.offset === this.#nextOffset, "a batch begins where the last one ended");
    this.#nextOffset = last.offset + 1;
    this.#hasArrived = true;
    for (const batch of split(entries)) {
      this.#batches.push(batch);
      this.#queuedBytes += batch.bytes;
    }
    if (this.#queuedBytes >= QUEUED_BYTES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      this.#control.pause();
    }
    this.delivery.wake();
  }

  read(position: number): readonly LogEntry[] {
    const batch = this.#batches.shift();
    if (batch === undefined) return [];
    assert(batch.entries[0]?.offset === position, "the queue begins where delivery goes on");
    this.#queuedBytes -= batch.bytes;
    if (this.#isPaused && this.#queuedBytes <= QUEUED_BYTES_RESUME) {
      this.#isPaused = false;
      this.#control.resume();
    }
    return batch.entries;
  }

  #clear(): void {
    this.#batches = [];
    this.#queuedBytes = 0;
    this.#hasArrived = false;
  }
}

/** A fetched batch may unpack to much more than was asked for: cut it into batches within the subscriber's bounds. */
function* split(entries: readonly LogEntry[]): Generator<{ entries: readonly LogEntry[]; bytes: number }> {
  let start = 0;
  let bytes = 0;
  for (const [i, entry] of entries.entries()) {
    const size = entryBytes(entry);
    if (i > start && (bytes + size > BATCH_BYTES_MAX || i - start >= BATCH_ENTRIES_MAX)) {
      yield { entries: entries.slice(start, i), bytes };
      start = i;
      bytes = 0;
    }
    bytes += size;
  }
  yield { entries: start === 0 ? entries : entries.slice(start), bytes };
}

function entryBytes(entry: LogEntry): number {
  let bytes = ENTRY_OVERHEAD_BYTES + (entry.key?.length ?? 0) + (entry.value?.length ?? 0);
  for (const name in entry.headers) bytes += name.length + (entry.headers[name]?.length ?? 0);
  return bytes;
}
