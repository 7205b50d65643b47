import type { Answer } from "./answer.ts";

/** How long a result is replayed; afterwards the key is new. Stripe promises at least 24 h. */
const REPLAY_MS = 24 * 3_600_000;

/** The first result of one idempotency key. */
export interface StoredResult {
  readonly key: string;
  /** Epoch milliseconds. */
  readonly at: number;
  /** Digest of the first request: method, path, parameters. */
  readonly fingerprint: string;
  /**
   * The answer; for a counted meter event only its position, because the request that repeats the key carries the
   * rest: an answer kept as text would triple the memory of an event.
   */
  readonly result: Answer | number;
}

/** First results by key, oldest first. */
export class IdempotencyStore {
  readonly #results = new Map<string, StoredResult>();

  /** Undefined when the key is new, or older than {@link REPLAY_MS}. */
  find(key: string, now: number): StoredResult | undefined {
    const stored = this.#results.get(key);
    return stored !== undefined && now - stored.at < REPLAY_MS ? stored : undefined;
  }

  /** Keeps the first result of a key and forgets those past their time. */
  put(stored: StoredResult): void {
    this.#results.delete(stored.key); // an expired one; the new one goes to the end of the order
    this.#results.set(stored.key, stored);
    for (const [key, oldest] of this.#results) {
      if (stored.at - oldest.at < REPLAY_MS) break;
      this.#results.delete(key);
    }
  }

  values(): Iterable<StoredResult> {
    return this.#results.values();
  }
}
