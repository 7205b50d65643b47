import type { Clock } from "@tallyhouse/runtime";

const FIRST_DELAY_MS = 1_000;
const DELAY_MAX_MS = 60_000;
/** Rows remembered, about 10 MB; beyond it the oldest is forgotten, which only lets it be tried sooner. */
const ROWS_MAX = 100_000;

/** Which rows wait before their next try. In memory only: a restart tries all once, at the account's rate. */
export interface Backoff {
  isWaiting(rowId: string): boolean;
  /** Doubles the row's ceiling and draws a delay below it (full jitter). */
  failed(rowId: string): void;
  /** The row has a fate, or waits for something else than time. */
  forget(rowId: string): void;
  /** When the first waiting row may be tried, or null when none waits. */
  nextAt(): number | null;
}

/** Full jitter from 1 s to 60 s, per row. */
export function createBackoff(input: { clock: Clock; random: () => number }): Backoff {
  const { clock, random } = input;
  const waiting = new Map<string, { failures: number; notBeforeAt: number }>();
  return {
    isWaiting: (rowId) => clock.now() < (waiting.get(rowId)?.notBeforeAt ?? 0),
    failed(rowId) {
      const failures = (waiting.get(rowId)?.failures ?? 0) + 1;
      const ceilingMs = Math.min(DELAY_MAX_MS, FIRST_DELAY_MS * 2 ** Math.min(failures - 1, 30));
      waiting.delete(rowId);
      waiting.set(rowId, { failures, notBeforeAt: clock.now() + random() * ceilingMs });
      const oldest = waiting.keys().next().value;
      if (waiting.size > ROWS_MAX && oldest !== undefined) waiting.delete(oldest);
    },
    forget: (rowId) => void waiting.delete(rowId),
    nextAt() {
      let nextAt: number | null = null;
      for (const { notBeforeAt } of waiting.values()) nextAt = Math.min(nextAt ?? notBeforeAt, notBeforeAt);
      return nextAt;
    },
  };
}
