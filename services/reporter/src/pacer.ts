import type { Clock } from "@tallyhouse/runtime";

/** Permission to call: a token bucket per account. */
export interface Pacer {
  /** Takes up to `wanted` permissions that are available now; 0 means none. Never waits. */
  take(wanted: number): number;
  /** Milliseconds until `wanted` permissions (at most a full bucket) may be available; 0 when they are. */
  waitMs(wanted: number): number;
  /** No permission for the given time: the limiter of the other side asked for it. */
  hold(holdMs: number): void;
}

/** A tenth of a second of permissions may be used at once: more would break a limit that counts whole seconds. */
const BURST_SECONDS = 0.1;

/** A bucket of `ratePerSecond` permissions, full at first. */
export function createPacer(input: { ratePerSecond: number; clock: Clock }): Pacer {
  const { ratePerSecond, clock } = input;
  const capacity = Math.max(1, ratePerSecond * BURST_SECONDS);
  let tokens = capacity;
  let filledAt = clock.now();
  let heldUntil = 0;
  const refill = (): void => {
    const now = clock.now();
    // A clock that steps back gives nothing and takes nothing.
    tokens = Math.min(capacity, tokens + (Math.max(0, now - filledAt) / 1_000) * ratePerSecond);
    filledAt = now;
  };
  return {
    take(wanted) {
      refill();
      if (clock.now() < heldUntil) return 0;
      const granted = Math.min(wanted, Math.floor(tokens));
      tokens -= granted;
      return granted;
    },
    waitMs(wanted) {
      refill();
      const heldMs = Math.max(0, heldUntil - clock.now());
      const missing = Math.min(wanted, Math.floor(capacity)) - tokens;
      const emptyMs = missing <= 0 ? 0 : Math.ceil((missing / ratePerSecond) * 1_000);
      return Math.max(heldMs, emptyMs);
    },
    hold(holdMs) {
      heldUntil = Math.max(heldUntil, clock.now() + holdMs);
    },
  };
}
