import { TallyhouseError } from "@tallyhouse/domain";

/** More callers than this waiting for room means that nobody upstream limits anything: refuse rather than pile up. */
const WAITERS_MAX = 10_000;

/**
 * Bounds the bytes that are between a caller and the durable log. Waiters are served in order of arrival, so a large
 * append is not overtaken for ever by small ones. One that is larger than the whole budget goes alone.
 */
export class ByteBudget {
  readonly #bytesMax: number;
  readonly #waiting: { bytes: number; admit: () => void; refuse: (error: unknown) => void }[] = [];
  #used = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /**
   * Resolves when the bytes are admitted; `undefined` (nothing to wait for) when they are at once.
   * @throws {TallyhouseError} LOG_UNAVAILABLE (retry) beyond 10,000 waiters.
   */
  acquire(bytes: number): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#fits(bytes)) {
      this.#used += bytes;
      return undefined;
    }
    if (this.#waiting.length >= WAITERS_MAX) {
      throw new TallyhouseError({
        code: "LOG_UNAVAILABLE",
        action: "retry",
        message: `${WAITERS_MAX} appends already wait for the log, which has ${this.#used} bytes in flight`,
      });
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ bytes, admit: resolve, refuse: reject });
    });
  }

  /** Gives back what {@link ByteBudget.acquire} admitted, and admits whoever fits now. */
  release(bytes: number): void {
    this.#used -= bytes;
    for (let first = this.#waiting[0]; first !== undefined && this.#fits(first.bytes); first = this.#waiting[0]) {
      this.#waiting.shift();
      this.#used += first.bytes;
      first.admit();
    }
  }

  /** Rejects everybody who still waits: the log ends. */
  refuseAll(error: unknown): void {
    for (const waiter of this.#waiting.splice(0)) waiter.refuse(error);
  }

  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#bytesMax;
  }
}
