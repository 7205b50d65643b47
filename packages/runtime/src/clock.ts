import { randomBytes } from "node:crypto";

/** Wall clock, epoch milliseconds. The aggregator's fold never sees one. */
export interface Clock {
  now(): number;
}

/** The machine's clock. */
export const systemClock: Clock = { now: () => Date.now() };

/** In [0, 1): jitter and names, nothing that is stored as a result. */
export function randomShare(): number {
  return randomBytes(4).readUInt32LE() / 2 ** 32;
}

/** Resolves after the time or at once when the signal aborts; never rejects. */
export function pause(delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, delayMs);
    signal?.addEventListener("abort", done, { once: true });
  });
}
