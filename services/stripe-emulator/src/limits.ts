import type { Clock } from "./clock.ts";
import type { Mode } from "./state.ts";

/** Why a call was refused, as in the header `Stripe-Rate-Limited-Reason`. */
type LimitReason = "global-rate" | "endpoint-rate";

/**
 * Calls per second. Meter events of the live mode have a limit of their own, apart from the rest.
 * @see https://docs.stripe.com/rate-limits (read 2026-07)
 */
const RATE = { test: 25, live: 100, liveEndpoint: 25, liveMeterEvents: 1_000 } as const;

const METER_EVENTS = "POST /v1/billing/meter_events";

/** Says of each call whether it passes the rate limits. */
export interface RateLimits {
  /** Takes the call into account; undefined when it passes. */
  refuse(mode: Mode, operation: string): LimitReason | undefined;
}

/** Stripe's documented rates as token buckets of one second's size. Their state is not journalled. */
export function stripeRateLimits(clock: Clock): RateLimits {
  const buckets = new Map<string, Bucket>();
  // Bounded: two modes, and one bucket per documented operation.
  const take = (name: string, perSecond: number): boolean => {
    let bucket = buckets.get(name);
    if (bucket === undefined) buckets.set(name, (bucket = { tokens: perSecond, filledAt: clock.now() }));
    const now = clock.now();
    bucket.tokens = Math.min(perSecond, bucket.tokens + (Math.max(0, now - bucket.filledAt) * perSecond) / 1_000);
    bucket.filledAt = now;
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  };
  return {
    refuse(mode, operation) {
      if (mode === "test") return take("test", RATE.test) ? undefined : "global-rate";
      if (operation === METER_EVENTS)
        return take(`live ${operation}`, RATE.liveMeterEvents) ? undefined : "endpoint-rate";
      if (!take(`live ${operation}`, RATE.liveEndpoint)) return "endpoint-rate";
      return take("live", RATE.live) ? undefined : "global-rate";
    },
  };
}

interface Bucket {
  tokens: number;
  /** Epoch milliseconds. */
  filledAt: number;
}

/** No rates: for load and demonstrations. */
export const noRateLimits: RateLimits = { refuse: () => undefined };

/** Counts the calls in flight per name. */
export class InFlight {
  readonly #counts = new Map<string, number>();

  /** How many there are now, this one included. */
  enter(name: string): number {
    const count = (this.#counts.get(name) ?? 0) + 1;
    this.#counts.set(name, count);
    return count;
  }

  leave(name: string): void {
    const count = (this.#counts.get(name) ?? 0) - 1;
    if (count > 0) this.#counts.set(name, count);
    else this.#counts.delete(name);
  }

  has(name: string): boolean {
    return this.#counts.has(name);
  }
}

/** What `/_emulator/requests` shows. Counted since the start of the process; not journalled. */
export class RequestCounts {
  readonly #operations = new Map<string, number>();
  /** Only pairs that ever had two calls in flight, so that well-behaved clients cost no memory. */
  readonly #crowdedPairs = new Map<string, number>();
  #isPairSeen = false;

  countOperation(operation: string): void {
    this.#operations.set(operation, (this.#operations.get(operation) ?? 0) + 1);
  }

  countPair(pair: string, concurrency: number): void {
    this.#isPairSeen = true;
    if (concurrency > Math.max(1, this.#crowdedPairs.get(pair) ?? 0)) this.#crowdedPairs.set(pair, concurrency);
  }

  /** `maxConcurrencyPerPair` includes calls that were refused for it; 0 before the first meter event. */
  report(): {
    operations: Record<string, number>;
    maxConcurrencyPerPair: number;
    crowdedPairs: Record<string, number>;
  } {
    const crowdedPairs = Object.fromEntries(this.#crowdedPairs);
    const maxConcurrencyPerPair = Math.max(this.#isPairSeen ? 1 : 0, ...this.#crowdedPairs.values());
    return { operations: Object.fromEntries(this.#operations), maxConcurrencyPerPair, crowdedPairs };
  }
}
