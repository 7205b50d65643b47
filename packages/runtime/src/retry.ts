import { TallyhouseError } from "@tallyhouse/domain";
import { type Clock, pause } from "./clock.ts";

/** Bounds of one retried effect. Delays double from `firstDelayMs` to `delayMaxMs`, with full jitter. */
export interface RetryBudget {
  readonly firstDelayMs: number;
  readonly delayMaxMs: number;
  /** Total time after which the last error is thrown: a supervisor then restarts the process. */
  readonly totalMs: number;
}

/**
 * Repeats an idempotent effect while it fails with a TallyhouseError whose action is `retry`.
 * @throws the last error when the budget is spent, the signal aborts or the error is no retry: the effect may or may not have
 *   happened, any number of times.
 */
export async function retry<Result>(
  effect: () => Promise<Result>,
  budget: RetryBudget,
  context: {
    clock: Clock;
    random: () => number;
    signal?: AbortSignal;
    onRetry?: (error: TallyhouseError, attempt: number) => void;
  },
): Promise<Result> {
  const startedAt = context.clock.now();
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await effect();
    } catch (error) {
      const isRetry = error instanceof TallyhouseError && error.action === "retry";
      const isSpent = context.clock.now() - startedAt >= budget.totalMs;
      if (!isRetry || isSpent || context.signal?.aborted === true) throw error;
      context.onRetry?.(error, attempt);
      const ceilingMs = Math.min(budget.delayMaxMs, budget.firstDelayMs * 2 ** Math.min(attempt - 1, 30));
      await pause(context.random() * ceilingMs, context.signal);
    }
  }
}
